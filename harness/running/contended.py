# SPDX-License-Identifier: GPL-2.0-only
"""The contests for a lock: their drivers, operations per CPU, and the broken twins to catch.

The scenarios (test_serialization.py, test_hooks.py) and `spinlock power` use the same table. So the
rates that `spinlock power` measures hold for the scenarios.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, Optional, Tuple

from harness.judging.serialization import (
    EARLY_UNLOCK,
    IMPATIENT,
    OTHER_LOCK,
    SKIPS_64,
    SKIPS_4096,
    TWINS,
    UNLOCKED,
    Way,
)
from harness.running.experiment import Drive, Plan
from harness.scenarios.scenario import Need

COUNTER, HOOKS = "counter.bpf.c", "counter_hooks.bpf.c"

# The twins by their names on the command line.
WORDS: Dict[str, Way] = {
    "no-lock": UNLOCKED,
    "other-lock": OTHER_LOCK,
    "early-unlock": EARLY_UNLOCK,
    "skips-64": SKIPS_64,
    "skips-4096": SKIPS_4096,
    "impatient": IMPATIENT,
}


@dataclass(frozen=True)
class Contest:
    """One or more drivers that contend for one lock or several."""

    drives: Tuple[Tuple[str, int], ...]  # driver, operations per CPU
    turns: int = 1000  # length of the critical section, in turns of its loop
    twins: Tuple[Way, ...] = (UNLOCKED,)
    file: str = COUNTER
    elements: int = 1
    needs: Optional[Need] = None  # a name in the BTF of kernels that have the hook
    locks_since: str = ""  # first version that lets this program type lock, if later than v5.1

    def plan(self, cpus: int) -> Plan:
        """Return the plan for CPUs 0 to `cpus` - 1. User space copies the value on one of them."""
        every = tuple(range(cpus))
        drives = []
        for driver, operations in self.drives:
            where = (0,) if driver == "user_space" else every
            if self.file == HOOKS:
                drives.append(Drive(driver, where, operations, f"count_{driver}", 0))
            else:
                drives.append(Drive(driver, where, operations))
        return Plan(tuple(drives), self.turns, self.elements)


def _hook(driver: str, operations: int = 5_000, turns: int = 1000) -> Contest:
    return Contest(((driver, operations),), turns)


def _other(
    driver: str,
    operations: int = 5_000,
    turns: int = 1000,
    needs: Optional[Need] = None,
    locks_since: str = "",
) -> Contest:
    return Contest(((driver, operations),), turns, (UNLOCKED,), HOOKS, 1, needs, locks_since)


# The operations suffice to catch the twins in each run, even with four vCPUs on two busy cores.
# The subtle twins do no damage through hooks, where a packet takes far longer than its operation.
DRIVERS: Dict[str, Contest] = {
    "test_run": Contest((("test_run", 50_000),), 500, TWINS),
    "tc_ingress": _hook("tc_ingress"),
    "tc_egress": _hook("tc_egress"),
    "xdp_native": _hook("xdp_native"),
    "xdp_generic": _hook("xdp_generic"),
    "cgroup_skb_ingress": _hook("cgroup_skb_ingress"),
    "cgroup_skb_egress": _hook("cgroup_skb_egress"),
}

OTHER_HOOKS: Dict[str, Contest] = {
    "tcx_ingress": _other("tcx_ingress", needs=Need("BPF_TCX_INGRESS", "6.6")),
    "tcx_egress": _other("tcx_egress", needs=Need("BPF_TCX_EGRESS", "6.6")),
    "cgroup_connect4": _other("cgroup_connect4"),
    "cgroup_sendmsg4": _other("cgroup_sendmsg4", 4_000),
    "cgroup_sock_create": _other("cgroup_sock_create", 3_000, 2000),
    "cgroup_setsockopt": _other("cgroup_setsockopt"),
    "cgroup_getsockopt": _other("cgroup_getsockopt"),
    "cgroup_device": _other("cgroup_device"),
    "cgroup_sysctl": _other("cgroup_sysctl"),
    "tp_btf_sys_enter": _other("tp_btf_sys_enter", 10_000, locks_since="5.15"),
    "fentry": _other("fentry", 6_000, locks_since="5.15"),
    "lsm_file_open": _other(
        "lsm_file_open",
        needs=Need("bpf_lsm_file_open", "5.7", ("CONFIG_BPF_LSM",)),
        locks_since="5.11",
    ),
}

# One lock, taken from XDP, tc, cgroups, test runs and user space at the same time.
ALL_HOOKS = Contest(
    (
        ("test_run", 3_000),
        ("xdp_native", 3_000),
        ("tc_ingress", 3_000),
        ("tc_egress", 3_000),
        ("cgroup_skb_egress", 3_000),
        ("user_space", 1_000),
    ),
    turns=500,
)
# Many elements: the lock of one does not protect another.
INDEPENDENT = Contest((("test_run", 50_000),), 500, (UNLOCKED, SKIPS_64), elements=8)

ALL: Dict[str, Contest] = {
    **DRIVERS,
    "all_hooks": ALL_HOOKS,
    "independent_locks": INDEPENDENT,
    **OTHER_HOOKS,
}
