# SPDX-License-Identifier: GPL-2.0-only
"""Runs the machine's tools on files of kernels and images. Errors name the package of a missing tool."""

from __future__ import annotations

import os
import subprocess

from harness.errors import SetupError


class ToolFailed(SetupError):
    """A tool exists but failed on its input."""


def run(command: list[str], package: str, data: bytes | None = None) -> bytes:
    """Run a tool on `data` and return its output.

    Raises SetupError if the tool is missing, ToolFailed if it fails.
    """
    done = _ran(command, package, data)
    if done.returncode != 0:
        last = (done.stderr.decode(errors="replace").strip().splitlines() or ["no message"])[-1]
        if "No space left on device" in last:
            raise SetupError("The disk is full: free some space or set SPINLOCK_CACHE.")
        raise ToolFailed(f"{command[0]} failed: {last}.")
    return done.stdout


def complaints(command: list[str], package: str) -> list[str]:
    """Return the lines that a tool wrote to its standard error. Raises SetupError without the tool."""
    return _ran(command, package, None).stderr.decode(errors="replace").splitlines()


def _ran(
    command: list[str], package: str, data: bytes | None
) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin"}
    try:
        return subprocess.run(
            command, input=data or b"", capture_output=True, check=False, env=environment
        )
    except (FileNotFoundError, PermissionError) as error:  # the latter for an unreadable PATH
        raise SetupError(f"{command[0]} is missing: install {package}.") from error
