# SPDX-License-Identifier: GPL-2.0-only
"""Runs that share the machine's CPUs, and those that must have them alone."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from harness.machines import host_cpus

ROOT = Path(__file__).parents[3]
PATIENCE = 0.3  # for what must not happen


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("SPINLOCK_CACHE", str(tmp_path))


class Entering:
    """A thread that is let in sooner or later, and stays until it is told to go."""

    def __init__(self, how):
        self._how, self.inside, self._go = how, threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._stay)
        self._thread.start()

    def _stay(self):
        with self._how():
            self.inside.set()
            self._go.wait()

    def leave(self):
        self._go.set()
        self._thread.join()


def test_many_are_together():
    with host_cpus.together(), host_cpus.together():
        third = Entering(host_cpus.together)
        assert third.inside.wait(10)
        third.leave()


def test_who_is_alone_waits_for_all_and_nobody_overtakes():
    first = Entering(host_cpus.together)
    assert first.inside.wait(10)
    alone = Entering(host_cpus.alone)
    assert not alone.inside.wait(PATIENCE)
    late = Entering(host_cpus.together)
    assert not late.inside.wait(PATIENCE)
    first.leave()
    assert alone.inside.wait(10)
    assert not late.inside.wait(PATIENCE)
    alone.leave()
    assert late.inside.wait(10)
    late.leave()


def test_who_was_killed_is_not_waited_for():
    script = (
        "from harness.machines.host_cpus import alone\n"
        "with alone(): print('in', flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout.readline() == "in\n"
        other.kill()
    with host_cpus.alone():
        pass
