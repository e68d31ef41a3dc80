"""Tests that provoke what the harness must report; run by tests/test_says_no.py alone."""

RULE = "Provoked"


def test_before(guest):
    guest.check(True, "the first test runs")


def test_panic(guest):
    guest.call("write", path="/proc/sysrq-trigger", text="c")


def test_warning(guest):
    # What a kernel says that accepts two locks in one value, before commit f08619f06046 (in v7.3).
    line = "WARNING: CPU: 1 PID: 213 at kernel/bpf/btf.c:3924 btf_parse_fields+0x5b6/0x6d0"
    guest.call("write", path="/dev/kmsg", text=f"<4>{line}\n")
    guest.check(True, "all else is well")


def test_silence(guest):
    # No CPU is stuck, nothing is printed: only the time limit can tell.
    guest.call("command", arguments=["sleep", "3600"], limit=3)


def test_interrupts_off(guest):
    guest.load("no.bpf.c", ["takes_for_good", "healthy"])
    guest.call("map_iterate", map="counters", program="takes_for_good")
    guest.call("test_run", program="healthy")


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
    guest.call("command", arguments=["sh", "-c", script])
    guest.check(True, "the test itself sees nothing of it")


def test_late_warning(guest):
    # Some time after the last call, but before the guest is let go of.
    script = "(sleep 0.05; echo '<4>WARNING: CPU: 1 PID: 2 at kernel/x.c:3 f+0x4/0x5' >/dev/kmsg) &"
    guest.call("command", arguments=["sh", "-c", f"{script} exit 0 >/dev/null 2>&1"])
    guest.check(True, "it came after all checks")


def test_stopped_agent(guest):
    guest.call("command", arguments=["sh", "-c", "kill -STOP $PPID"], limit=5)


def test_dead_agent(guest):
    guest.call("command", arguments=["sh", "-c", "kill -9 $PPID"])


def test_wait_to_be_killed(guest):
    guest.call("write", path="/dev/kmsg", text="<0>waiting to be killed\n")
    guest.call("command", arguments=["sleep", "3600"])


def test_checks_nothing(guest):
    pass


def test_assertion(guest):
    assert guest.cpus == 0, "there must be no CPU"


def test_unloadable(guest):
    guest.load("no.bpf.c", ["expected_to_load"])


def test_after(guest):
    guest.check(True, "the last test runs")
