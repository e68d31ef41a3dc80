"""The lock at hooks besides those of tests/test_serialization.py: cgroups, tracing, LSM, tcx.

Each hook runs the locked counter of bpf_progs/counter_hooks.bpf.c on every CPU at once, and then the
unlocked one in the very same way.
"""

from dataclasses import dataclass

import pytest

from harness import experiment
from harness.experiment import Drive, Plan
from harness.judge import Kind, Verdict
from harness.serialization import LOCKED, UNLOCKED, judge

RULE = "Locked updates of all CPUs are serialized"


@dataclass(frozen=True)
class Hook:
    """How much to ask of a hook, so that the unlocked counter shows in each run."""

    operations: int  # per CPU
    turns: int = 1000  # of the critical section
    needs: tuple = ()  # what the kernel's BTF has where the hook exists, and since when
    locks_since: str = ""  # where not from the first day on


HOOKS = {
    "tcx_ingress": Hook(5_000, needs=("BPF_TCX_INGRESS", "6.6")),
    "tcx_egress": Hook(5_000, needs=("BPF_TCX_EGRESS", "6.6")),
    "cgroup_connect4": Hook(5_000),
    "cgroup_sendmsg4": Hook(4_000),
    "cgroup_sock_create": Hook(3_000, 2000),
    "cgroup_setsockopt": Hook(5_000),
    "cgroup_getsockopt": Hook(5_000),
    "cgroup_device": Hook(5_000),
    "cgroup_sysctl": Hook(5_000),
    "tp_btf_sys_enter": Hook(10_000, locks_since="5.15"),
    "fentry": Hook(6_000, locks_since="5.15"),
    "lsm_file_open": Hook(
        5_000, needs=("bpf_lsm_file_open", "5.7", "CONFIG_BPF_LSM"), locks_since="5.11"
    ),
}


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
    programs = [program, "lock_word_of_hooks"]
    guest.load("counter_hooks.bpf.c", programs, locks_since=asked.locks_since)
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
