# SPDX-License-Identifier: GPL-2.0-only
"""Makes QEMU's command line and the guest kernel's. Pure."""

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

# Fast boot: no self-tests, no probing of devices that QEMU lacks, no messages on a slow console.
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

# Saves each emulated CPU the measurement. The time stamp counter is this machine's, some GHz, and delays
# of the kernel count it: at 250 Hz this stands for 2.5 GHz. Lockups are found by timers, not by delays.
LOOPS_PER_JIFFY = "lpj=10000000"

# A kernel with a bug must report it and panic. -no-reboot turns the reboot into QEMU's exit.
STOP_ON_TROUBLE = (
    "panic=-1",
    "oops=panic",
    "softlockup_panic=1",
    "hung_task_panic=1",
    "unknown_nmi_panic",
    # QEMU then shows how a CPU's timer is set under KVM, too: see pulse.py.
    "lapic=notscdeadline",
    # A soft lockup is reported after twice watchdog_thresh seconds, an RCU stall after 20 s. A vCPU
    # that waits for a busy host stays below both.
    "watchdog_thresh=8",
    "rcupdate.rcu_cpu_stall_timeout=20",
    "sysctl.kernel.panic_on_rcu_stall=1",
    # Debian's kernels zero all allocated memory. That would hide bytes of a value that the kernel
    # fails to initialize, such as its lock. See commit 6471384af2a6 ("mm: security: introduce
    # init_on_alloc=1 and init_on_free=1 boot options") (in v5.3).
    "init_on_alloc=0",
    "panic_print=64",  # backtraces of all CPUs: a deadlock involves two (bit known since v5.18)
)


@dataclass(frozen=True)
class Machine:
    """The guest's virtual machine. `append` holds more words for its kernel's command line."""

    cpus: int = 4
    memory_mib: int = 1024
    append: str = ""


@dataclass(frozen=True)
class Runtime:
    """The files and sockets of one QEMU process."""

    initrd: Path
    console: Path
    channel_fd: int  # to the agent
    qmp_fd: int


@dataclass(frozen=True)
class Memory:
    """The file that backs a guest's memory. If `kept`, the guest's writes go to the file."""

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

    An `incoming` guest is restored from the state of a saved one.
    """
    emulated = [LOOPS_PER_JIFFY] if accelerator == "tcg" else []
    words = [*FAST_BOOT, *emulated, *STOP_ON_TROUBLE, *kernel.command_line]
    words += machine.append.split()
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
        command += ["-object", f"{backend},mem-path={escape(memory.file)}"]
        board += ",memory-backend=ram"
    command += ["-machine", board]
    drives = [("base", image.root)]
    drives += [("modules", kernel.modules)] if kernel.modules is not None else []
    for name, path in drives:
        drive = f"if=none,id={name},format=raw,read-only=on,file.locking=off,cache=unsafe"
        command += ["-drive", f"{drive},file={escape(path)}"]
        command += ["-device", f"virtio-blk-pci,drive={name}"]
    command += [
        *("-chardev", f"file,id=console,path={escape(runtime.console)}"),
        *("-serial", "chardev:console"),
        *("-chardev", f"socket,id=agent,fd={runtime.channel_fd}", "-device", "virtio-serial-pci"),
        *("-device", "virtserialport,chardev=agent,name=spinlock"),
        *("-chardev", f"socket,id=qmp,fd={runtime.qmp_fd}", "-mon", "chardev=qmp,mode=control"),
    ]
    if incoming:
        command += ["-incoming", "defer"]
    return command


def accelerator_arguments(accelerator: str, release: str) -> list[str]:
    """Return the arguments for the accelerator "kvm" or "tcg" and a kernel of this release.

    For kernels before v6.18, the emulated CPU has no cmpxchg16b. QEMU 7.2 emulates it wrongly: an
    interrupt right after it may crash the kernel (see splat.is_emulators). A kernel built by gcc 12
    crashed in one of some hundred cases. Since v6.18 kernels need the instruction: without it
    kmalloc_nolock() fails, and on 7.3 also the allocation of local storage.
    """
    if accelerator == "kvm":
        return ["-accel", "kvm", "-cpu", "host"]
    words = ["max", "la57=off"]  # walking 5-level page tables is slow when emulated
    if kernel_version(release) < _NEEDS_CMPXCHG16B:
        words.append("cx16=off")
    return ["-accel", "tcg,thread=multi", "-cpu", ",".join(words)]


def probe(kernel: Kernel, console: Path) -> list[str]:
    """Return the command line that boots a kernel under KVM up to its init."""
    words = [*FAST_BOOT, *STOP_ON_TROUBLE, "spinlock.init=probe"]
    return [
        *(*_ALONE, *accelerator_arguments("kvm", "")),
        *("-machine", "q35", "-m", "512", "-smp", "2"),
        *("-kernel", str(kernel.vmlinux), "-initrd", str(kernel.initrd)),
        *("-append", " ".join(words)),
        *("-chardev", f"file,id=console,path={escape(console)}", "-serial", "chardev:console"),
    ]


def escape(path: Path) -> str:
    """Return a path as the value of an option, in which a comma ends it."""
    return str(path).replace(",", ",,")
