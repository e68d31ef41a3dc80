# SPDX-License-Identifier: GPL-2.0-only
"""Concurrent updates under the lock: none is lost, at every hook.

Each driver runs a locked counter of bpf_progs/driven/counter.bpf.c on every CPU at once, and then its
broken twins in the same way. contended_counter.h has the operation and its broken versions.
"""

import pytest

from harness.judging.serialization import UNLOCKED, judge
from harness.judging.verdict import Kind, Verdict
from harness.running import contended, experiment

RULE = "Locked updates of all CPUs are serialized"

ANOMALIES = ("lost updates", "duplicate ticket")  # of a counter without a lock
MOST_RUNS = 5


def conclude(guest, contest):
    """Run a contest with the correct lock and with each broken twin, and judge."""
    guest.needs_two_cpus("one CPU never meets another")
    plan = contest.plan(guest.cpus)
    guest.load(contest.file, plan.programs())
    verdict, numbers = experiment.prove(guest, plan, contest.twins, guest.lock_path)
    guest.conclude(verdict, **numbers)


@pytest.mark.contends(both=("test_run",))
@pytest.mark.parametrize("driver", contended.DRIVERS)
def test_serialization(guest, driver):
    conclude(guest, contended.DRIVERS[driver])


@pytest.mark.contends(both=True)
def test_serialization_of_all_hooks(guest):
    """XDP, tc, cgroups, test runs and user space share one lock at the same time."""
    conclude(guest, contended.ALL_HOOKS)


@pytest.mark.contends(both=True)
def test_independent_locks(guest):
    """The locks of many elements are independent."""
    conclude(guest, contended.INDEPENDENT)


@pytest.mark.contends
def test_serialization_has_power(guest):
    """The judge fails an unlocked counter that is presented as the real program."""
    guest.needs_two_cpus("one CPU never meets another")
    contest = contended.DRIVERS["test_run"]
    plan = contest.plan(guest.cpus)
    guest.load(contest.file, plan.programs())
    # Only the first operations are recorded. On a busy host few of those overlap, so that two equal
    # tickets may all be among the others: then the unlocked counter runs again.
    missing = set(ANOMALIES)
    for _ in range(MOST_RUNS):
        broken = experiment.run(guest, plan, UNLOCKED)
        verdict = judge(broken, [broken])
        guest.check(verdict.kind is Kind.FAIL, "an unlocked counter is a FAIL", verdict)
        missing -= {name for name in ANOMALIES if name in verdict.reason}
        if not missing:
            break
    if missing:
        reason = f"{MOST_RUNS} runs without a lock showed no {' and no '.join(sorted(missing))}"
        guest.conclude(Verdict(Kind.INCONCLUSIVE, reason))
