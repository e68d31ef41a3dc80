# SPDX-License-Identifier: GPL-2.0-only
"""This machine as a target."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Dict, Iterator

from harness.errors import SetupError
from harness.machines.session import Session, piped
from harness.machines.target import Settings
from harness.progress import Progress
from harness.provision import build

Json = Dict[str, Any]


class Local:
    """This machine's running kernel. Used only on request, since it loads experimental BPF here."""

    name = "local"
    kernel = ""

    def __init__(self, settings: Settings, progress: Progress) -> None:
        if os.geteuid() != 0:
            raise SetupError("--target local loads BPF into the running kernel: run it as root.")
        if not Path("/usr/include/bpf/bpf_helpers.h").exists():
            raise SetupError(
                "--target local compiles against libbpf's headers: install libbpf-dev."
            )
        self.cpus = min(settings.cpus, len(os.sched_getaffinity(0)))
        progress("local: loading BPF programs into THIS machine's kernel")

    @contextmanager
    def session(self, warm: bool = False) -> Iterator[Session]:
        """See Target."""
        # Debian's bcc module belongs to the system's Python.
        with piped(["/usr/bin/python3", str(build.agent()), "serve"]) as session:
            yield session

    def describe(self) -> Json:
        """See Target."""
        return {"accelerator": "none"}

    def headers(self) -> Path:
        """See Target."""
        return Path("/usr/include")

    def close(self) -> None:
        """See Target."""
