# SPDX-License-Identifier: GPL-2.0-only
"""Opening the targets of a run's kernels, none of which is one: once each, and failures cost their own."""

from contextlib import contextmanager

import pytest

from harness.errors import SetupError, UsageError
from harness.machines import choose
from harness.machines.target import Settings
from harness.provision import build, catalogue
from harness.pytest_plugin.targets import Targets

KERNELS = ["5.10", "6.12", "7.3"]


class Session:
    begun = ended = False


class Opened:
    name = "qemu"

    def __init__(self, settings):
        self.kernel, self.cpus, self.closed = settings.kernel, settings.cpus, False

    @contextmanager
    def session(self, warm=False):
        session = Session()
        session.begun = True
        try:
            yield session
        finally:
            session.ended = True

    def close(self):
        self.closed = True


@pytest.fixture
def play(monkeypatch):
    """Return what makes a run's targets: some kernels are not to be had, by these errors."""
    monkeypatch.setattr(build, "clang", lambda: "clang")

    def make(kernels, **errors):
        tried, said = [], []
        errors = {name.replace("_", ".").lstrip("k"): error for name, error in errors.items()}

        def open_target(settings, progress):
            tried.append(settings.kernel)
            if settings.kernel in errors:
                raise errors[settings.kernel]
            return Opened(settings)

        monkeypatch.setattr(choose, "open_target", open_target)
        return Targets(Settings("qemu", None, 2), kernels, said.append), tried, said

    return make


def test_the_first_is_opened_and_the_others_when_asked_for(play):
    targets, tried, _ = play(KERNELS)
    targets.open_first()
    assert tried == ["5.10"]
    targets.open_others().join()
    assert tried == KERNELS
    assert targets.target("7.3") is targets.target("7.3")
    assert tried == KERNELS and targets.target("7.3").cpus == 2


def test_a_kernel_that_is_not_to_be_had_is_said_once_and_costs_its_own_cases(play):
    targets, tried, said = play(KERNELS, k5_10=SetupError("no 5.10"))
    targets.open_first()
    targets.open_others().join()
    assert tried == KERNELS and said == ["kernel 5.10: no 5.10"]
    raised = []
    for _ in range(2):
        with pytest.raises(SetupError) as error:
            targets.target("5.10")
        raised.append(error.value)
    assert raised[0] is raised[1] and tried == KERNELS
    assert targets.target("6.12").kernel == "6.12"


def test_with_one_kernel_its_error_is_the_run_s(play):
    targets, _, said = play(["5.10"], k5_10=SetupError("no 5.10"))
    with pytest.raises(SetupError, match="no 5.10"):
        targets.open_first()
    assert said == []


def test_without_any_kernel_there_is_no_run(play):
    targets, tried, said = play(
        KERNELS[:2], k5_10=SetupError("no 5.10"), k6_12=UsageError("no such version")
    )
    with pytest.raises(SetupError, match="None of the kernels is to be had"):
        targets.open_first()
    assert len(said) == 2 and tried == KERNELS[:2]


def test_a_version_that_does_not_exist_is_the_user_s_mistake_if_it_was_all_he_asked_for(play):
    targets, _, _ = play(["6.12.1"], k6_12_1=UsageError("no such version"))
    with pytest.raises(UsageError, match="no such version"):
        targets.open_first()


def test_a_name_that_is_none_is_said_before_anything_is_fetched(play):
    targets, tried, _ = play(["5.10", "windows"])
    with pytest.raises(catalogue.UnknownKernel):
        targets.open_first()
    assert tried == []


def test_guests_are_one_s_at_a_time_and_none_is_left(play, monkeypatch):
    events = []

    class Observer:
        def __init__(self, opened, scenarios):
            self._opened = opened

        def finish(self):
            events.append(f"finish {self._opened.kernel}")

        def abandon(self):
            events.append(f"abandon {self._opened.kernel}")
            assert not self._opened.closed, "its guest is gone before it was let go of"

    monkeypatch.setattr("harness.pytest_plugin.targets.Observer", Observer)
    targets, _, _ = play(KERNELS)
    with targets:
        first = targets.observer("5.10", ())
        assert targets.observer("5.10", ()) is first and events == []
        targets.observer("6.12", ())
        assert events == ["finish 5.10"] and targets.target("5.10").closed
        with targets.lent("6.12") as start:
            assert events[1:] == ["finish 5.10", "finish 5.10", "finish 6.12"]
            target, session = start("")
            assert session.begun and target.kernel == "6.12"
            other, _ = start("clearcpuid=hypervisor")
            assert other is not target
        assert session.ended
        opened = targets.opened
        for each in opened:
            each.closed = False  # from here on it counts
    assert events[4:] == ["abandon 6.12", "abandon 5.10"]
    assert len(opened) == 3 and all(each.closed for each in opened)


def test_a_guest_is_given_back_when_its_test_fails(play):
    targets, _, _ = play(KERNELS)
    with pytest.raises(ValueError), targets, targets.lent("6.12") as start:
        _, session = start("")
        raise ValueError("the test")
    assert session.ended
