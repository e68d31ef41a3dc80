# SPDX-License-Identifier: GPL-2.0-only
"""One session: decode each line from the host and run its handler. A session is one process.

__main__ turns OSError and Refused into answers, and reports any other exception as a defect.
"""

from __future__ import annotations

from typing import Any, BinaryIO, Callable

from harness.guest import calls
from harness.guest.dispatch import HANDLERS
from harness.guest.handlers import (  # noqa: F401  importing them registers the handlers
    kernel,
    verdicts,
)
from harness.guest.state import Json, State


class Session:
    """The state of one session, and its calls."""

    def __init__(self, emit: Callable[[Json], None], source: BinaryIO) -> None:
        self._state = State(emit, source)

    def call(self, line: Json) -> Any:
        """Make one call. Raises KeyError or TypeError for a malformed line."""
        request = calls.from_json(line)
        if type(request) not in HANDLERS:
            import_all_handlers()
        return HANDLERS[type(request)](self._state, request)


def import_all_handlers() -> None:
    """Register the handlers of all calls.

    A kernel that was never seen answers its first case without them: an emulated guest takes a second
    to import them.
    """
    from harness.guest.handlers import (  # noqa: F401
        actors,
        copying,
        fuzzing,
        maps,
        objects,
        owners,
        programs,
    )
