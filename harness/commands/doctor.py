# SPDX-License-Identifier: GPL-2.0-only
"""`spinlock doctor`: check this machine for what the harness needs, and say how to install it."""

from __future__ import annotations

import argparse
import os
import shutil
from typing import Any

from rich.console import Console

from harness.commands import OK, SETUP, kernels, output
from harness.errors import SetupError, UsageError
from harness.machines import qemu_guest, target
from harness.machines.native_bcc import NativeBcc
from harness.provision import build, kernel_store, userland


def run(options: argparse.Namespace) -> int:
    """Print one line per requirement: ok or missing, and what to do."""
    console = Console(highlight=False)
    worst = OK

    def line(what: str, state: str, detail: str) -> None:
        style = {"ok": "green", "missing": "red", "note": "yellow"}[state]
        console.print(f"[{style}]{state:<8}[/]{what:<16}{detail}", soft_wrap=True)

    def need(what: str, check: Any) -> None:
        nonlocal worst
        try:
            line(what, "ok", str(check()))
        except (SetupError, UsageError) as error:
            worst = SETUP
            line(what, "missing", str(error))

    need("clang", lambda: build.clang_version(str(build.clang())))
    need("qemu", qemu_guest.version)
    found_image = userland.cached()
    if found_image is None:
        line("image", "note", "not built yet; `make image` or the first run builds it")
    else:
        line("image", "ok", ", ".join(f"{k} {v}" for k, v in found_image.versions.items()))
    found_kernel = kernel_store.cached(target.DEFAULT_KERNEL)
    if found_kernel is None:
        line("kernel", "note", f"{target.DEFAULT_KERNEL} is not fetched yet; the first run does it")
    else:
        line("kernel", "ok", f"{found_kernel.release}, {kernels.headers(found_kernel)}")
        if worst == OK:
            accelerator = qemu_guest.accelerator(found_kernel)
            meaning = (
                "guests run at native speed"
                if accelerator == "kvm"
                else "KVM does not boot this kernel here; emulation works, slower"
            )
            line(
                "accelerator", "ok" if accelerator == "kvm" else "note", f"{accelerator}: {meaning}"
            )
        if found_image is not None:
            inside = NativeBcc(found_image, found_kernel, output.progress).why_inside()
            slow = f"it works in the guest, which is slow, as {inside}"
            line(
                "bcc", "note" if inside else "ok", slow if inside else "it works outside the guest"
            )
    for tool, package in (("mmdebstrap", "mmdebstrap"), ("mksquashfs", "squashfs-tools")):
        if found_image is None or found_kernel is None:
            need(tool, lambda tool=tool, package=package: _tool(tool, package))
    vagrant = shutil.which("vagrant")
    line(
        "vagrant",
        "ok" if vagrant else "note",
        vagrant or "not installed; only `vagrant up` needs it (`make setup-vagrant`)",
    )
    return worst


def _tool(name: str, package: str) -> str:
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if found is None:
        raise SetupError(f"install the package {package}, or run `make setup`.")
    return found
