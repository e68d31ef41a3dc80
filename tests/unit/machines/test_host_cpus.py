# SPDX-License-Identifier: GPL-2.0-only
"""Runs that share the machine's CPUs, and those that must have them alone."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from harness import progress
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


LOCKS = """\
1: FLOCK  ADVISORY  READ 711 fe:00:42 0 EOF
2: FLOCK  ADVISORY  WRITE 712 fe:00:43 0 EOF
3: POSIX  ADVISORY  WRITE 713 fe:00:42 0 EOF
4: FLOCK  ADVISORY  READ 714 fe:00:42 0 EOF
4: -> FLOCK  ADVISORY  WRITE 715 fe:00:42 0 EOF
"""


def test_who_holds_a_lock_is_told_from_who_waits_for_it():
    assert host_cpus.holders(LOCKS, os.makedev(0xFE, 0), 42) == [711, 714]


HOLD = """
import sys
from harness import progress
from harness.machines import host_cpus
with host_cpus.alone():
    print("in", flush=True)
    sys.stdin.read()
"""


def test_another_run_that_has_them_is_named_but_none_of_its_own_workers(monkeypatch):
    monkeypatch.setattr(progress, "MOMENT", 0.05)
    said, came = [], threading.Event()

    def say(line):
        said.append(line)
        came.set()

    # A worker of this run would be this process's child or sibling: the shell stands between.
    command = ["sh", "-c", '"$0" -c "$1"; :', sys.executable, HOLD]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "in\n"
        with progress.shown_by(say):
            waits = Entering(host_cpus.together)
            assert came.wait(20)
            other.stdin.close()
            assert waits.inside.wait(20)
            waits.leave()
    assert len(said) == 1 and said[0].startswith("waiting for another run on this machine, process")

    said.clear()
    came.clear()
    with progress.shown_by(say):
        own, waits = Entering(host_cpus.alone), None
        assert own.inside.wait(20)
        waits = Entering(host_cpus.together)
        assert not came.wait(0.5)
        own.leave()
        assert waits.inside.wait(20)
        waits.leave()
    assert said == []
