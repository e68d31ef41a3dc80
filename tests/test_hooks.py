"""The lock at hooks besides those of tests/test_serialization.py: cgroups, tracing, LSM, tcx.

Each hook runs the locked counter of bpf_progs/counter_hooks.bpf.c on every CPU at once, and then the
unlocked one in the very same way.
"""

from dataclasses import dataclass

import pytest
from packaging.version import Version

from harness import experiment
from harness.experiment import Drive, Plan
from harness.judge import Kind, Verdict
from harness.serialization import LOCKED, UNLOCKED, judge
from harness.target import KernelRefusal

RULE = "Locked updates of all CPUs are serialized"


@dataclass(frozen=True)
class Hook:
    """How much to ask of a hook, so that the unlocked counter shows in each run."""

    operations: int  # per CPU
    turns: int = 1000  # of the critical section
    needs: tuple = ()  # what the kernel's BTF has where the hook exists, and since when
    locks_since: str = "5.1"  # its programs may lock


HOOKS = {
    "tcx_ingress": Hook(10_000, needs=("BPF_TCX_INGRESS", "6.6")),
    "tcx_egress": Hook(10_000, needs=("BPF_TCX_EGRESS", "6.6")),
    "cgroup_connect4": Hook(10_000),
    "cgroup_sendmsg4": Hook(5_000),
    "cgroup_sock_create": Hook(3_000, 2000),
    "cgroup_setsockopt": Hook(10_000),
    "cgroup_getsockopt": Hook(10_000),
    "cgroup_device": Hook(5_000),
    "cgroup_sysctl": Hook(5_000),
    "tp_btf_sys_enter": Hook(20_000, locks_since="5.15"),
    "fentry": Hook(6_000, locks_since="5.15"),
    "lsm_file_open": Hook(5_000, needs=("bpf_lsm_file_open", "5.7"), locks_since="5.11"),
}


def loads(guest, program, since):
    """Load a program; tell whether it may lock, as those of its kind may since a version."""
    try:
        guest.load("counter_hooks.bpf.c", [program, "lock_word_of_hooks"])
    except KernelRefusal as refusal:
        unknown = "unknown func bpf_spin_lock" in refusal.log
        if guest.release < Version(since) and unknown:
            return False
        raise
    return True


def is_active(guest, hook):
    """Tell whether the kernel passes the hook: LSM programs run only where the kernel says so."""
    if not hook.startswith("lsm"):
        return True
    path = "/sys/kernel/security"
    guest.call("command", arguments=["mount", "-t", "securityfs", "securityfs", path])
    modules = guest.call("command", arguments=["cat", f"{path}/lsm"])["stdout"]
    return "bpf" in modules.strip().split(",")


@pytest.mark.parametrize("hook", HOOKS)
def test_serialization(guest, hook):
    asked, program = HOOKS[hook], f"count_{hook}"
    if asked.needs:
        guest.needs(*asked.needs)
    if not loads(guest, program, asked.locks_since):
        why = f"programs of this kind may lock since v{asked.locks_since}"
        guest.conclude(Verdict(Kind.SKIP, why))
        return
    if not is_active(guest, hook):
        guest.conclude(Verdict(Kind.SKIP, "the kernel's LSM for BPF is not among the active ones"))
        return
    drive = Drive(hook, tuple(range(guest.cpus)), asked.operations, program, 0)
    plan = Plan((drive,), asked.turns)
    runs = []
    for way in (LOCKED, UNLOCKED):
        runs.append(experiment.run(guest, plan, way))
        word = guest.call("test_run", program="lock_word_of_hooks")["retval"]
        guest.check(word == 0, f"the lock word is zero after the run, {way}", word)
    real, twin = runs
    guest.conclude(judge(real, [twin]), locked=real.measurements(), twins=[twin.measurements()])
