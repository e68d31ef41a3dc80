# SPDX-License-Identifier: GPL-2.0-only
"""Waiting is said when it takes more than a moment, and only then."""

import threading

import pytest

from harness import paths, progress

PATIENCE = 20.0


@pytest.fixture
def said(monkeypatch):
    monkeypatch.setattr(progress, "MOMENT", 0.05)
    lines, came = [], threading.Event()

    def say(line):
        lines.append(line)
        came.set()

    with progress.shown_by(say):
        yield lines, came


def test_a_wait_is_said_while_it_lasts(said):
    lines, came = said
    with progress.waiting(lambda: "a friend"):
        assert came.wait(PATIENCE)
    assert lines == ["waiting for a friend"]


def test_what_takes_no_time_or_has_no_words_is_not_said(said):
    lines, came = said
    with progress.waiting(lambda: "a friend"):
        pass
    with progress.waiting(lambda: ""):
        assert not came.wait(0.2)
    assert lines == []


def test_without_a_run_it_is_said_where_commands_say_it(capsys):
    progress.to_stderr("waiting")
    assert capsys.readouterr().err == "spinlock: waiting\n"


@pytest.mark.parametrize("name, words", [("kernels/6.12.lock", "6.12"), ("image/lock", "image")])
def test_a_lock_of_the_cache_is_waited_for_with_what_it_guards(
    said, tmp_path, monkeypatch, name, words
):
    lines, came = said
    monkeypatch.setenv("SPINLOCK_CACHE", str(tmp_path))
    place = paths.cache() / name
    place.parent.mkdir()

    def want():
        with paths.lock(place):
            pass

    waiting = threading.Thread(target=want)
    with paths.lock(place):
        waiting.start()
        assert came.wait(PATIENCE)
    waiting.join()
    (line,) = lines
    assert line.startswith("waiting for ") and f"{words}, which is being made" in line
