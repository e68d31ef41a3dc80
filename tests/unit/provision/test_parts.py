# SPDX-License-Identifier: GPL-2.0-only
"""parts.py: image and kernel are made at the same time, and a wrong kernel is said before that."""

import threading

import pytest

from harness.errors import UsageError
from harness.provision import kernel_store, parts, userland


def silent(message: str) -> None:
    """Show nothing."""


def test_image_and_kernel_are_made_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    both = threading.Barrier(2, timeout=10)  # broken, an error, if one is made after the other

    def made(what: str) -> str:
        both.wait()
        return what

    monkeypatch.setattr(userland, "cached", lambda: None)
    monkeypatch.setattr(userland, "ensure", lambda progress: made("image"))
    monkeypatch.setattr(kernel_store, "fetch", lambda name, progress: made(name))
    assert parts.ensure("6.12", silent) == ("image", "6.12")


def test_a_wrong_kernel_is_said_before_an_image_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(userland, "ensure", lambda progress: pytest.fail("an image was built"))
    monkeypatch.setattr(userland, "cached", lambda: None)
    with pytest.raises(UsageError, match="6.99"):
        parts.ensure("6.99", silent)
