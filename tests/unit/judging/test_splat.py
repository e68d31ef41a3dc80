# SPDX-License-Identifier: GPL-2.0-only
"""Splats, from lines that real kernels printed."""

import re
from pathlib import Path

import pytest

from harness.judging import splat
from harness.machines.loss import why_lost
from harness.machines.session import Gone, named

DATA = Path(__file__).parent.parent / "data"
PANIC = "[   12.3] Kernel panic - not syncing: sysrq triggered crash"


@pytest.mark.parametrize(
    "line, kind",
    [
        ("watchdog: BUG: soft lockup - CPU#1 stuck for 11s! [python3:123]", "soft lockup"),
        ("WARNING: CPU: 1 PID: 77 at kernel/bpf/btf.c:3840 btf_parse_fields+0x5e0/0x6f0", "WARN"),
        ("rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:", "RCU stall"),
        ("rcu: INFO: rcu_preempt self-detected stall on CPU", "RCU stall"),
        ("INFO: task python3:99 blocked for more than 120 seconds.", "hung task"),
        ("BUG: scheduling while atomic: python3/88/0x00000002", "scheduling while atomic"),
        ("BUG: KASAN: slab-use-after-free in htab_map_update_elem+0x1/0x2", "KASAN"),
        ("WARNING: possible recursive locking detected", "lockdep"),
        ("[ BUG: Invalid wait context ]", "lockdep"),
        ("WARNING: held lock freed!", "lockdep"),
        ("WARNING: lock held when returning to user space!", "lockdep"),
        ("WARNING: HARDIRQ-safe -> HARDIRQ-unsafe lock order detected", "lockdep"),
        ("WARNING: bad unlock balance detected!", "lockdep"),
        ("BUG: using smp_processor_id() in preemptible [00000000] code: a/1", "preempt imbalance"),
        (
            "huh, entered softirq 3 NET_RX 00000000 with preempt_count 00000100, exited with 00000101?",
            "preempt imbalance",
        ),
        ("BUG: KCSAN: data-race in htab_map_update_elem / htab_map_delete_elem", "KCSAN"),
        ("BUG: kernel NULL pointer dereference, address: 0000000000000000", "BUG"),
        ("Oops: Oops: 0002 [#1] PREEMPT SMP NOPTI", "oops"),
        (PANIC, "panic"),
    ],
)
def test_each_splat_has_its_name(line, kind):
    assert splat.find(["harmless", line]) == (kind, line, 1)


@pytest.mark.parametrize(
    "line",
    [
        "spinlock: begin missing_unlock",
        "IPv6: ADDRCONF(NETDEV_CHANGE): va: link becomes ready",
        "python3 (88) uses obsolete ecb(arc4) skcipher",
        "debug: nothing",
    ],
)
def test_what_is_none(line):
    assert splat.find([line]) is None


def recorded_splats():
    """Of a 6.12.117 with lockdep, KASAN and UBSAN, and defects in its bpf_spin_lock(); shortened."""
    text = (DATA / "splats-6.12.117-debug.txt").read_text()
    for block in text.split("## ")[1:]:
        head, _, log = block.partition("\n")
        kind, _, defect = head.partition(": ")
        yield pytest.param(kind, log.splitlines(), id=defect)


@pytest.mark.parametrize("kind, log", list(recorded_splats()))
def test_a_recorded_splat_has_its_name(kind, log):
    found = splat.find(log)
    assert found is not None and found.kind == kind
    above = log[: found.position]  # rulers and the like: it is named by its first line of words
    assert not re.search("[a-z]{3}", "".join(above).replace("cut here", ""))


def test_a_recorded_soft_lockup_starts_with_its_own_line():
    console = (DATA / "soft-lockup-6.12.117.txt").read_text()
    lost = why_lost(False, "the guest stopped or reset", "[ 1.0] harmless\n" + console)
    assert str(lost).startswith("soft lockup: [   23.164362] watchdog: BUG: soft lockup - CPU#2")
    assert lost.crashed and lost.console.startswith("[   23.164362]")
    assert "bpf_prog_5b7c36e3cec44007_hang" in lost.console


def test_why_a_guest_is_gone():
    panic = why_lost(False, "the kernel panicked: sysrq", f"boot\n{PANIC}\n")
    assert panic.crashed and "sysrq triggered crash" in str(panic) and PANIC in panic.console
    hang = why_lost(True, None, "boot\n")
    assert hang.crashed and "stopped answering" in str(hang)
    killed = why_lost(False, "QEMU was ended by SIGKILL", "boot\n")
    assert not killed.crashed and "killed from outside" in str(killed)
    reset = why_lost(False, "the guest stopped or reset (QEMU's exit status 0)", "boot\n")
    assert reset.crashed


@pytest.mark.parametrize("name", ["int3", "flags"])
def test_the_emulator_s_own_failure_convicts_no_kernel(name):
    console = (DATA / f"emulator-{name}-6.12.117.txt").read_text()
    emulated = why_lost(False, "the guest stopped or reset", console, "tcg")
    assert not emulated.crashed and "emulator" in str(emulated)
    assert why_lost(False, "the guest stopped or reset", console, "kvm").crashed


def test_a_double_fault_with_flags_that_a_cpu_has_convicts_the_kernel():
    console = (DATA / "emulator-flags-6.12.117.txt").read_text()
    console = console.replace("EFLAGS: 0fc2c242", "EFLAGS: 00010246")
    assert why_lost(False, "the guest stopped or reset", console, "tcg").crashed


def test_a_lockup_is_the_kernel_s_whatever_the_flags():
    console = (DATA / "emulator-flags-6.12.117.txt").read_text()
    console = "watchdog: BUG: soft lockup - CPU#2 stuck for 21s! [python3:78]\n" + console
    assert why_lost(False, "the guest stopped or reset", console, "tcg").crashed


def recorded(name):
    return (DATA / f"{name}-6.12.118.txt").read_text()


def test_a_silent_guest_s_backtraces_say_which_cpu_was_where():
    lost = why_lost(True, None, recorded("interrupts-off"))
    assert lost.crashed
    assert str(lost).endswith("a word: CPU 1 was in native_queued_spin_lock_slowpath")
    assert "bpf_prog_4693340318089e07_healthy" in lost.console
    named_by_its_tick = named(lost, Gone(True, {1: "initial_count = 7"}), 40.0)
    assert str(named_by_its_tick).startswith("hard lockup: CPU 1 took no timer interrupt")
    assert named_by_its_tick.console == lost.console and named(lost, Gone(True), 40.0) is lost


def test_a_stopped_agent_leaves_every_cpu_idle():
    lost = why_lost(True, None, recorded("stopped-agent"))
    assert lost.crashed and "every CPU was idle" in str(lost)


def test_backtraces_that_were_asked_for_are_no_splat():
    assert splat.find(recorded("busy-cpu").splitlines()) is None
    assert splat.at_work("boot\n") is None


def test_a_recorded_panic_is_told_by_its_own_line():
    lost = why_lost(False, "the guest stopped or reset", recorded("sysrq-crash"))
    assert lost.crashed and "panic: " in str(lost) and "sysrq triggered crash" in str(lost)


@pytest.mark.parametrize(
    "name, kind, blamed",
    [
        ("rcu-stall", "RCU stall", "hang"),
        ("hung-task", "hung task", "shmem_file_write_iter"),
    ],
)
def test_a_recorded_stall_is_told_by_its_own_line(name, kind, blamed):
    lost = why_lost(False, "the guest stopped or reset", recorded(name))
    assert lost.crashed and str(lost).startswith(f"{kind}: ") and blamed in lost.console


# Of a kernel 6.1 built with CONFIG_UNWINDER_GUESS whose CPU 0 waits for itself; shortened.
GUESSED = """\
NMI backtrace for cpu 0
CPU: 0 PID: 64 Comm: python3 Not tainted 6.1.192 #2
Call Trace:
 <NMI>
 ? dump_stack_lvl+0x33/0x42
 ? exc_nmi+0x9a/0xe9
 ? queued_spin_lock_slowpath+0x40/0x218
 </NMI>
 <IRQ>
 ? __bpf_spin_lock_irqsave+0x66/0x98
 </IRQ>
Sending NMI from CPU 0 to CPUs 1-3:
NMI backtrace for cpu 2 skipped: idling at native_safe_halt+0x13/0x14
"""


def test_a_cpu_that_prints_no_registers_was_at_work_all_the_same():
    assert splat.at_work(GUESSED) == {0: "__bpf_spin_lock_irqsave"}
    short = GUESSED.replace("__bpf_spin_lock_irqsave+", "")
    assert "does not name" in splat.at_work(short)[0]
