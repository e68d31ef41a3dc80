# SPDX-License-Identifier: GPL-2.0-only
"""The table of handlers: call class -> function."""

from __future__ import annotations

from typing import Any, Callable, Dict, Type, TypeVar

from harness.guest.calls import Call
from harness.guest.state import State

Request = TypeVar("Request", bound=Call[Any])
Value = TypeVar("Value")
Handler = Callable[[State, Request], Value]

HANDLERS: Dict[Type[Call[Any]], Handler[Any, Any]] = {}


def answers(kind: Type[Request]) -> Callable[[Handler[Request, Value]], Handler[Request, Value]]:
    """Register the decorated function as the handler of a call class."""

    def mark(handler: Handler[Request, Value]) -> Handler[Request, Value]:
        assert kind not in HANDLERS, f"two functions answer {kind.name}"
        HANDLERS[kind] = handler
        return handler

    return mark
