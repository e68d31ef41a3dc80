# SPDX-License-Identifier: GPL-2.0-only
"""`spinlock image`: build, show or remove the guest's userland and the default kernel."""

from __future__ import annotations

import argparse
import shutil
import sys

from harness import paths
from harness.commands import OK, SETUP, output
from harness.machines import target
from harness.provision import kernel_store, parts, userland


def declare(sub: argparse.ArgumentParser) -> None:
    """Add the options of `spinlock image`."""
    sub.add_argument(
        "what",
        choices=("build", "remove", "show"),
        nargs="?",
        default="show",
        help="show: print paths and sizes (default); build: build or fetch missing parts; remove:"
        " empty the cache, fetched kernels included",
    )


def run(options: argparse.Namespace) -> int:
    """Build, remove or show the guest's userland and the default kernel."""
    if options.what == "remove":
        return _remove()
    if options.what == "build":
        parts.ensure(target.DEFAULT_KERNEL, output.progress)
    found, booted = userland.cached(), kernel_store.cached(target.DEFAULT_KERNEL)
    if found is None or booted is None:
        print("spinlock: not built; `spinlock image build` builds it", file=sys.stderr)
        return SETUP
    for name, path in (
        ("userland", found.root),
        ("kernel", booted.vmlinux),
        ("modules", booted.modules or booted.initrd),
    ):
        print(f"{name:<10}{path}  {path.stat().st_blocks * 512 >> 20} MiB")
    return OK


def _remove() -> int:
    for name in ("image", "native", "box", "kernels", "guests", "apt", "build", "agent", "probe"):
        shutil.rmtree(paths.cache(name), ignore_errors=True)
    return OK
