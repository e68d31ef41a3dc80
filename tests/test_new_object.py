"""The lock of a new object: free, whatever was in its memory before.

The program is that of bpf_progs/object_new.bpf.c. The kernel keeps the memory of dropped objects for
a while, until its CPUs have passed through a grace period of RCU; so the program runs again and
again, until enough objects with a lock were in memory that another object had marked.
"""

from harness.judge import Kind, Verdict

RULE = "An allocated object's lock is locked like a map value's"
LOADERS = ("libbpf",)  # objects are made by kernel functions

ENOUGH = 64  # objects in used memory
RUNS = 2000  # at most
SECONDS = 60.0  # for a call; a lock that is not free would hang it for good


def test_lock_of_object_in_used_memory(guest):
    guest.needs("bpf_obj_new_impl", "6.2")
    guest.load("object_new.bpf.c", ["lock_new_objects"])
    used = runs = 0
    while used < ENOUGH and runs < RUNS:
        seen = guest.call("test_run", program="lock_new_objects", cpu=0, limit=SECONDS)["retval"]
        runs += 1
        if 0 <= seen < 1 << 31:
            used += seen
    reason = f"{used} new objects in used memory, in {runs} runs: their locks were free"
    kind = Kind.PASS if used >= ENOUGH else Kind.INCONCLUSIVE
    guest.conclude(Verdict(kind, reason))
