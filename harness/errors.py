# SPDX-License-Identifier: GPL-2.0-only
"""What can go wrong outside the kernel under test."""

from __future__ import annotations


class SetupError(Exception):
    """The harness or the machine is not set up; the message is one sentence that says what to do.

    `console` holds the end of a guest's console when a guest is what failed, else "".
    """

    def __init__(self, message: str, console: str = "") -> None:
        super().__init__(message)
        self.console = console


class UsageError(Exception):
    """The user asked for something that does not exist or does not make sense."""
