# SPDX-License-Identifier: GPL-2.0-only
"""The options that pytest and `spinlock run` share, and their meaning."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Callable, List, Optional, Sequence

from harness.judging import lock_path
from harness.machines import target
from harness.provision import build
from harness.provision.catalogue import expand
from harness.scenarios import scenario

# QEMU needs an interrupt controller in the host's kernel for more CPUs.
MOST_CPUS = 255

# The harness's own words take up to a quarter of COMMAND_LINE_SIZE, 2048 bytes on x86.
MOST_APPENDED = 1536


def cpus(text: str) -> int:
    """Parse the number of a guest's CPUs. Raises argparse's error."""
    try:
        count = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of CPUs") from None
    if count < 1:
        raise argparse.ArgumentTypeError(f"{count}: a guest needs at least one CPU")
    if count > MOST_CPUS:
        raise argparse.ArgumentTypeError(f"{count}: a guest has {MOST_CPUS} CPUs at most")
    return count


def append(text: str) -> str:
    """Parse words for the kernel's command line; join them on one line. Raises argparse's error."""
    words = " ".join(text.split())
    if len(words.encode()) > MOST_APPENDED:
        raise argparse.ArgumentTypeError(
            f"{len(words.encode())} bytes: {MOST_APPENDED} at most, as the kernel cuts off the rest"
        )
    if "--" in words.split():
        raise argparse.ArgumentTypeError("what follows -- is for init, which is the harness's own")
    return words


def declare(add: Callable[..., object]) -> None:
    """Declare the shared options by `add`: argparse's add_argument, or pytest's addoption."""
    add(
        "--target",
        choices=target.NAMES,
        help="where the kernel runs; default: a running `vagrant up` machine of this checkout, else qemu",
    )
    add(
        "--kernel",
        action="append",
        metavar="KERNEL",
        help="kernel by name (`spinlock kernels list`), a bzImage or a build tree, or all; repeatable"
        f" (default: {target.DEFAULT_KERNEL}, or what a Vagrant machine runs)",
    )
    add(
        "--loader",
        choices=(*scenario.LOADERS, "all"),
        help="load through bcc, libbpf or both; default: bcc, and libbpf where bcc cannot express the case",
    )
    add("--cpus", type=cpus, default=4, help="virtual CPUs (default: %(default)s)")
    add(
        "--programs",
        type=Path,
        default=build.PROGRAMS,
        metavar="DIR",
        help="take the scenarios from another directory of *.bpf.c files (spinlock.h is found anyway)",
    )
    add(
        "--append",
        type=append,
        default="",
        help="append to the guest kernel's command line",
    )
    add(
        "--lock-path",
        choices=(*lock_path.PATHS, "all"),
        help="how contending CPUs take the lock: as guests do, as bare metal does, or both; default:"
        " test-and-set, and the contests that matter most queued as well",
    )
    add(
        "--jit",
        choices=("on", "off"),
        default="on",
        help="off: programs are interpreted (net.core.bpf_jit_enable=0), where the kernel allows it",
    )
    add(
        "--results",
        metavar="DIR",
        help="where results go (default: results/<time>, linked as results/latest)",
    )
    add(
        "--resume",
        action="store_true",
        help="go on with an interrupted run: that of --results, else results/latest; give the same"
        " options again. What has a result keeps it, but an ERROR runs again",
    )
    add(
        "--shard",
        metavar="I/N",
        help="only the I-th of N parts, whole files, for N machines with the same options",
    )


def loaders(option: Optional[str], able: Sequence[str]) -> List[str]:
    """Return the loaders to run a case through, given --loader and those that can express it."""
    if option is None:
        return ["bcc" if "bcc" in able else able[0]]
    if option == "all":
        return [loader for loader in scenario.LOADERS if loader in able]
    return [option] if option in able else []


def lock_paths(option: Optional[str], both: bool) -> List[str]:
    """Return the paths that a test is run for, given --lock-path; "": that of any guest.

    `both` says that without the option it is run for both.
    """
    if option == lock_path.QUEUED:
        return [lock_path.QUEUED]
    if option == "all" or (option is None and both):
        return ["", lock_path.QUEUED]
    return [""]


def kernels(option: Optional[Sequence[str]]) -> List[Optional[str]]:
    """Return the kernels to run on, given --kernel; None: the default, or the running one."""
    named: List[Optional[str]] = [*expand(option or ())]
    return named or [None]
