# SPDX-License-Identifier: GPL-2.0-only
"""The lock at hooks besides those of test_serialization.py: cgroups, tracing, LSM, tcx.

Each hook runs the locked counter of bpf_progs/driven/counter_hooks.bpf.c on every CPU at once, and then
its unlocked twin in the same way.
"""

from functools import partial

import pytest

from harness.guest import calls
from harness.judging.serialization import LOCKED, judge
from harness.running import contended, experiment

RULE = "Locked updates of all CPUs are serialized"


@pytest.mark.contends
@pytest.mark.parametrize("hook", contended.OTHER_HOOKS)
def test_serialization(guest, hook):
    guest.needs_two_cpus("one CPU never meets another")
    contest = contended.OTHER_HOOKS[hook]
    if contest.needs:
        guest.needs(contest.needs.name, contest.needs.since, *contest.needs.options)
    plan = contest.plan(guest.cpus)
    programs = [*plan.programs(), "lock_word_of_hooks"]
    guest.load(contest.file, programs, locks_since=contest.locks_since)
    [(plan, twins)] = experiment.proofs_for(guest.lock_path, plan, contest.twins)

    def run(way):
        done = experiment.run(guest, plan, way)
        word = guest.call(calls.TestRun("lock_word_of_hooks"))["retval"]
        guest.check(word == 0, f"the lock word is zero after the run, {way}", word)
        return done

    real = run(LOCKED)
    broken = [experiment.run_twin(real, partial(run, way)) for way in twins]
    real = experiment.run_as_often(real, broken, partial(run, LOCKED))
    numbers = {"locked": real.measurements(), "twins": [twin.measurements() for twin in broken]}
    guest.conclude(judge(real, broken), **numbers)
