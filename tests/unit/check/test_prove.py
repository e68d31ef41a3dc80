# SPDX-License-Identifier: GPL-2.0-only
"""What is asked of a guest, and what becomes of its answers; the guest's part is a model here."""

import shutil
import subprocess
from contextlib import contextmanager

import pytest

from harness.check import lockset, proof, prove
from harness.check.examine import OnKernel, Outcome, Source
from harness.guest import calls
from harness.provision import elf

pytestmark = pytest.mark.skipif(shutil.which("clang") is None, reason="needs clang")
PROGRAM = """
typedef unsigned int __u32; typedef unsigned long long __u64;
#define SEC(name) __attribute__((section(name), used))
#define __uint(name, val) int (*name)[val]
#define __type(name, val) typeof(val) *name
struct bpf_spin_lock { __u32 val; };
static void *(*lookup)(void *map, const void *key) = (void *) 1;
static long (*lock)(struct bpf_spin_lock *) = (void *) 93;
static long (*unlock)(struct bpf_spin_lock *) = (void *) 94;
struct item { struct bpf_spin_lock lock; __u32 count; __u64 sum; };
struct { __uint(type, 1); __uint(max_entries, 4); __type(key, __u32); __type(value, struct item); }
    items SEC(".maps");
#define LOCKED(i, what) do { lock(&(i)->lock); what; unlock(&(i)->lock); } while (0)
SEC("tc") int one(__u32 *ctx)
{ __u32 key = 0; struct item *i = lookup(&items, &key); if (!i) return 0; LOCKED(i, i->count++); return 0; }
SEC("tc") int two(__u32 *ctx)
{ __u32 key = 0; struct item *i = lookup(&items, &key); if (i) LOCKED(i, i->count += 1); return 0; }
"""


class Guests:
    """A guest in which a counter loses runs if they are made together: of the twin, of the program."""

    cpus = 4

    def __init__(self, own, twin, problem=""):
        self.lost, self.problem = (own, twin), problem
        self.asked = []
        self.own = None

    @contextmanager
    def session(self):
        yield self

    def call(self, wanted, limit):
        lanes = wanted.lanes
        self.own = self.own or lanes.object
        is_twin = lanes.object != self.own
        together = isinstance(wanted, calls.RunTogether)
        self.asked.append((type(wanted).__name__, is_twin))
        if self.problem and is_twin:
            return {"problem": self.problem, "kernel_log": []}
        warm = 2 * len(lanes.steps)
        total = lanes.chunks * lanes.repeat * len(lanes.cpus)

        def state(count):
            return {
                "items": {"00000000": (bytes(4) + count.to_bytes(4, "little") + bytes(8)).hex()}
            }

        facts = {"before": state(warm), "seconds": 0.2, "kernel_log": []}
        if not lanes.chunks:
            return {**facts, "stirred": [*range(len(lanes.steps))], "refused": {}}
        if together:
            after = state(warm + total - self.lost[is_twin])
            return {**facts, "rounds": [after] * wanted.rounds, "looks": {}}
        return {**facts, "halfway": state(warm + total // 2), "after": state(warm + total)}


def run(tmp_path, guests, programs=("one", "two"), entries=()):
    (tmp_path / "x.c").write_text(PROGRAM)
    options = ["-g", "-O2", "-target", "bpf", "-c", tmp_path / "x.c", "-o", tmp_path / "x.o"]
    subprocess.run(["clang", *options], check=True)
    data = (tmp_path / "x.o").read_bytes()
    source = Source("x.o", data, elf.read(data))
    row = OnKernel("6.12", "6.12.1", {name: Outcome() for name in programs})
    findings = lockset.analyse(source.object, source.programs)
    given = prove.Inputs({"UDP": bytes(64).hex()}, entries)
    return prove.prove(guests, row, source, findings, given)


def count_of(found):
    (proof_,) = [each for each in found.proofs if each.field == "count"]
    return proof_


def test_each_program_by_itself_and_both_together(tmp_path):
    found = run(tmp_path, Guests(0, 5))
    assert [ran.programs for ran in found.ran] == [("one",), ("two",), ("one", "two")]
    assert count_of(found).verdict == proof.MATTERS and count_of(found).twin.lost == 5
    assert found.good and not found.notes


def test_accused_with_the_least_work(tmp_path):
    found = run(tmp_path, Guests(3, 5), ("one",))
    accused = count_of(found)
    assert accused.verdict == proof.ACCUSED and accused.loss.lost == 3 and not found.good
    assert accused.least.cpus == 2 and accused.least.runs < 20


def test_more_runs_where_the_twin_loses_nothing(tmp_path):
    guests = Guests(0, 0)
    assert count_of(run(tmp_path, guests, ("one",))).verdict == proof.NO_POWER
    powerful = Guests(0, 5)
    run(tmp_path, powerful, ("one",))
    assert len(guests.asked) > len(powerful.asked)


def test_no_twin_that_loads(tmp_path):
    found = run(tmp_path, Guests(0, 0, "it does not load: EINVAL"), ("one",))
    assert count_of(found).verdict == proof.NO_POWER
    assert found.notes == ("no twin to compare with: without its locks it does not load: EINVAL",)


def test_what_is_asked_for_and_does_not_load(tmp_path):
    found = run(tmp_path, Guests(0, 5), ("one",), entries=("two",))
    assert found.left_out == {"two": "it does not load"} and not found.ran
    assert "nothing was run" in found.notes[0]
