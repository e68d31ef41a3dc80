# SPDX-License-Identifier: GPL-2.0-only
"""One session, which is a process of its own: each line of the host's goes to its handler.

OSError and Refused become answers, anything else is a defect of the harness and is reported as such.
"""

from __future__ import annotations

from typing import Any, BinaryIO, Callable

from harness.guest import calls
from harness.guest.dispatch import HANDLERS
from harness.guest.handlers import (  # noqa: F401  they mark what they answer
    copying,
    kernel,
    maps,
    objects,
    owners,
    programs,
    verdicts,
)
from harness.guest.state import Json, State


class Session:
    """The calls that a host can make."""

    def __init__(self, emit: Callable[[Json], None], source: BinaryIO) -> None:
        self._state = State(emit, source)

    def call(self, line: Json) -> Any:
        """Make one call. Raises KeyError and TypeError for what is none."""
        request = calls.from_json(line)
        return HANDLERS[type(request)](self._state, request)
