"""Judging what a locked counter and its twin added up to."""

import dataclasses
import struct

import pytest

from harness.judge import Kind
from harness.serialization import Run, Shared, Visits, judge

MASK = (1 << 64) - 1


def shared(count, **changes):
    """Return what the lock protects, after so many updates."""
    value = Shared(
        lock=0, last_cpu=1, count=count, inverse=~count & MASK, handovers=40, doubled=2 * count
    )
    return dataclasses.replace(value, **changes)


def run(counted=200, runs=(100, 100), **changes):
    """Return a run on some CPUs at the same time, one in ten arrivals finding the lock held."""
    value = Run(
        driver="test_run",
        program="locked_tc",
        operations=100,
        turns=200,
        cpus=tuple(range(len(runs))),
        sent={cpu: 100 for cpu in range(len(runs))},
        dropped={},
        seconds=0.1,
        shared=shared(counted),
        visits=tuple(Visits(cpu, n, n // 10, 0, 1000, 9000) for cpu, n in enumerate(runs)),
    )
    return dataclasses.replace(value, **changes)


def twin(**changes):
    """Return the twin's run, which lost half of its updates."""
    return run(counted=100, program="unlocked_tc", **changes)


def with_visits(value, **changes):
    return dataclasses.replace(
        value, visits=tuple(dataclasses.replace(v, **changes) for v in value.visits)
    )


def test_pass_says_all_the_evidence():
    verdict = judge(run(), twin())
    assert verdict.kind is Kind.PASS
    assert verdict.reason == (
        "200 sent = run = counted on 2 CPUs; 10 % of arrivals found the lock held;"
        " the unlocked twin lost 50 %"
    )
    assert len(verdict.evidence) == 2


@pytest.mark.parametrize(
    "real, anomaly",
    [
        (run(counted=199), "lost updates: 200 ran, but 199 were counted"),
        (run(counted=201), "extra updates: 200 ran, but 201 were counted"),
        (run(counted=190, runs=(100, 90)), "unrun: 200 sent, 0 dropped on the way, but 190 ran"),
        (run(counted=201, runs=(100, 101)), "leaked runs: 200 sent, but 201 ran"),
        (run(shared=shared(200, doubled=398)), "torn state: the fields disagree at the end"),
        (run(shared=shared(200, inverse=0)), "torn state: the fields disagree at the end"),
        (with_visits(run(), torn=3), "torn state: 6 of 200 runs found fields that disagree"),
    ],
)
def test_every_anomaly_has_its_name(real, anomaly):
    verdict = judge(real, twin())
    assert verdict.kind is Kind.FAIL
    assert anomaly in verdict.reason


def test_anomalies_are_named_together():
    verdict = judge(run(counted=150, runs=(100, 90)), twin())
    assert "unrun" in verdict.reason and "lost updates" in verdict.reason


def test_an_anomaly_convicts_even_if_the_twin_saw_nothing():
    assert judge(run(counted=199), run()).kind is Kind.FAIL


def test_drops_on_the_way_are_no_loss():
    real = run(counted=190, runs=(100, 90), dropped={"backlog": 10, "far transmit": 10})
    verdict = judge(real, twin())
    assert verdict.kind is Kind.PASS
    assert verdict.reason.startswith("200 sent, 10 dropped, 190 run = counted")


def test_a_drop_counted_twice_explains_one_packet():
    real = run(counted=180, runs=(100, 80), dropped={"backlog": 10, "far transmit": 10})
    assert judge(real, twin()).kind is Kind.FAIL


@pytest.mark.parametrize(
    "real, other, why",
    [
        (run(), run(program="unlocked_tc"), "the unlocked twin lost nothing either in 200 runs"),
        (run(counted=100, runs=(100,)), twin(), "it ran on 1 CPU"),
        (run(counted=0, runs=(), shared=Shared(0, 0, 0, 0, 0, 0)), twin(), "it ran on 0 CPU"),
        (with_visits(run(), busy=0), twin(), "no arrival found the lock held"),
        (run(shared=shared(200, handovers=0)), twin(), "no CPU ever took over from another"),
        (run(), twin(operations=50), "was run otherwise: operations 50 instead of 100"),
        (
            run(),
            twin(driver="tc_egress"),
            "was run otherwise: driver tc_egress instead of test_run",
        ),
        (run(), twin(turns=1), "was run otherwise: turns 1 instead of 200"),
        (run(), twin(cpus=(0,)), "was run otherwise: cpus (0,) instead of (0, 1)"),
    ],
)
def test_without_power_there_is_no_pass(real, other, why):
    verdict = judge(real, other)
    assert verdict.kind is Kind.INCONCLUSIVE
    assert why in verdict.reason


def test_one_after_the_other_is_no_overlap():
    visits = (Visits(0, 100, 10, 0, 1000, 2000), Visits(1, 100, 10, 0, 2001, 3000))
    verdict = judge(run(visits=visits), twin())
    assert verdict.kind is Kind.INCONCLUSIVE
    assert "its 2 CPUs ran it one after the other" in verdict.reason


def test_overlap_is_the_time_two_cpus_share():
    visits = (
        Visits(0, 1, 0, 0, 0, 100),
        Visits(1, 1, 0, 0, 50, 150),
        Visits(2, 1, 0, 0, 190, 200),
    )
    assert run(visits=visits).overlap_share == 0.25


def test_the_bytes_of_the_maps():
    state = struct.pack("<IIQQQQ", 0, 3, 200, ~200 & MASK, 40, 400)
    cpus = [(100, 10, 0, 5, 9), (0, 0, 0, 0, 0), (100, 10, 1, 6, 8), (0, 0, 0, 0, 0)]
    runs = b"".join(struct.pack("<QQQQQ", *cpu) for cpu in cpus)
    facts = {"sent": {"0": 100, "2": 100}, "dropped": {}, "seconds": 0.1}
    seen = Run.from_guest("xdp", "locked_xdp", 100, 5, (0, 2), facts, state.hex(), runs.hex())
    assert seen.shared == shared(200, last_cpu=3)
    assert seen.visits == (Visits(0, 100, 10, 0, 5, 9), Visits(2, 100, 10, 1, 6, 8))
    assert (seen.total_sent, seen.ran, seen.lost, seen.torn) == (200, 200, 0, 1)


def test_nothing_written_yet_is_not_torn():
    assert Shared(0, 0, 0, 0, 0, 0).agrees
    assert not Shared(0, 0, 0, 1, 0, 0).agrees


def test_a_value_of_another_size_is_refused():
    with pytest.raises(struct.error):
        Shared.decode(bytes(8))
