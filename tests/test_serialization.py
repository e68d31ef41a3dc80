"""Concurrent updates under the lock: every one counts, whatever hook they come from.

Each driver runs a locked counter of bpf_progs/counter.bpf.c on every CPU at once, and then its
broken twins in the very same way: bpf_progs/contend.h has the operation and the ways to break it.
"""

import pytest

from harness import experiment
from harness.experiment import Drive, Plan
from harness.judge import Kind
from harness.serialization import SKIPS_64, TWINS, UNLOCKED, judge

RULE = "Locked updates of all CPUs are serialized"

# driver -> operations per CPU, turns of the critical section, broken twins. So many that the twins
# are seen in each run, on a machine with two busy cores for four CPUs too: `spinlock power`. The
# subtle ones do not show through hooks, where a packet costs so much more than its operation.
DRIVERS = {
    "test_run": (50_000, 500, TWINS),
    "tc_ingress": (5_000, 1000, (UNLOCKED,)),
    "tc_egress": (5_000, 1000, (UNLOCKED,)),
    "xdp_native": (5_000, 1000, (UNLOCKED,)),
    "xdp_generic": (5_000, 1000, (UNLOCKED,)),
    "cgroup_skb_ingress": (5_000, 1000, (UNLOCKED,)),
    "cgroup_skb_egress": (5_000, 1000, (UNLOCKED,)),
}


def conclude(guest, plan, ways):
    """Run a plan as it must be and in each broken way, and judge."""
    guest.load("counter.bpf.c", plan.programs())
    verdict, numbers = experiment.prove(guest, plan, ways)
    guest.conclude(verdict, **numbers)


@pytest.mark.parametrize("driver", DRIVERS)
def test_serialization(guest, driver):
    operations, turns, ways = DRIVERS[driver]
    drive = Drive(driver, tuple(range(guest.cpus)), operations)
    conclude(guest, Plan((drive,), turns), ways)


def test_serialization_of_all_hooks(guest):
    """One lock, asked for from XDP, tc, cgroups, test runs and user space at the same time."""
    cpus = tuple(range(guest.cpus))
    hooks = ("test_run", "xdp_native", "tc_ingress", "tc_egress", "cgroup_skb_egress")
    drives = [Drive(hook, cpus, 3_000) for hook in hooks]
    drives.append(Drive("user_space", (0,), 1_000))
    conclude(guest, Plan(tuple(drives), 500), (UNLOCKED,))


def test_independent_locks(guest):
    """Many elements: the lock of one says nothing of another."""
    drive = Drive("test_run", tuple(range(guest.cpus)), 50_000)
    conclude(guest, Plan((drive,), 500, elements=8), (UNLOCKED, SKIPS_64))


def test_serialization_has_power(guest):
    """The judge convicts the unlocked twin when that is given as the real program."""
    plan = Plan((Drive("test_run", tuple(range(guest.cpus)), 50_000),), 500)
    guest.load("counter.bpf.c", plan.programs())
    broken = experiment.run(guest, plan, UNLOCKED)
    verdict = judge(broken, [broken])
    guest.check(verdict.kind is Kind.FAIL, "an unlocked counter is a FAIL", verdict)
    for name in ("lost updates", "duplicate ticket"):
        guest.check(name in verdict.reason, f"the anomaly is called {name}", verdict)
