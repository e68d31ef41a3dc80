# SPDX-License-Identifier: GPL-2.0-only
"""A target takes sessions: one process of the agent on a real kernel, asked call by call.

A session that is lost says why (`loss.GuestLost`), and the next one works.
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
    """What takes sessions."""

    name: str
    cpus: int
    kernel: str  # as the user named it; "" for a machine that runs what it runs

    def session(self, warm: bool = False) -> ContextManager["Session"]:
        """Return a context manager that gives a session.

        `warm` prefers a guest that was used before, where a fresh one would be slower.
        """

    def describe(self) -> Json:
        """Return what results say about the target: accelerator, versions, digests, the command.

        All but the command is known, and decides what is tested, before anything is booted.
        """

    def headers(self) -> Path:
        """Return the directory of uapi and libbpf headers to compile against."""

    def close(self) -> None:
        """Let go of everything that was started."""


@dataclass(frozen=True)
class Settings:
    """What the user chose."""

    target: Optional[str]  # one of NAMES; None: a running Vagrant machine, else qemu
    kernel: Optional[str] = None  # None: DEFAULT_KERNEL, or what a running machine has
    cpus: int = 4
    memory_mib: int = 1024
    append: str = ""
    also: str = ""  # words for the kernel's command line that a test wants, beside the user's
