# SPDX-License-Identifier: GPL-2.0-only
"""The lock of a new object is free, whatever was in its memory before.

The programs are those of bpf_progs/driven/object_new.bpf.c. The kernel frees the memory of dropped objects
only after an RCU grace period. So a program runs repeatedly, until enough new objects with a lock were in
memory that other objects had marked.
"""

from harness.guest import calls
from harness.judging.verdict import Kind, Verdict

RULE = "An allocated object's lock is locked like a map value's"
LOADERS = ("libbpf",)  # objects are made by kernel functions

ENOUGH = 64  # wanted objects in used memory
RUNS = 2000  # the most runs
NOT_FREE = 0xFFFFFFFE  # the program's return value if a lock was not free
SECONDS = 60.0  # limit of a call: a lock that is not free would hang it for good


def run_in_used_memory(guest, program):
    """Run a program until enough new objects were in used memory; all their locks must be free."""
    guest.load("object_new.bpf.c", [program])
    used = runs = seen = 0
    while used < ENOUGH and runs < RUNS and seen != NOT_FREE:
        result = guest.call(calls.TestRun(program, cpu=0), limit=SECONDS)["retval"]
        seen = result & 0xFFFFFFFF
        runs += 1
        if seen < 1 << 31:
            used += seen
    guest.check(seen != NOT_FREE, "the locks of new objects are free", f"after {used}, one was not")
    reason = f"{used} new objects in used memory, in {runs} runs: their locks were free"
    kind = Kind.PASS if used >= ENOUGH else Kind.INCONCLUSIVE
    guest.conclude(Verdict(kind, reason))


def test_lock_of_object_in_used_memory(guest):
    guest.needs("bpf_obj_new_impl", "6.2")
    run_in_used_memory(guest, "lock_new_objects")


def test_res_spin_lock_of_object_in_used_memory(guest):
    guest.needs("bpf_res_spin_lock", "6.15")
    run_in_used_memory(guest, "lock_new_res_spin_lock_objects")
