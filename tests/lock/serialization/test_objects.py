# SPDX-License-Identifier: GPL-2.0-only
"""Concurrent use of lists, trees and allocated objects under their lock.

The programs are those of bpf_progs/driven/places_objects.bpf.c. The verifier refuses a program that uses
a list or a tree without its lock, so a broken twin cannot do that. Instead the twin updates a counter
beside the list without the lock. This proves that the CPUs contend in these programs; a lock that does not
serialize would break the counter first. In addition every operation has a ticket, and the removed
objects must be those that a model of the list or tree gives in the order of the tickets.
"""

from functools import partial

import pytest
from packaging.version import Version

from harness.guest import calls
from harness.judging import list_model
from harness.judging.list_model import Transfer
from harness.judging.serialization import LOCKED, SKIPS_64, UNLOCKED, judge
from harness.judging.verdict import Kind, Verdict
from harness.running import experiment
from harness.running.experiment import Drive, Plan, prove

RULE = "Lists and trees stay whole under their lock"
LOADERS = ("libbpf",)  # they are changed by kernel functions

OPERATIONS, TURNS = 12_000, 1000  # per CPU; turns of the critical section
SECONDS = 60.0  # for a map's memory
CONTAINERS = {
    # name -> function it needs, since when, what comes out first
    "list": ("bpf_list_push_back_impl", "6.4", list_model.first_in_first_out),
    "tree": ("bpf_rbtree_add_impl", "6.4", list_model.least_first),
}


def transfers(guest, plan):
    """Return the recorded operations of all CPUs."""
    cpus = plan.drives[0].cpus
    pieces = [(cpu * plan.room, OPERATIONS) for cpu in cpus]
    tickets = guest.map("operations").memory(pieces, SECONDS, "ticket")
    moved = guest.map("transfers").memory(pieces, SECONDS, "in", "out")
    return [
        Transfer(ticket, put, taken, f"CPU {cpu}")
        for cpu, *written in zip(cpus, tickets, moved)
        for (ticket,), (put, taken) in zip(*written)
    ]


def rest(guest, name):
    """Yield the remaining objects' ids, removing them."""
    while True:
        taken = guest.call(calls.TestRun(f"take_from_{name}"))["retval"] & 0xFFFFFFFF
        if not taken:
            return
        yield taken


@pytest.mark.parametrize("name", CONTAINERS)
def test_container(guest, name):
    function, since, rank = CONTAINERS[name]
    guest.needs_two_cpus("one CPU never meets another")
    guest.needs(function, since)
    guest.load("places_objects.bpf.c", [f"change_{name}", f"take_from_{name}"])
    cpus = tuple(range(guest.cpus))
    drive = Drive("test_run", cpus, OPERATIONS, f"change_{name}", source=0)
    plan = Plan((drive,), TURNS, map=name)
    real = experiment.run(guest, plan, LOCKED)
    done = transfers(guest, plan)
    left = list(rest(guest, name))
    anomalies = list_model.check(done, left, rank)
    twins = [
        experiment.run_twin(real, partial(experiment.run, guest, plan, way))
        for way in (UNLOCKED, SKIPS_64)
    ]
    real = experiment.run_as_often(real, twins, partial(experiment.run, guest, plan, LOCKED))
    verdict = judge(real, twins)
    taken = sum(bool(transfer.taken) for transfer in done)
    seen = f"{sum(bool(t.put) for t in done)} put in, {taken} taken out, {len(left)} left"
    if anomalies and verdict.kind is not Kind.FAIL:
        sentences = "; ".join(f"{a.name}: {a.sentence}" for a in anomalies)
        verdict = Verdict(Kind.FAIL, sentences, verdict.evidence)
    elif verdict.kind is Kind.PASS and not taken:
        verdict = Verdict(Kind.INCONCLUSIVE, f"{seen}: nothing came out", verdict.evidence)
    elif verdict.kind is Kind.PASS:
        verdict = Verdict(Kind.PASS, f"{seen}, in order; {verdict.reason}", verdict.evidence)
    guest.conclude(
        verdict,
        locked=real.measurements(),
        twins=[twin.measurements() for twin in twins],
        taken=taken,
        left=len(left),
    )


@pytest.mark.contends
def test_lock_of_object(guest):
    """Updates are serialized by the lock of an allocated object that all CPUs hold references to."""
    guest.needs_two_cpus("one CPU never meets another")
    guest.needs("bpf_refcount_acquire_impl", "6.4")
    if guest.release < Version("6.8"):
        reason = "a program takes a reference to an object that a map holds since v6.8 only"
        guest.conclude(Verdict(Kind.SKIP, reason))
        return
    guest.load("places_objects.bpf.c", ["make_object", "count_object", "show_object"])
    drive = Drive("test_run", tuple(range(guest.cpus)), OPERATIONS, "count_object", source=0)
    plan = Plan((drive,), TURNS, map="shown", before="make_object", after="show_object")
    verdict, numbers = prove(guest, plan, (UNLOCKED, SKIPS_64), guest.lock_path)
    guest.conclude(verdict, **numbers)
