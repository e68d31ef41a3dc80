# SPDX-License-Identifier: GPL-2.0-only
"""Concurrent updates under a lock in each kind of map: all CPUs get the same lock for one element.

The programs are those of bpf_progs/driven/places.bpf.c; test_storage.py has the places that bcc
cannot express, test_objects.py those that user space cannot read.
"""

import pytest

from harness.judging.serialization import SKIPS_64, UNLOCKED
from harness.running.experiment import Drive, Plan, prove

RULE = "A lock serializes wherever it lives"

OPERATIONS, TURNS = 12_000, 1000  # per CPU; turns of the critical section
MANY = 16  # elements


@pytest.mark.contends(both=("table",))
@pytest.mark.parametrize("kind", ("array", "table", "lazy"))
def test_place(guest, kind):
    guest.needs_two_cpus("one CPU never meets another")
    program = f"count_{kind}"
    guest.load("places.bpf.c", [program])
    drive = Drive("test_run", tuple(range(guest.cpus)), OPERATIONS, program, source=0)
    verdict, numbers = prove(
        guest, Plan((drive,), TURNS, map=kind), (UNLOCKED, SKIPS_64), guest.lock_path
    )
    guest.conclude(verdict, **numbers)


@pytest.mark.contends
@pytest.mark.parametrize("kind", ("array", "table", "lazy"))
def test_many_elements(guest, kind):
    """Neighbouring elements with a lock each are used at once, and all updates are serialized."""
    guest.needs_two_cpus("one CPU never meets another")
    program = f"count_{kind}"
    guest.load("places.bpf.c", [program])
    drive = Drive("test_run", tuple(range(guest.cpus)), OPERATIONS, program, source=0)
    plan = Plan((drive,), TURNS, elements=MANY, map=kind)
    verdict, numbers = prove(guest, plan, (UNLOCKED,), guest.lock_path)
    guest.conclude(verdict, **numbers)
