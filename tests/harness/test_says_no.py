# SPDX-License-Identifier: GPL-2.0-only
"""Runs of the harness on cases that must not pass: each is blamed correctly, and the rest goes on."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
LIMIT = 600


def harness(directory, *arguments):
    """Return the command of a separate run on the files of tests/harness/no."""
    return [
        *(sys.executable, "-m", *arguments),
        *("--programs", str(HERE / "no"), "--results", str(directory), "--loader", "libbpf"),
        *("--target", "qemu"),
    ]


def verdicts(directory):
    lines = (directory / "results.jsonl").read_text().splitlines()
    return {result["name"]: result for result in map(json.loads, lines)}


def run(directory, *arguments):
    done = subprocess.run(
        harness(directory, *arguments), cwd=ROOT, capture_output=True, text=True, timeout=LIMIT
    )
    return done, verdicts(directory)


@pytest.fixture(scope="module")
def annotated(tmp_path_factory):
    """The annotated programs of tests/harness/no, all in one run."""
    names = ["healthy", "expected_to_load", "expected_to_be_refused", "wrong_text", "hang"]
    names += ["wrong_return_value", "refused_like_its_twin", "does_not_compile"]
    return run(tmp_path_factory.mktemp("annotated"), "harness", "run", *names)


@pytest.fixture(scope="module")
def provoked(tmp_path_factory):
    """The tests of tests/harness/no/provoked.py, except those with a test of their own here."""
    which = "not killed and not irqsave"
    arguments = ["pytest", "-c", "setup.cfg", "tests/harness/no/provoked.py", "-k", which]
    return run(tmp_path_factory.mktemp("provoked"), *arguments)


@pytest.mark.xdist_group("annotated")
@pytest.mark.parametrize(
    "name, kind, reason",
    [
        ("healthy", "PASS", "loaded, returned 1"),
        ("expected_to_load", "FAIL", "expected: loads"),
        ("expected_to_be_refused", "FAIL", "expected: refused at prog_load"),
        ("wrong_text", "FAIL", "a text of no kernel"),
        ("wrong_return_value", "FAIL", "returned 1"),
        ("refused_like_its_twin", "INCONCLUSIVE", "its legal twin expected_to_load did not pass"),
        ("does_not_compile", "ERROR", "no_such_name"),
        ("hang", "CRASH", "soft lockup|RCU stall"),
    ],
)
def test_annotated(annotated, name, kind, reason):
    result = annotated[1][name]
    assert result["verdict"] == kind and re.search(reason, result["reason"]), result["reason"]


@pytest.mark.xdist_group("annotated")
def test_the_failing_run_says_so_and_how_to_repeat_it(annotated):
    done, _ = annotated
    assert done.returncode == 1
    for line in ("MATCHED", "EXPECTED", "UNEXPECTED", "repeat   spinlock run wrong_text"):
        assert line in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.xdist_group("annotated")
def test_a_hang_leaves_its_console(annotated):
    console = annotated[1]["hang"]["observation"]["console"]
    assert "Kernel panic" in console
    assert re.search(r"bpf_prog_\w+_hang\+", console), "the program's own frame must be there"


@pytest.mark.xdist_group("provoked")
@pytest.mark.parametrize(
    "name, kind, reason",
    [
        ("before", "PASS", "1 checks held"),
        ("panic", "CRASH", "sysrq triggered crash"),
        ("warning", "CRASH", "WARN in the kernel log"),
        ("silence", "CRASH", "stopped answering"),
        ("stopped_agent", "CRASH", "stopped answering"),
        ("interrupts_off", "CRASH", r"hard lockup: CPU \d took no timer interrupt"),
        ("stuck_in_tick", "CRASH", r"hard lockup: CPU [\d, ]+ took no timer interrupt"),
        ("stuck_in_queue", "CRASH", r"CPU \d's node 0 waits behind CPU \d's node 0"),
        ("busy_cpu", "CRASH", "CPU 2 no longer schedules tasks"),
        ("late_warning", "CRASH", "WARN in the kernel log"),
        ("dead_agent", "ERROR", "process in the guest ended: signal 9"),
        ("out_of_memory", "ERROR", "signal 9: .*[Oo]ut of memory: Killed process"),
        ("rcu_stall", "CRASH", "RCU stall"),
        ("hung_task", "CRASH", "hung task"),
        ("checks_nothing", "ERROR", "checked nothing"),
        ("assertion", "FAIL", "there must be no CPU"),
        ("unloadable", "FAIL", "the kernel refused"),
        ("after", "PASS", "1 checks held"),
    ],
)
def test_provoked(provoked, name, kind, reason):
    result = provoked[1][name]
    assert result["verdict"] == kind and re.search(reason, result["reason"]), result["reason"]


@pytest.mark.parametrize(
    "where, reason",
    [
        ("tc", "soft lockup|RCU stall"),
        # The CPU that waits may be the one that keeps the time for the kernel's own watchdogs.
        ("timer", "hard lockup|RCU stall|stopped answering"),
    ],
)
def test_a_lock_without_irqsave_is_a_crash_of_the_case(tmp_path, where, reason):
    which = f"irqsave and {where}-"
    arguments = ["pytest", "-c", "setup.cfg", "tests/harness/no/provoked.py", "-k", which]
    _, seen = run(tmp_path, *arguments)
    (result,) = seen.values()
    assert result["verdict"] == "CRASH", result["reason"]
    assert re.search(reason, result["reason"]), result["reason"]
    # What others on the host took from the guest was added to the limit, and is in the result.
    assert result["seconds"]["case"] - result["seconds"]["waited"] < 60


@pytest.mark.xdist_group("provoked")
@pytest.mark.parametrize("name", ["interrupts_off", "stuck_in_tick"])
def test_a_lockup_that_no_watchdog_sees_is_found_within_a_minute(provoked, name):
    result = provoked[1][name]
    assert result["seconds"]["case"] - result["seconds"]["waited"] < 60
    assert "NMI" in result["observation"]["console"], "it shows what the CPUs were at"


def test_a_kernel_that_panics_at_boot_is_a_set_up_error_in_one_sentence(tmp_path):
    done = subprocess.run(
        harness(tmp_path, "harness", "run", "healthy", "--append", "rdinit=/none init=/none"),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert done.returncode == 4
    assert "Traceback" not in done.stdout + done.stderr
    reason = verdicts(tmp_path)["healthy"]["reason"]
    assert "the kernel panicked" in reason and "\n" not in reason


def test_a_killed_guest_is_nobody_s_crash(tmp_path):
    arguments = [
        "pytest",
        "-c",
        "setup.cfg",
        "tests/harness/no/provoked.py",
        "-k",
        "killed or after",
        "-s",
    ]
    with subprocess.Popen(
        harness(tmp_path, *arguments), cwd=ROOT, stdout=subprocess.PIPE
    ) as process:
        guest = wait_for_guest(process.pid)
        os.kill(guest.pid, signal.SIGKILL)
        process.communicate(timeout=LIMIT)
    seen = verdicts(tmp_path)
    assert seen["wait_to_be_killed"]["verdict"] == "ERROR"
    assert "killed from outside" in seen["wait_to_be_killed"]["reason"]
    assert seen["after"]["verdict"] == "PASS"


def test_a_killed_run_keeps_what_it_had_and_leaves_no_guest(tmp_path):
    arguments = [
        "pytest",
        "-c",
        "setup.cfg",
        "tests/harness/no/provoked.py",
        "-k",
        "before or killed",
    ]
    with subprocess.Popen(
        harness(tmp_path, *arguments), cwd=ROOT, stdout=subprocess.PIPE
    ) as process:
        guest = wait_for_guest(process.pid)
        process.kill()
    guest.wait(timeout=LIMIT)  # raises when the guest outlives its run
    assert verdicts(tmp_path)["before"]["verdict"] == "PASS"


def wait_for_guest(pid):
    """Return the QEMU process of the guest that waits to be killed."""
    seen = set()
    while True:
        for child in psutil.Process(pid).children(recursive=True):
            console = next((f.path for f in open_files(child) if f.path.endswith("/console")), None)
            if console and "waiting to be killed" in Path(console).read_text(errors="replace"):
                return child
            seen.add(child.pid)


def open_files(process):
    try:
        return process.open_files()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return []
