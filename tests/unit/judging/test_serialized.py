# SPDX-License-Identifier: GPL-2.0-only
"""Judging what a locked counter and its broken twins left behind."""

import dataclasses

import pytest

from harness.judging.history import Kind as Did, Operation
from harness.judging.serialization import (
    LOCKED,
    SKIPS_64,
    UNLOCKED,
    Part,
    Run,
    Shared,
    Visits,
    judge,
)
from harness.judging.verdict import Kind
from harness.running.experiment import run_as_often, run_twin

MASK = (1 << 64) - 1


def shared(count, **changes):
    """Return what the lock protects, after so many updates."""
    value = Shared(
        lock=0, last_cpu=1, count=count, inverse=~count & MASK, handovers=40, doubled=2 * count
    )
    return dataclasses.replace(value, **changes)


def visits(cpu, runs):
    return Visits(cpu, runs, busy=runs // 10, torn=0, bare=0, first_ns=1000, last_ns=9000)


def operations(runs):
    """Return a history in which CPUs take turns, each arriving while another is inside."""
    return tuple(
        Operation(n, 100_000 * n, 100_000 * n + 150_000, f"CPU {n % runs}") for n in range(200)
    )


def part(driver="test_run", runs=(100, 100)):
    return Part(
        driver=driver,
        operations=100,
        cpus=tuple(range(len(runs))),
        sent={cpu: 100 for cpu in range(len(runs))},
        visits=tuple(visits(cpu, n) for cpu, n in enumerate(runs) if n),
    )


def run(counted=200, runs=(100, 100), way=LOCKED, **changes):
    """Return a run on some CPUs at the same time, one in ten arrivals finding the lock held."""
    value = Run(
        way=way,
        turns=200,
        parts=(part(runs=runs),),
        shared=(shared(counted),),
        histories=(operations(len(runs)),),
        seconds=0.1,
    )
    return dataclasses.replace(value, **changes)


def twin(way=UNLOCKED, **changes):
    """Return a twin's run, which lost half of its updates."""
    return run(counted=100, way=way, **changes)


def with_visits(value, **changes):
    (only,) = value.parts
    changed = tuple(dataclasses.replace(v, **changes) for v in only.visits)
    return dataclasses.replace(value, parts=(dataclasses.replace(only, visits=changed),))


def test_pass_says_all_the_evidence():
    verdict = judge(run(), [twin()])
    assert verdict.kind is Kind.PASS
    assert verdict.reason == (
        "200 sent = run = counted on 2 CPUs; 10 % of arrivals found the lock held;"
        " caught: no lock (lost 50 %)"
    )
    assert len(verdict.evidence) == 2


@pytest.mark.parametrize(
    "broken, words",
    [
        (run(counted=199), "lost updates: 200 ran, but 199 were counted"),
        (run(counted=201), "extra updates: 200 ran, but 201 were counted"),
        (with_visits(run(), torn=1), "torn value: 2 of 200 saw fields that disagree"),
        (run(torn_copies=1), "torn value: 1 of 200"),
        (run(shared=(shared(200, doubled=0),)), "torn value: the fields disagree at the end"),
        (run(shared=(shared(200, lock=1),)), "lock shown"),
        (run(parts=(part(runs=(100, 90)),)), "unrun: 200 sent, 0 dropped"),
        (run(parts=(part(runs=(100, 110)),)), "leaked runs: 200 sent"),
    ],
)
def test_a_broken_run_is_a_fail_whatever_the_twins_did(broken, words):
    verdict = judge(broken, [twin()])
    assert verdict.kind is Kind.FAIL
    assert words in verdict.reason


def unseen_twin(handovers):
    return run(way=SKIPS_64, shared=(shared(200, handovers=handovers),))


@pytest.mark.parametrize(
    "done, before, in_vain",
    [
        ([twin()], 0, 0),
        ([unseen_twin(3), twin()], 1, 0),  # 3 of 40: the host was at something else
        ([unseen_twin(4), twin()], 0, 1),  # its CPUs met: it is seen rarely
        ([unseen_twin(3), unseen_twin(4), twin()], 1, 1),
        ([unseen_twin(4)] * 4, 0, 3),  # it does not go on for ever
    ],
)
def test_a_twin_without_damage_is_run_again(done, before, in_vain):
    rest = iter(done)
    last = run_twin(run(), lambda: next(rest))
    assert last == dataclasses.replace(done[-1], before=before, in_vain=in_vain)
    assert not list(rest)
    evidence = judge(run(), [last]).evidence[1]
    assert ("on CPUs that hardly met" in evidence) == (before > 0)
    assert ("ran as often" in evidence) == (in_vain > 0)


def test_a_twin_that_is_never_seen_says_how_often_it_was_tried():
    verdict = judge(run(), [run_twin(run(), lambda: unseen_twin(40))])
    assert verdict.kind is Kind.INCONCLUSIVE and "4 times over" in verdict.reason


@pytest.mark.parametrize("broken_at, runs", [(None, 2), (1, 1), (2, 2)])
def test_the_locked_program_runs_as_often_as_its_rarest_twin(broken_at, runs):
    """And one bad run of them is a FAIL."""
    twins = [twin(), dataclasses.replace(twin(), in_vain=2)]
    made = []

    def once():
        made.append(run(shared=(shared(199),)) if len(made) + 1 == broken_at else run())
        return made[-1]

    real = run_as_often(run(), twins, once)
    assert len(made) == runs
    assert (judge(real, twins).kind is Kind.FAIL) == (broken_at is not None)


def test_a_history_convicts_where_the_sums_agree():
    history = list(operations(2))
    history[7] = history[7]._replace(value=8)
    verdict = judge(run(histories=(tuple(history),)), [twin()])
    assert verdict.kind is Kind.FAIL
    assert "duplicate ticket: ticket 8" in verdict.reason
    assert any("took ticket 8" in line and "|--" in line for line in verdict.evidence)


def test_dropped_packets_explain_what_did_not_run():
    short = with_visits(run(counted=190, runs=(95, 95)), busy=9)
    short = dataclasses.replace(
        short, dropped={"backlog": 10, "far receive": 10}, histories=(operations(2)[:190],)
    )
    verdict = judge(short, [twin()])
    assert verdict.kind is Kind.PASS
    assert "200 sent, 10 dropped, 190 run = counted" in verdict.reason


@pytest.mark.parametrize(
    "weak, words",
    [
        (run(runs=(200,), parts=(part(runs=(100,)),), counted=100), "1 CPU"),
        (with_visits(run(), busy=0), "no arrival found the lock held"),
        (run(shared=(shared(200, handovers=0),)), "no CPU ever took over"),
        (run(histories=((),)), "no history was recorded"),
        (
            run(histories=(tuple(o._replace(leave=o.arrive + 10) for o in operations(2)),)),
            "one after the other",
        ),
    ],
)
def test_a_run_that_could_show_nothing_is_inconclusive(weak, words):
    weak = dataclasses.replace(weak)
    if weak.cpus == 1:
        weak = dataclasses.replace(weak, histories=(operations(1)[:100],))
    verdict = judge(weak, [twin()])
    assert verdict.kind is Kind.INCONCLUSIVE
    assert words in verdict.reason


def test_a_twin_that_did_no_damage_makes_it_inconclusive():
    verdict = judge(run(), [twin(), run(way=SKIPS_64)])
    assert verdict.kind is Kind.INCONCLUSIVE
    assert "its twin with 1 in 64 without the lock did no damage" in verdict.reason


def test_a_twin_run_otherwise_shows_nothing():
    verdict = judge(run(), [twin(turns=100)])
    assert verdict.kind is Kind.INCONCLUSIVE
    assert "was run otherwise" in verdict.reason


def test_no_twin_no_pass():
    assert judge(run(), []).kind is Kind.INCONCLUSIVE


def test_where_user_space_sets_the_count_the_history_tells():
    epoch = 1 << 32
    history = (
        Operation(0, 0, 10, "CPU 0"),
        Operation(epoch, 5, 20, "user", Did.SET),
        Operation(epoch, 15, 30, "CPU 1"),
        Operation(epoch + 1, 25, 40, "user", Did.READ),
        Operation(epoch + 1, 35, 50, "CPU 0"),
    )
    value = run(
        parts=(dataclasses.replace(part(runs=(2, 1)), sent={0: 2, 1: 1}),),
        shared=(shared(epoch + 2),),
        histories=(history,),
    )
    value = with_visits(value, busy=1)
    verdict = judge(value, [dataclasses.replace(value, way=UNLOCKED, torn_copies=1)])
    assert verdict.kind is Kind.PASS
    assert verdict.reason.startswith("3 sent = run = in one order, 2 copies by user space")

    partly = dataclasses.replace(value, histories=(history[:-1],))
    verdict = judge(partly, [dataclasses.replace(partly, way=UNLOCKED, torn_copies=1)])
    assert verdict.kind is Kind.INCONCLUSIVE
    assert "only 2 of 3 operations were recorded" in verdict.reason
