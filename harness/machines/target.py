# SPDX-License-Identifier: GPL-2.0-only
"""The interface of a target, which opens sessions on a real kernel.

A lost session raises `loss.GuestLost` with the reason. The next session works again.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ContextManager, Dict, Optional, Protocol

from harness.machines.session import Session
from harness.provision import catalogue

Json = Dict[str, Any]

NAMES = ("qemu", "vagrant", "local")
DEFAULT_KERNEL = catalogue.DEFAULT


class Target(Protocol):
    """A kernel under test that opens sessions."""

    name: str
    cpus: int
    kernel: str  # as the user named it; "" for a target with one fixed kernel

    def session(self, warm: bool = False) -> ContextManager["Session"]:
        """Return a context manager that opens a session.

        `warm` prefers a guest that was used before, if a fresh one would be slower.
        """

    def describe(self) -> Json:
        """Return the facts about the target that results store.

        These are accelerator, versions, digests and the QEMU command. All but the command are known
        before the first boot.
        """

    def headers(self) -> Path:
        """Return the directory of uapi and libbpf headers to compile against."""

    def close(self) -> None:
        """End everything that the target has started."""


@dataclass(frozen=True)
class Settings:
    """The user's choice of target, kernel and machine."""

    target: Optional[str]  # one of NAMES; None: a running Vagrant machine, else qemu
    kernel: Optional[str] = None  # None: DEFAULT_KERNEL, or the kernel of a running machine
    cpus: int = 4
    memory_mib: int = 1024
    append: str = ""
    jit: bool = True  # False: programs are interpreted
    bcc: bool = False  # it will be asked for: what it needs is made while the guest boots
    also: str = ""  # a test's words for the kernel's command line, in addition to the user's
