# SPDX-License-Identifier: GPL-2.0-only
"""qemu.py without QEMU: command lines, keys of saved guests, what the end of a guest means."""

from __future__ import annotations

import os
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from harness.errors import SetupError
from harness.judging import splat
from harness.machines import qemu_command, qemu_guest
from harness.provision.kernel_store import Kernel
from harness.provision.userland import Image

DATA = Path(__file__).parent.parent / "data"
KERNEL = Kernel(
    name="6.12",
    release="6.12.1",
    package_version="6.12.1-1",
    vmlinux=Path("/k/vmlinux"),
    bzimage=Path("/k/bzimage"),
    initrd=Path("/k/initrd"),
    modules=Path("/k/with,comma/modules.squashfs"),
    headers=True,
    digest="kernel",
)
IMAGE = Image(Path("/i/root.ext4"), Path("/i/include"), Path("/i/ssh_key"), "image", {})


def command(**changes: Any) -> list[str]:
    names = {field.name for field in fields(qemu_command.Machine)} & set(changes)
    machine = qemu_command.Machine(**{name: changes.pop(name) for name in names})
    runtime = qemu_command.Runtime(Path("/r/initrd"), Path("/r/console"), channel_fd=7, qmp_fd=8)
    accelerator = changes.pop("accelerator", "tcg")
    return qemu_command.arguments(KERNEL, IMAGE, machine, accelerator, runtime, **changes)


def value(words: list[str], option: str) -> str:
    assert words.count(option) == 1
    return words[words.index(option) + 1]


def test_a_guest_that_goes_wrong_stops() -> None:
    words = command(append="slub_debug=FZ quiet")
    assert "-no-reboot" in words
    append = value(words, "-append").split()
    assert {"panic=-1", "oops=panic", "softlockup_panic=1", "hung_task_panic=1"} <= set(append)
    assert append[-2:] == ["slub_debug=FZ", "quiet"], "the caller's words come last, to win"


def test_no_network_and_nothing_by_default() -> None:
    text = " ".join(command())
    assert "-nodefaults" in text
    assert "net" not in text.replace("-no-user-config", "")


def test_disks_are_read_only_and_commas_are_safe() -> None:
    words = command()
    drives = [words[at + 1] for at, word in enumerate(words) if word == "-drive"]
    assert len(drives) == 2
    assert all("read-only=on" in drive for drive in drives)
    assert drives[1].endswith("file=/k/with,,comma/modules.squashfs")


def test_accelerators() -> None:
    assert value(command(), "-cpu") == "max,la57=off,cx16=off"
    assert (
        qemu_command.accelerator_arguments("tcg", "6.18.15+deb13-cloud-amd64")[-1] == "max,la57=off"
    )
    assert (
        qemu_command.accelerator_arguments("tcg", "6.1.0-56-cloud-amd64")[-1]
        == "max,la57=off,cx16=off"
    )
    assert value(command(accelerator="kvm"), "-accel") == "kvm"


def test_restored_guest_reads_memory_privately() -> None:
    saved, kept = (qemu_command.Memory(Path("/s/memory"), kept) for kept in (False, True))
    booted, restored = command(memory=kept), command(memory=saved, incoming=True)
    assert "share=on" in value(booted, "-object")
    assert "share=off" in value(restored, "-object")
    assert value(restored, "-incoming") == "defer"
    same = [word for word in restored if word not in ("-incoming", "defer")]
    differing = [(one, two) for one, two in zip(booted, same) if one != two]
    assert len(same) == len(booted)
    assert [two.split(",")[0] for _, two in differing] == ["memory-backend-file"]


def test_key_depends_on_command_and_facts() -> None:
    keys = {
        qemu_guest.save_key(command()),
        qemu_guest.save_key(command(cpus=2)),
        qemu_guest.save_key(command(append="x")),
        qemu_guest.save_key(command(), "QEMU 7.2"),
        qemu_guest.save_key(command(), "QEMU 7.2", "agent"),
    }
    assert len(keys) == 5
    assert qemu_guest.save_key(command(), "a") == qemu_guest.save_key(command(), "a")


@pytest.mark.parametrize(
    "status, console, messages, expected",
    [
        (
            0,
            "[ 1.0] Kernel panic - not syncing: softlockup: hung tasks\n[ 1.1] more",
            "",
            "the kernel panicked: softlockup: hung tasks",
        ),
        (0, "spinlock-init: no base image (ext4) found\n", "", "no base image"),
        (-9, "", "", "QEMU was ended by SIGKILL"),
        (1, "", "qemu: warning\nqemu: -m: out of memory\n", "QEMU ended: qemu: -m: out of memory"),
        (0, "", "", "the guest stopped or reset"),
    ],
)
def test_describe_end(status: int, console: str, messages: str, expected: str) -> None:
    assert expected in qemu_guest.describe_end(status, console, messages)


def test_of_a_long_console_the_splat_that_explains_the_rest_is_kept() -> None:
    """All CPUs' backtraces follow the oops of a boot; without it, it would be the kernel's."""
    booted = "".join(f"[    0.{n:06}] a line of the boot\n" for n in range(2000))
    oops = (DATA / "emulator-int3-at-boot-7.3.4.txt").read_text()
    assert len(oops) > qemu_guest.CONSOLE_KEPT
    kept = qemu_guest.telling(booted + oops)
    assert len(kept) == qemu_guest.CONSOLE_KEPT
    assert kept.startswith("[    2.984999] Oops: int3: 0000 [#1] SMP NOPTI\n")
    assert splat.is_emulators(kept)


def test_of_a_console_without_a_splat_the_end_is_kept() -> None:
    console = "".join(f"line {n}\n" for n in range(9000))
    assert qemu_guest.telling(console) == console[-qemu_guest.CONSOLE_KEPT :]


def test_accelerator_can_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPINLOCK_ACCELERATOR", "tcg")
    assert qemu_guest.accelerator(KERNEL) == "tcg"
    monkeypatch.setenv("SPINLOCK_ACCELERATOR", "xen")
    with pytest.raises(SetupError, match="kvm or tcg"):
        qemu_guest.accelerator(KERNEL)


def test_old_saved_guests_are_forgotten_by_last_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qemu_guest, "KEPT_GUESTS", 2)
    saved = [tmp_path / f"6.12-{digit * 20}" for digit in "abcd"]
    other = tmp_path / f"6.1-{'a' * 20}"
    for at, path in enumerate([*saved, other]):
        path.mkdir()
        os.utime(path, (at, at))
    qemu_guest._forget_old("6.12", saved[0])
    assert [path for path in saved if path.exists()] == [saved[0], saved[3]]
    assert other.exists()


def test_missing_qemu_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qemu_guest, "QEMU", "qemu-system-of-nobody")
    qemu_guest.version.cache_clear()
    with pytest.raises(SetupError, match="install the package qemu-system-x86"):
        qemu_guest.version()
