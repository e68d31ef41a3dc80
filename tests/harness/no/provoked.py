# SPDX-License-Identifier: GPL-2.0-only
"""Tests that provoke what the harness must report; run by tests/harness/test_says_no.py alone."""

import pytest

from harness.guest import calls

RULE = "Provoked"


def test_before(guest):
    guest.check(True, "the first test runs")


def test_panic(guest):
    guest.call(calls.Write("/proc/sysrq-trigger", "c"))


def test_warning(guest):
    # What a kernel says that accepts two locks in one value, before commit f08619f06046 (in v7.3).
    line = "WARNING: CPU: 1 PID: 213 at kernel/bpf/btf.c:3924 btf_parse_fields+0x5b6/0x6d0"
    guest.call(calls.Write("/dev/kmsg", f"<4>{line}\n"))
    guest.check(True, "all else is well")


def test_silence(guest):
    # No CPU is stuck, nothing is printed: only the time limit can tell.
    guest.call(calls.Command(["sleep", "3600"]), limit=3)


def test_interrupts_off(guest):
    guest.load("no.bpf.c", ["takes_for_good", "healthy"])
    guest.call(calls.MapIterate("counters", "takes_for_good"))
    guest.call(calls.TestRun("healthy"))


def test_stuck_in_tick(guest):
    guest.load("no.bpf.c", ["hang_in_tick"])
    guest.call(calls.Attach("hang_in_tick"))
    guest.call(calls.Command(["sleep", "3600"]))


def test_stuck_in_queue(guest):
    guest.boot_with("clearcpuid=159")
    guest.load("no.bpf.c", ["takes_for_good", "healthy"])
    guest.call(calls.MapIterate("counters", "takes_for_good"))
    order = calls.Order("test_run", "healthy", 0, range(1, guest.cpus), 1)
    guest.call(calls.Drive([order]))


def test_busy_cpu(guest):
    # Its kernel is well, but nothing else runs there: real-time throttling and, since v6.12, the
    # fair server would see to that.
    script = """
        echo -1 > /proc/sys/kernel/sched_rt_runtime_us
        for file in /sys/kernel/debug/sched/fair_server/cpu*/runtime; do
            [ -e $file ] && echo 0 > $file
        done
        taskset -c 2 chrt -f 99 sh -c 'while :; do :; done' >/dev/null 2>&1 </dev/null &
        sleep 1
    """
    guest.call(calls.Command(["sh", "-c", script]))
    guest.check(True, "the test itself sees nothing of it")


def test_late_warning(guest):
    # Some time after the last call, but before the guest is let go of.
    script = "(sleep 0.05; echo '<4>WARNING: CPU: 1 PID: 2 at kernel/x.c:3 f+0x4/0x5' >/dev/kmsg) &"
    guest.call(calls.Command(["sh", "-c", f"{script} exit 0 >/dev/null 2>&1"]))
    guest.check(True, "it came after all checks")


def test_stopped_agent(guest):
    guest.call(calls.Command(["sh", "-c", "kill -STOP $PPID"]), limit=5)


def test_dead_agent(guest):
    guest.call(calls.Command(["sh", "-c", "kill -9 $PPID"]))


def test_out_of_memory(guest):
    # The kernel ends the agent's process, as the largest. Nobody's defect is proven by that.
    script = """
        echo 1000 > /proc/$PPID/oom_score_adj
        echo 0 > /proc/self/oom_score_adj
        exec python3 -c 'kept = [b"x" * (64 << 20) for _ in range(64)]'
    """
    guest.call(calls.Command(["sh", "-c", script]))


def test_rcu_stall(guest):
    # It runs with interrupts on and for ever. That no soft lockup is called before, it is told; and RCU
    # complains only when somebody waits for it: membarrier(GLOBAL) does.
    waiting = "import ctypes, time; time.sleep(1); ctypes.CDLL(None).syscall(324, 1, 0, 0)"
    guest.call(calls.Write("/proc/sys/kernel/watchdog_thresh", "60"))
    guest.load("no.bpf.c", ["hang"])
    script = f"taskset -c 1 python3 -c '{waiting}' >/dev/null 2>&1 </dev/null &"
    guest.call(calls.Command(["sh", "-c", script]))
    guest.call(calls.TestRun("hang"))


# A writer waits, where no signal reaches it, for a lock of a file that another holds: one whose
# memory gives a page fault that nobody handles (userfaultfd).
BLOCKED = """
import ctypes, fcntl, mmap, os, struct, threading, time
libc = ctypes.CDLL(None)
faults = libc.syscall(323, 0)
memory = mmap.mmap(-1, 4096)
address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
fcntl.ioctl(faults, 0xC018AA3F, struct.pack("QQQ", 0xAA, 0, 0))
fcntl.ioctl(faults, 0xC020AA00, struct.pack("QQQQ", address, 4096, 1, 0))
holder, waiter = (os.open("/tmp/file", os.O_CREAT | os.O_WRONLY) for _ in range(2))
threading.Thread(target=libc.write, args=(holder, ctypes.c_void_p(address), 4096)).start()
time.sleep(0.5)
os.write(waiter, b"x")
"""


def test_hung_task(guest):
    guest.call(calls.Write("/proc/sys/kernel/hung_task_timeout_secs", "3"))
    guest.call(calls.Command(["python3", "-c", BLOCKED]), limit=60)


def test_wait_to_be_killed(guest):
    guest.call(calls.Write("/dev/kmsg", "<0>waiting to be killed\n"))
    guest.call(calls.Command(["sleep", "3600"]))


def test_checks_nothing(guest):
    pass


def test_assertion(guest):
    assert guest.cpus == 0, "there must be no CPU"


def test_unloadable(guest):
    guest.load("no.bpf.c", ["expected_to_load"])


def test_after(guest):
    guest.check(True, "the last test runs")


@pytest.mark.parametrize(
    "where, driver, cpus", [("tc", "tc_ingress_to_cpu_0", [1, 2]), ("timer", "local_timer", [])]
)
def test_lock_without_irqsave(guest, where, driver, cpus):
    """What tests/lock/interrupts/test_nesting.py sees of a kernel whose lock leaves interrupts on."""
    wanting = f"want_naively_at_{where}"
    guest.load("naive_lock.bpf.c", ["hold_naively", wanting])
    orders = [
        calls.Order("cgroup_skb_egress", "hold_naively", 0, [0], 200_000),
        calls.Order(driver, wanting, 1, cpus, 200_000),
    ]
    guest.call(calls.Drive(orders, "runs"), limit=40.0)
