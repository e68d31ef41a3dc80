# SPDX-License-Identifier: GPL-2.0-only
"""Kernels without downloads: the payload of a bzImage, initramfs archives, names, the cache."""

from __future__ import annotations

import dataclasses
import gzip
import json
import lzma
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from harness.errors import SetupError, UsageError
from harness.provision import (
    bzimage,
    catalogue,
    debian_kernel,
    debian_packages,
    initramfs,
    kernel_store,
)

ELF = b"\x7fELF" + bytes(range(256)) * 64


def wrapped(payload: bytes, sectors: int = 3, offset: int = 0x40) -> bytes:
    """Make a bzImage header around `payload`, which may be compressed data without its size."""
    payload += struct.pack("<I", len(ELF))
    image = bytearray((sectors + 1) * 512 + offset)
    image[0x1F1] = sectors
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<II", image, 0x248, offset, len(payload))
    return bytes(image) + payload + b"after the payload"


def tool(*command: str) -> bytes:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    return subprocess.run(command, input=ELF, capture_output=True, check=True).stdout


def test_gzip_and_xz() -> None:
    assert bzimage.vmlinux(wrapped(gzip.compress(ELF))) == ELF
    assert bzimage.vmlinux(wrapped(lzma.compress(ELF, check=lzma.CHECK_CRC32))) == ELF


def test_zstd() -> None:
    assert bzimage.vmlinux(wrapped(tool("zstd", "-q", "-c"))) == ELF


def test_lz4() -> None:
    assert bzimage.vmlinux(wrapped(tool("lz4", "-l", "-q", "-c"))) == ELF


@pytest.mark.parametrize("sectors", [1, 31])
def test_setup_size_counts(sectors: int) -> None:
    assert bzimage.vmlinux(wrapped(gzip.compress(ELF), sectors, 0)) == ELF


def test_refusals_say_what_is_wrong() -> None:
    with pytest.raises(SetupError, match="not a bzImage"):
        bzimage.vmlinux(ELF)
    with pytest.raises(SetupError, match="compression .* not known"):
        bzimage.vmlinux(wrapped(b"BZh91AY&SY"))
    with pytest.raises(SetupError, match="damaged"):
        bzimage.vmlinux(wrapped(lzma.compress(ELF)[:40] + b"\xff" * 40))
    whole = wrapped(gzip.compress(ELF))
    for end in (0x250, len(whole) // 2):
        with pytest.raises(SetupError, match="ends too early"):
            bzimage.vmlinux(whole[:end])


@pytest.mark.parametrize(
    "content, words",
    [
        (b"\x7fELF\x01" + bytes(60), "no kernel for x86-64"),
        (b"\x7fELF\x02" + bytes(13) + b"\xb7" + bytes(60), "no kernel for x86-64"),
        (b"\x7fELF\x02" + bytes(13) + b"\x3e" + bytes(60), "no PVH entry"),
        (b"text", "not a bzImage"),
    ],
)
def test_file_that_is_no_kernel(
    content: bytes, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPINLOCK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(kernel_store, "NEEDED_MIB", 0)
    file = tmp_path / "file"
    file.write_bytes(content)
    with pytest.raises(SetupError, match=words):
        kernel_store.fetch(str(file), lambda message: None)
    assert not list((tmp_path / "cache" / "kernels").glob("own*building*"))


def test_kernel_that_cannot_be_read() -> None:
    with pytest.raises(SetupError, match="cannot be read"):
        kernel_store.fetch("/proc/self/mem", lambda message: None)


def test_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(catalogue.UnknownKernel, match=r"6\.12") as caught:
        catalogue.find("6.20")
    assert isinstance(caught.value, UsageError)
    with pytest.raises(catalogue.UnknownKernel, match="5.10 or 6.1 or"):
        catalogue.find("windows")


@pytest.mark.parametrize(
    "row, expected",
    [
        (
            catalogue.Debian("a", "6.12", ("s",)),
            ["linux-image-6.12.9+deb13-cloud-amd64", "linux-image-6.12.90+deb13.1-cloud-amd64"],
        ),
        (catalogue.Debian("b", "6.12", ("s",), "amd64"), ["linux-image-6.12.9+deb13-amd64"]),
        (catalogue.Debian("c", "6.12", ("s",), "rt-amd64"), ["linux-image-6.12.9+deb13-rt-amd64"]),
        (catalogue.Debian("d", "6.1", ("s",)), ["linux-image-6.1.0-56-cloud-amd64"]),
    ],
)
def test_image_package(row: catalogue.Debian, expected: list[str]) -> None:
    listed = [
        "linux-image-6.12.9+deb13-cloud-amd64",
        "linux-image-6.12.9+deb13-cloud-amd64-unsigned",
        "linux-image-6.12.9+deb13-cloud-amd64-dbg",
        "linux-image-6.12.90+deb13.1-cloud-amd64",
        "linux-image-6.12.9+deb13-amd64",
        "linux-image-6.12.9+deb13-rt-amd64",
        "linux-image-6.1.0-56-cloud-amd64",
        "linux-image-cloud-amd64",
    ]
    assert debian_kernel.image_package(listed, row) == expected


DEP = """\
kernel/fs/ext4/ext4.ko: kernel/lib/crc16.ko kernel/fs/mbcache.ko kernel/fs/jbd2/jbd2.ko
kernel/fs/mbcache.ko:
kernel/lib/crc16.ko:
kernel/fs/jbd2/jbd2.ko: kernel/lib/crc16.ko
kernel/drivers/block/virtio_blk.ko.xz: kernel/lib/virtio.ko
kernel/lib/virtio.ko:
"""


def test_module_order_puts_dependencies_first_and_once() -> None:
    order = initramfs.module_order(["virtio_blk", "ext4", "jbd2"], DEP, "")
    at = {Path(path).name: place for place, path in enumerate(order)}
    assert len(at) == len(order) == 6
    assert at["ext4.ko"] > at["jbd2.ko"] > at["crc16.ko"]
    assert at["ext4.ko"] > at["mbcache.ko"]
    assert at["virtio_blk.ko.xz"] > at["virtio.ko"]


def test_module_order_knows_builtin_and_missing() -> None:
    builtin = "kernel/drivers/virtio/virtio-pci.ko\n"
    assert initramfs.module_order(["virtio_pci"], DEP, builtin) == []
    assert initramfs.module_order(["ahci"], DEP, builtin, required=False) == []
    with pytest.raises(SetupError, match="ahci"):
        initramfs.module_order(["ahci"], DEP, builtin)


def test_cpio_is_read_back_by_cpio(tmp_path: Path) -> None:
    if shutil.which("cpio") is None:
        pytest.skip("cpio is not installed")
    files = {"init": b"program", "modules/a.list": b"/modules/a.ko\n", "modules/empty": b""}
    archive = initramfs.cpio(files, executable=["init"])
    assert len(archive) % 512 == 0
    assert archive == initramfs.cpio(files, executable=["init"])
    subprocess.run(
        ["cpio", "--extract", "--quiet"], input=archive, cwd=tmp_path, check=True, timeout=10
    )
    found = {
        str(path.relative_to(tmp_path)): path.read_bytes()
        for path in tmp_path.rglob("*")
        if path.is_file()
    }
    assert found == files
    assert (tmp_path / "init").stat().st_mode & 0o777 == 0o755


def test_recipe_changes_with_the_row(monkeypatch: pytest.MonkeyPatch) -> None:
    row = catalogue.find(catalogue.DEFAULT)
    before = kernel_store.recipe(row)
    assert kernel_store.recipe(dataclasses.replace(row, flavour="amd64")) != before
    assert (
        kernel_store.recipe(dataclasses.replace(row, suites=("sid",))) == before
    ), "the same files"
    monkeypatch.setattr(debian_kernel, "AGENT_MODULES", ("virtio_pci",))
    assert kernel_store.recipe(row) != before


def test_stale_kernel_is_used_when_it_cannot_be_renewed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPINLOCK_CACHE", str(tmp_path))

    def build(*_: object) -> None:
        raise debian_packages.Unreachable("no network")

    monkeypatch.setattr(kernel_store, "_build", build)
    monkeypatch.setattr(kernel_store, "_check_space", lambda home: None)
    directory = tmp_path / "kernels" / f"{catalogue.DEFAULT}-000000000000"
    directory.mkdir(parents=True)
    (directory / f"initrd-{kernel_store._init_digest()}.cpio").touch()
    manifest = {"release": "1", "package_version": "2", "headers": "own", "digest": "3"}
    said: list[str] = []
    for form in (kernel_store.FORMAT - 1, kernel_store.FORMAT):
        with pytest.raises(SetupError, match="no network"):
            kernel_store.fetch(catalogue.DEFAULT, said.append)
        written = {**manifest, "command_line": [], "format": form}
        (directory / "kernel.json").write_text(json.dumps(written))
    assert kernel_store.fetch(catalogue.DEFAULT, said.append).release == "1"
    assert ["no network" in line for line in said] == [True]
    with pytest.raises(SetupError, match="no network"):
        kernel_store.fetch(catalogue.DEFAULT, said.append, update=True)


def test_own_kernels_go_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPINLOCK_CACHE", str(tmp_path))
    for number in range(3):
        (tmp_path / "kernels" / f"own-{number:012}").mkdir(parents=True)
    with pytest.raises(UsageError, match="remove own"):
        kernel_store.remove("/boot/vmlinuz")
    assert kernel_store.remove(kernel_store.OWN) and not kernel_store.remove(kernel_store.OWN)
    assert not list((tmp_path / "kernels").glob("own-*"))


def test_only_a_finished_and_current_build_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPINLOCK_CACHE", str(tmp_path))
    row = catalogue.find(catalogue.DEFAULT)
    directory = tmp_path / "kernels" / f"{row.name}-{kernel_store.recipe(row)}"
    directory.mkdir(parents=True)
    assert kernel_store.cached(row.name) is None
    manifest = {"release": "1", "package_version": "2", "headers": "own", "digest": "3"}
    manifest["command_line"] = []
    (directory / "kernel.json").write_text(json.dumps(manifest))
    assert kernel_store.cached(row.name) is None, "no initramfs for the present init.c"
    (directory / "initrd-000000000000.cpio").touch()
    assert kernel_store.cached(row.name) is None, "an initramfs of another init.c"
    (directory / f"initrd-{kernel_store._init_digest()}.cpio").touch()
    found = kernel_store.cached(row.name)
    assert found is not None and found.release == "1"
    monkeypatch.setattr(kernel_store, "FORMAT", kernel_store.FORMAT + 1)
    assert kernel_store.cached(row.name) is None
