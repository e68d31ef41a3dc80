# SPDX-License-Identifier: GPL-2.0-only
"""What the commands that measure share: targets one after the other, and words while they run."""

import argparse
from types import SimpleNamespace

import pytest

from harness.commands import measuring
from harness.machines import choose
from harness.provision.catalogue import UnknownKernel


@pytest.fixture
def opened(monkeypatch):
    """Return the settings and the ends of targets, none of which is one."""
    events = []

    class Opened:
        def __init__(self, settings, progress):
            self._words = f"{settings.kernel} {settings.cpus}"
            events.append(f"open {self._words}")

        def close(self):
            events.append(f"close {self._words}")

    monkeypatch.setattr(choose, "open_target", Opened)
    return events


def options(*words):
    parser = argparse.ArgumentParser()
    measuring.declare(parser, "4")
    return parser.parse_args(words)


def test_one_target_is_open_at_a_time(opened):
    for _ in measuring.targets(options("--kernel", "5.10", "--kernel", "6.12"), [1, 4]):
        pass
    names = ["5.10 1", "5.10 4", "6.12 1", "6.12 4"]
    assert opened == [f"{event} {name}" for name in names for event in ("open", "close")]


def test_mistakes_are_said_before_anything_is_opened(opened):
    with pytest.raises(UnknownKernel):
        list(measuring.targets(options("--kernel", "5.10", "--kernel", "windows"), [4]))
    with pytest.raises(SystemExit) as stopped:
        list(measuring.targets(options("--cpus", "4", "--cpus", "0"), [4, 0]))
    assert stopped.value.code == 2
    assert opened == []


def test_how_far_it_is_is_told_now_and_then(monkeypatch, capsys):
    now = iter([0.0, 10.0, 61.0, 70.0, 90.0])
    monkeypatch.setattr(measuring, "time", SimpleNamespace(monotonic=lambda: next(now)))
    tell = measuring.Ticker("6.12, libbpf", 4)
    for word in ("locked", "unlocked", "locked"):
        tell(word)
    tell.end()
    assert capsys.readouterr().err.splitlines() == [
        "spinlock: 6.12, libbpf: 2 of 4 runs, 61 s to go: unlocked",
        "spinlock: 6.12, libbpf: 3 runs in 90 s",
    ]
