# SPDX-License-Identifier: GPL-2.0-only
"""Errors that do not come from the kernel under test."""

from __future__ import annotations


class SetupError(Exception):
    """The harness or the machine is not set up. The message is one sentence with the remedy.

    `console` holds the end of the console of a guest that failed, else "".
    """

    def __init__(self, message: str, console: str = "") -> None:
        super().__init__(message)
        self.console = console


class UsageError(Exception):
    """The user asked for something that does not exist or makes no sense."""
