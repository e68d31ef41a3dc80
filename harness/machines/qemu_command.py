# SPDX-License-Identifier: GPL-2.0-only
"""QEMU's command line, and the kernel's in it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from packaging.version import Version

from harness.provision.kernel_store import Kernel
from harness.provision.userland import Image
from harness.scenarios.versions import kernel_version

QEMU = "qemu-system-x86_64"
_ALONE = (QEMU, "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none")
_NEEDS_CMPXCHG16B = Version("6.18")

# Fast: no decompression, no probing of what QEMU does not have, no boot messages on a slow port.
FAST_BOOT = (
    "console=ttyS0",
    "quiet",
    "mitigations=off",
    "nokaslr",  # addresses in logs match vmlinux
    "audit=0",
    "random.trust_cpu=on",
    "cryptomgr.notests",
    "tsc=reliable",
    "no_timer_check",
    "rcupdate.rcu_expedited=1",
)

# A kernel that has gone wrong must say so and stop: -no-reboot turns the reboot into QEMU's exit.
STOP_ON_TROUBLE = (
    "panic=-1",
    "oops=panic",
    "softlockup_panic=1",
    "hung_task_panic=1",
    "unknown_nmi_panic",
    # Under KVM as well, QEMU then tells how a CPU's timer is set: see pulse.py.
    "lapic=notscdeadline",
    # A soft lockup is called after twice the first, an RCU stall after the second, in seconds: long
    # enough for an emulated CPU that its host makes wait.
    "watchdog_thresh=8",
    "rcupdate.rcu_cpu_stall_timeout=20",
    "sysctl.kernel.panic_on_rcu_stall=1",
    # Debian's kernels clear all memory that they give out: bytes of a value that the kernel forgets to
    # write, the lock's among them, would be zero by that. commit 6471384af2a6 ("mm: security:
    # introduce init_on_alloc=1 and init_on_free=1 boot options") (in v5.3)
    "init_on_alloc=0",
    "panic_print=64",  # backtraces of all CPUs: a deadlock has two sides (bit known since v5.18)
)


@dataclass(frozen=True)
class Machine:
    """The guest as a machine; `append` are more words of its kernel's command line."""

    cpus: int = 4
    memory_mib: int = 1024
    append: str = ""


@dataclass(frozen=True)
class Runtime:
    """What one QEMU process reads, writes and talks to."""

    initrd: Path
    console: Path
    channel_fd: int  # to the agent
    qmp_fd: int


@dataclass(frozen=True)
class Memory:
    """The file that backs a guest's memory; `kept` says whether it keeps what the guest writes."""

    file: Path
    kept: bool


def arguments(
    kernel: Kernel,
    image: Image,
    machine: Machine,
    accelerator: str,
    runtime: Runtime,
    *,
    memory: Memory | None = None,
    incoming: bool = False,
) -> list[str]:
    """Return QEMU's command line.

    An `incoming` guest takes over the state of a saved one.
    """
    words = [*FAST_BOOT, *STOP_ON_TROUBLE, *kernel.command_line, *machine.append.split()]
    command = [
        *_ALONE,
        *accelerator_arguments(accelerator, kernel.release),
        *("-m", str(machine.memory_mib), "-smp", str(machine.cpus)),
        *("-kernel", str(kernel.vmlinux), "-initrd", str(runtime.initrd)),
        *("-append", " ".join(words)),
    ]
    board = "q35,hpet=off,vmport=off"
    if memory is not None:
        share = "on" if memory.kept else "off"
        backend = f"memory-backend-file,id=ram,size={machine.memory_mib}M,share={share}"
        command += ["-object", f"{backend},mem-path={_escape(memory.file)}"]
        board += ",memory-backend=ram"
    command += ["-machine", board]
    drives = [("base", image.root)]
    drives += [("modules", kernel.modules)] if kernel.modules is not None else []
    for name, path in drives:
        drive = f"if=none,id={name},format=raw,read-only=on,file.locking=off,cache=unsafe"
        command += ["-drive", f"{drive},file={_escape(path)}"]
        command += ["-device", f"virtio-blk-pci,drive={name}"]
    command += [
        *("-chardev", f"file,id=console,path={_escape(runtime.console)}"),
        *("-serial", "chardev:console"),
        *("-chardev", f"socket,id=agent,fd={runtime.channel_fd}", "-device", "virtio-serial-pci"),
        *("-device", "virtserialport,chardev=agent,name=spinlock"),
        *("-chardev", f"socket,id=qmp,fd={runtime.qmp_fd}", "-mon", "chardev=qmp,mode=control"),
    ]
    if incoming:
        command += ["-incoming", "defer"]
    return command


def accelerator_arguments(accelerator: str, release: str) -> list[str]:
    """Return the arguments for "kvm" or "tcg", and a kernel of this release.

    QEMU 7.2 leaves part of an address among an emulated CPU's flags after a cmpxchg16b, of which a
    kernel dies when an interrupt comes at that moment (see splat.is_emulators): one that gcc 12 made
    did so in one of some hundred cases. Older kernels do without that instruction where the CPU has
    none. From v6.18 on they need it: without it kmalloc_nolock() has no memory to give, nor have
    then, on 7.3, local storages.
    """
    if accelerator == "kvm":
        return ["-accel", "kvm", "-cpu", "host"]
    words = ["max", "la57=off"]  # walking 5-level page tables is slow when emulated
    if kernel_version(release) < _NEEDS_CMPXCHG16B:
        words.append("cx16=off")
    return ["-accel", "tcg,thread=multi", "-cpu", ",".join(words)]


def probe(kernel: Kernel, console: Path) -> list[str]:
    """Return the command line that boots a kernel under KVM as far as its init."""
    words = [*FAST_BOOT, *STOP_ON_TROUBLE, "spinlock.init=probe"]
    return [
        *(*_ALONE, *accelerator_arguments("kvm", "")),
        *("-machine", "q35", "-m", "512", "-smp", "2"),
        *("-kernel", str(kernel.vmlinux), "-initrd", str(kernel.initrd)),
        *("-append", " ".join(words)),
        *("-chardev", f"file,id=console,path={_escape(console)}", "-serial", "chardev:console"),
    ]


def _escape(path: Path) -> str:
    return str(path).replace(",", ",,")
