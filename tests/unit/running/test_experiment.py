# SPDX-License-Identifier: GPL-2.0-only
"""A plan carried out on a guest that only plays one: what is asked for, and what becomes of it."""

import base64
import shutil
import subprocess
import zlib

import pytest

from harness.judging.history import Operation
from harness.judging.lock_path import QUEUED
from harness.judging.serialization import LOCKED, SKIPS_64, UNLOCKED
from harness.judging.verdict import Kind, Verdict
from harness.provision.build import Source
from harness.running import experiment
from harness.running.experiment import QUEUED_SECONDS, Drive, Plan, proofs_for
from harness.running.maps import Loaded

pytestmark = pytest.mark.skipif(shutil.which("clang") is None, reason="needs clang")

# As in contend.h, but for the order of the members, which is nobody's business.
TEXT = """
typedef unsigned int __u32; typedef unsigned long long __u64;
#define SEC(name) __attribute__((section(name), used))
#define MAP(kind, name, of) \
  struct { int (*type)[kind]; __u32 *key; struct of *value; } name SEC(".maps");
struct bpf_spin_lock { __u32 val; };
struct shared {
    __u64 doubled, inverse, count, handovers; struct bpf_spin_lock lock; __u32 last_cpu;
};
struct order { __u32 begin[8], mode, every, turns, room, elements; };
struct visits { __u64 last_ns, first_ns, bare, torn, busy, runs; };
struct operation { __u32 bare, element; __u64 leave, arrive, ticket; };
MAP(2, state, shared) MAP(2, orders, order) MAP(6, runs, visits) MAP(2, operations, operation)
SEC("tc") int program(void *ctx) { return 0; }
"""
CPUS, WORD = 3, (1 << 64) - 1


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    source = tmp_path_factory.mktemp("object") / "x.bpf.c"
    source.write_text(TEXT)
    result = source.with_suffix(".o")
    command = ["clang", "-g", "-O2", "-target", "bpf", "-c", str(source), "-o", str(result)]
    subprocess.run(command, check=True)
    return result.read_bytes()


class Session:
    """Counts one operation on CPU 0, and one on CPU 2."""

    def __init__(self, data):
        self.maps = Loaded(self, Source("x.bpf.c", "", "libbpf", data, 0.0), lambda: data)
        self.elements, self.calls = {}, []

    def encoded(self, name, *values):
        return b"".join(map(self.maps.map(name).value.encode, values))

    def call(self, request, limit=0):
        self.calls.append(request)
        return getattr(self, request.name)(**vars(request))

    def map_update(self, map, key, value, flags):
        self.elements[map, key] = value

    def map_reset(self, map):
        self.elements = {place: v for place, v in self.elements.items() if place[0] != map}

    def drive(self, orders, counter):
        end = {"count": 2, "inverse": ~2 & WORD, "doubled": 4, "handovers": 1, "last_cpu": 3}
        seen = {"runs": 1, "busy": 1, "first_ns": 10, "last_ns": 30}
        self.elements["state", "00000000"] = self.encoded("state", end).hex()
        self.elements["runs", "00000000"] = self.encoded("runs", seen, {}, seen).hex()
        driven = {"sent": {"0": 1, "1": 0, "2": 1}, "log": {}}
        return {"orders": [driven], "dropped": {}, "seconds": 0.5}

    def map_lookup(self, map, key, flags, fill):
        return self.elements[map, key]

    def map_memory(self, map, pieces):
        assert map == "operations"
        done = self.encoded(
            map,
            {"ticket": 0, "arrive": 10, "leave": 30},
            {"ticket": 1, "arrive": 12, "leave": 35},
        )
        halves = done[: len(done) // 2], done[len(done) // 2 :]
        return [base64.b64encode(zlib.compress(half)).decode() for half in halves]


def carried_out(data, way):
    session = Session(data)
    plan = Plan((Drive("test_run", tuple(range(CPUS)), 1),), turns=7)
    return session, experiment.run(session.maps, plan, way)


def test_what_maps_hold_becomes_a_run(data):
    _, run = carried_out(data, LOCKED)
    assert [(visits.cpu, visits.runs, visits.last_ns) for visits in run.visits] == [
        (0, 1, 30),
        (2, 1, 30),
    ]
    (shared,) = run.shared
    assert shared.agrees and (shared.count, shared.lock, shared.last_cpu) == (2, 0, 3)
    assert run.histories == ((Operation(0, 10, 30, "CPU 0"), Operation(1, 12, 35, "CPU 2")),)
    assert (run.counted, run.lost, run.torn, run.handovers) == (2, 0, 0, 1)


def test_the_order_says_how(data):
    session, _ = carried_out(data, SKIPS_64)
    orders = session.maps.map("orders")
    order = orders.value.decode(bytes.fromhex(session.elements["orders", "00000000"]))
    assert (order.turns, order.mode, order.every, order.elements) == (7, SKIPS_64.mode, 64, 1)
    asked = {request.name: request for request in session.calls}
    size = session.maps.map("operations").value.size
    of_cpus_0_and_2 = [(0, size), (2 * order.room * size, size)]
    assert asked["map_memory"].pieces == of_cpus_0_and_2


FOUR = Plan((Drive("test_run", (0, 1, 2, 3), 12_000),), turns=7)


def test_where_cpus_queue_a_run_ends_by_time_and_subtle_twins_have_two_cpus():
    assert proofs_for("test-and-set", FOUR, (UNLOCKED, SKIPS_64)) == [(FOUR, (UNLOCKED, SKIPS_64))]
    (all_cpus, coarse), (two, subtle) = proofs_for(QUEUED, FOUR, (UNLOCKED, SKIPS_64))
    assert (coarse, subtle) == ([UNLOCKED], [SKIPS_64])
    assert [drive.cpus for drive in (*all_cpus.drives, *two.drives)] == [(0, 1, 2, 3), (0, 1)]
    assert {drive.seconds for drive in (*all_cpus.drives, *two.drives)} == {QUEUED_SECONDS}
    assert len(proofs_for(QUEUED, FOUR, (UNLOCKED,))) == 1
    assert len(proofs_for(QUEUED, two, (UNLOCKED, SKIPS_64))) == 1


def test_both_proofs_of_a_queued_lock_must_hold(monkeypatch):
    kinds = {4: Kind.PASS, 2: Kind.FAIL}

    def prove_once(guest, plan, twins):
        cpus = len(plan.drives[0].cpus)
        return Verdict(kinds[cpus], f"on {cpus} CPUs", (str(cpus),)), {"cpus": cpus}

    monkeypatch.setattr(experiment, "_prove", prove_once)
    verdict, numbers = experiment.prove(None, FOUR, (UNLOCKED, SKIPS_64), QUEUED)
    assert verdict == Verdict(Kind.FAIL, "on 4 CPUs; then on 2 CPUs", ("4", "2"))
    assert numbers == {"cpus": 4, "by_two": {"cpus": 2}}
