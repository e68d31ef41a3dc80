# SPDX-License-Identifier: GPL-2.0-only
"""Measure how soon a kernel answers: a verdict of this harness, and `uname -r` of virtme-ng.

    .venv/bin/python benchmarks/first_verdict.py [--kernel 6.12] [--repeat 3]

Both boot the same kernel image with as many CPUs and as much memory, and take turns. "never seen" has no
saved guest, "restored" has one. Read the ratios, on an idle machine: the seconds are one machine's.
virtme-ng needs busybox and virtiofsd (Debian's packages; in bookworm QEMU's has the latter).
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Dict, List, Optional

from harness import paths
from harness.errors import SetupError, UsageError
from harness.machines import qemu_guest
from harness.machines.qemu_command import Machine
from harness.provision import host_tools, kernel_store, userland
from harness.provision.kernel_store import Kernel

ROOT = Path(__file__).resolve().parent.parent
CASE = "missing_unlock"
LIMIT_S = 600.0
VIRTIOFSD = ("/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd")
SHARED = ("apt", "image", "kernels", "build", "agent", "probe", "native")  # parts of the cache


def virtme_ng() -> str:
    """Return the path of virtme-ng's command. Raises SetupError if it, or what it needs, is missing."""
    beside = Path(sys.executable).with_name("vng")  # of this virtual environment
    found = str(beside) if beside.exists() else shutil.which("vng")
    if found is None:
        raise SetupError("virtme-ng is missing: `pip install virtme-ng`.")
    if shutil.which("busybox") is None:
        raise SetupError("virtme-ng needs busybox: install the package busybox.")
    if not any(Path(path).exists() for path in VIRTIOFSD):
        raise SetupError("virtme-ng needs virtiofsd: install the package virtiofsd.")
    return found


def laid_out(kernel: Kernel, place: Path) -> Path:
    """Put a kernel where virtme-ng finds image and modules of one version; return the image."""
    if kernel.modules is None:
        raise SetupError("virtme-ng finds the modules of a Debian kernel only: choose one by name.")
    modules = f"usr/lib/modules/{kernel.release}"
    unpack = ["unsquashfs", "-quiet", "-no-progress", "-no-xattrs", "-force", "-dest", str(place)]
    host_tools.run([*unpack, str(kernel.modules), modules], "squashfs-tools")
    if not (place / "lib").exists():
        (place / "lib").symlink_to("usr/lib")
    image = place / "boot" / f"vmlinuz-{kernel.release}"
    image.parent.mkdir()
    shutil.copy(kernel.bzimage, image)
    return image


def timed(command: List[str], expected: str, environment: Optional[Dict[str, str]] = None) -> float:
    """Return a command's seconds. Raises SetupError unless it says what is expected."""
    started = time.monotonic()
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    seconds = time.monotonic() - started
    if expected not in done.stdout:
        said = (done.stdout + done.stderr).strip().splitlines()[-3:]
        raise SetupError(f"{' '.join(command)} said {said}, and not {expected!r}.")
    return seconds


def verdict(name: str, kernel: Kernel, cache: Path, results: Path) -> float:
    """Return the seconds of one case by name, from the command to its end."""
    command = [
        sys.executable,
        "-m",
        "harness",
        "run",
        CASE,
        "--loader",
        "libbpf",
        "--target",
        "qemu",
    ]
    command += ["--kernel", name, "--results", str(results)]
    return timed(command, f"1 PASS on {kernel.release}", {"SPINLOCK_CACHE": str(cache)})


def measure(name: str, repeat: int, place: Path) -> Dict[str, List[float]]:
    """Return the seconds of each row, a number per round. Raises SetupError."""
    vng = virtme_ng()
    kernel, machine = kernel_store.fetch(name, print), Machine()
    userland.ensure(print)
    image = laid_out(kernel, place / "root")
    emulated = qemu_guest.accelerator(kernel) == "tcg"
    command = [vng, "--run", str(image), "--cpus", str(machine.cpus)]
    command += ["--memory", f"{machine.memory_mib}M", *(["--disable-kvm"] * emulated)]
    command += ["--exec", "uname -r"]
    command = ["script", "-qec", shlex.join(command), "/dev/null"]  # it wants a terminal
    rows: Dict[str, List[float]] = {"virtme-ng": [], "never seen": [], "restored": []}
    for turn in range(repeat):
        cache = place / f"cache-{turn}"  # shares all but the saved guests
        cache.mkdir()
        for part in SHARED:
            (cache / part).symlink_to(paths.cache(part))
        rows["virtme-ng"].append(timed(command, kernel.release))
        rows["never seen"].append(verdict(name, kernel, cache, place / "results"))
        verdict(name, kernel, cache, place / "results")  # warms the saved guest
        rows["restored"].append(verdict(name, kernel, cache, place / "results"))
        shutil.rmtree(cache)
    return rows


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--kernel", default="6.12")
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as place:
            rows = measure(options.kernel, options.repeat, Path(place))
    except (SetupError, UsageError) as error:
        print(f"first_verdict: {error}", file=sys.stderr)
        return 4
    base = statistics.median(rows["virtme-ng"])
    for name, seconds in rows.items():
        middle, each = statistics.median(seconds), ", ".join(f"{s:.1f}" for s in seconds)
        print(f"{name:<12}{middle:7.1f} s  {middle / base:5.2f} x virtme-ng  ({each})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
