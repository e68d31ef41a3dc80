# SPDX-License-Identifier: GPL-2.0-only
"""The plugin from a test to its result, on a target that only plays one: also in xdist's workers."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PLAYED = """
from contextlib import contextmanager
from harness.machines import choose, loss
from harness.provision import build

FACTS = {"release": "6.12.1-amd64", "version": "#1 SMP Debian 6.12.1-1", "cpus": 4, "headers": ""}


class Session:
    boot = {"seconds": 0.5}
    disturbed, waited, queued = False, 0.0, 0.0

    fails = 0  # so many times at a command, which says how often it is unlucky

    def call(self, request, limit=0):
        if request.name == "command":
            Session.fails += 1
            if Session.fails <= int(request.input):
                raise loss.EmulatorFailed("Oops: int3")
        return {"facts": FACTS, "begin": [], "end": {"kernel_log": []}}.get(request.name)


class Target:
    name = "qemu"

    def __init__(self, settings, progress):
        self.kernel, self.cpus = settings.kernel, settings.cpus

    @contextmanager
    def session(self, warm=False):
        yield Session()

    def describe(self):
        return {"qemu": "QEMU emulator version 9"}

    def headers(self):
        return "/none"

    def close(self):
        pass


build.clang = lambda: "clang"
choose.open_target = Target
"""

TESTS = '''
"""What is tested."""

import pytest

RULE = "Counters count"


@pytest.mark.parametrize("driver", ["tc", "xdp"])
def test_count(guest, driver):
    """Each driver counts."""
    guest.check(driver == "tc", "200 runs", "none")
'''


UNLUCKY = """
from harness.guest import calls

RULE = "Counters count"


def test_unlucky(guest):
    guest.call(calls.Command(["unlucky"], "TIMES"))
    guest.check(True, "200 runs")
"""


INTERRUPTED = """
RULE = "Counters count"


def test_first(guest):
    guest.check(True, "200 runs")


def test_second(guest):
    raise KeyboardInterrupt
"""


SLOW = """
import time

from harness.judging.verdict import Kind, Verdict


def test_first(guest):
    guest.conclude(Verdict(Kind.PASS, "done"))


def test_second(guest):
    time.sleep(60)
"""


def prepared(place, *options, tests=TESTS):
    """Write the target and the tests; return the command that runs them, and its environment."""
    (place / "played.py").write_text(PLAYED)
    (place / "test_count.py").write_text(tests)
    command = [sys.executable, "-m", "pytest", "-c", str(ROOT / "setup.cfg"), "test_count.py"]
    more = ["--results", "night", "--target", "qemu", "--loader", "libbpf", "-p", "played"]
    path = os.pathsep.join([str(ROOT), str(place)])
    command += [*more, "-p", "no:cacheprovider", *options]
    return command, {**os.environ, "PYTHONPATH": path, "SPINLOCK_CACHE": str(place / "cache")}


def run(place, *options, tests=TESTS, terminal=False):
    command, env = prepared(place, *options, tests=tests)
    if terminal:
        command = ["script", "-qec", f"stty cols 80; {shlex.join(command)}", "/dev/null"]
    done = subprocess.run(command, cwd=place, env=env, capture_output=True, text=True, timeout=120)
    file = place / "night" / "results.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    return done, {(row["name"], row["column"]): row for row in map(json.loads, lines)}


def test_a_run_time_test_ends_in_a_result_that_is_kept_when_the_run_is_resumed(tmp_path):
    done, results = run(tmp_path, "--kernel", "6.12")
    assert done.returncode == 1, done.stdout + done.stderr
    passed, failed = results["count_tc", "6.12"], results["count_xdp", "6.12"]
    assert (passed["verdict"], failed["verdict"]) == ("PASS", "FAIL")
    assert failed["evidence"] == ["EXPECTED   200 runs", "UNEXPECTED none"]
    assert passed["rule"] == "Counters count" and passed["description"] == "Each driver counts."
    assert passed["where"].endswith("/test_count.py:9")
    assert passed["facts"]["qemu"] == "QEMU emulator version 9" and passed["facts"]["source_digest"]
    assert passed["repeat"] == "spinlock run count_tc --loader libbpf --kernel 6.12 --target qemu"
    assert "1 FAIL, 1 PASS on 6.12.1-amd64" in done.stdout
    assert (tmp_path / "night" / "report.html").exists()

    done, results = run(tmp_path, "--kernel", "6.12", "--resume", "--cpus", "2")
    assert "--cpus 2, was 4" in done.stdout and "2 results from before are kept" in done.stdout
    assert done.returncode == 5 and len(results) == 2, done.stdout


def test_workers_leave_the_same_results(tmp_path):
    pytest.importorskip("xdist")
    workers = ("-n", "2", "--dist", "loadgroup")
    done, results = run(tmp_path, "--kernel", "5.10", "--kernel", "6.12", *workers)
    assert done.returncode == 1, done.stdout + done.stderr
    assert {key: row["verdict"] for key, row in results.items()} == {
        (f"count_{driver}", kernel): verdict
        for kernel in ("5.10", "6.12")
        for driver, verdict in (("tc", "PASS"), ("xdp", "FAIL"))
    }
    assert "2 of 2 kernels in" in done.stdout


@pytest.mark.parametrize("times, verdict", [(1, "PASS"), (2, "ERROR")])
def test_what_the_emulator_failed_is_run_once_more(tmp_path, times, verdict):
    tests = UNLUCKY.replace("TIMES", str(times))
    done, results = run(tmp_path, "--kernel", "6.12", tests=tests)
    assert results["unlucky", "6.12"]["verdict"] == verdict, done.stdout + done.stderr
    assert len((tmp_path / "night" / "results.jsonl").read_text().splitlines()) == 1
    assert ("1 passed" if times == 1 else "1 failed") in done.stdout


@pytest.mark.parametrize("workers", [[], ["-n", "2", "--dist", "loadgroup"]], ids=["", "workers"])
def test_a_rule_has_a_line_and_a_failure_is_told_once_and_at_once(tmp_path, workers):
    if workers:
        pytest.importorskip("xdist")
    done, _ = run(tmp_path, "--kernel", "6.12", *workers)
    before, _, after = done.stdout.partition("= verdicts =")
    assert "FAIL count_xdp [libbpf] on 6.12.1-amd64: expected: 200 runs\n" in before
    assert "  UNEXPECTED none\n  repeat   spinlock run count_xdp --loader libbpf" in before
    (line,) = (line for line in before.splitlines() if "Counters count  " in line)
    assert line.split()[:7] == ["FAIL", "Counters", "count", "1", "FAIL,", "1", "PASS"]
    assert "UNEXPECTED" not in after and "short test summary" not in after
    table = [line.split()[0] for line in after.splitlines() if line.startswith("  count")]
    assert table == ["count_xdp", "count_tc"], "the worst comes first"
    last = done.stdout.rstrip().splitlines()[-1]
    assert "1 failed, 1 passed in" in last, done.stdout
    times = json.loads((tmp_path / "cache" / "times.json").read_text())
    assert sorted(times) == ["count_tc libbpf 6.12", "count_xdp libbpf 6.12"]


def test_where_there_is_no_terminal_lines_are_all_there_is(tmp_path):
    done, _ = run(tmp_path, "--kernel", "6.12", "-v")
    between = done.stdout.partition("collected")[2].partition("= verdicts =")[0].splitlines()[1:]
    shown = [line.split()[0] for line in between if line and not line.startswith(("  repeat", "="))]
    assert shown == ["PASS", "FAIL", "rule", "source", "EXPECTED", "UNEXPECTED", "FAIL", "FAIL"]
    assert "\033" not in done.stdout and "\r" not in done.stdout


def test_on_a_terminal_a_bar_tells_the_time_left_and_is_gone_at_the_end(tmp_path):
    (tmp_path / "cache").mkdir()
    known = {"count_tc libbpf 6.12": 100.0, "count_xdp libbpf 6.12": 3600.0}
    (tmp_path / "cache" / "times.json").write_text(json.dumps(known))
    done, _ = run(tmp_path, "--kernel", "6.12", terminal=True)
    before, _, after = done.stdout.partition("= verdicts =")
    assert "0 of 2 cases" in before and "about 61:" in before and "━" in before
    assert "1 failed" in after and "━" not in after and "left" not in after


def test_ctrl_c_in_a_test_keeps_the_verdicts_so_far_and_warns_of_nothing(tmp_path):
    done, results = run(tmp_path, "--kernel", "6.12", tests=INTERRUPTED)
    assert done.returncode == 2, done.stdout + done.stderr
    assert [name for name, _ in results] == ["first"]
    assert "1 PASS on 6.12.1-amd64" in done.stdout and "KeyboardInterrupt" in done.stdout
    assert "Warning" not in done.stdout + done.stderr


def test_workers_say_which_scenario_there_is_not(tmp_path):
    pytest.importorskip("xdist")
    done, _ = run(tmp_path, "--kernel", "6.12", "--scenario", "count_tb", "-n", "2")
    assert done.returncode == 4, done.stdout + done.stderr
    assert "There is no scenario 'count_tb' (did you mean 'count_tc'?)" in done.stdout + done.stderr


def test_of_many_scenarios_only_the_named_ones_are_made(tmp_path):
    verdicts = "def test_verdict(scenario, loader, verdict):\n    pass\n"
    look = "--kernel", "6.12", "--collect-only", "-q"
    named, _ = run(tmp_path, *look, "--scenario", "missing_unlock", tests=verdicts)
    assert "test_verdict[6.12-missing_unlock-libbpf]" in named.stdout
    assert "\n1 test collected" in named.stdout, "pytest made, and dropped, others"
    none, _ = run(tmp_path, *look, "--scenario", "count_tc", tests=verdicts + TESTS)
    assert "test_verdict" not in none.stdout and "test_count[6.12-libbpf-tc]" in none.stdout
    wrong, _ = run(tmp_path, *look, "--scenario", "missing_unlok", tests=verdicts)
    assert "(did you mean 'missing_unlock'?)" in wrong.stdout + wrong.stderr


@pytest.mark.parametrize("workers", [(), ("-n", "2", "--dist", "loadgroup")], ids=["one", "two"])
def test_ctrl_c_leaves_the_table_no_process_and_a_run_that_can_be_resumed(tmp_path, workers):
    if workers:
        pytest.importorskip("xdist")
    command, env = prepared(tmp_path, "--kernel", "6.12", *workers, tests=SLOW)
    pipe, file = subprocess.PIPE, tmp_path / "night" / "results.jsonl"
    with subprocess.Popen(
        command, cwd=tmp_path, env=env, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    ) as running:
        while not (file.exists() and file.read_text()):
            assert running.poll() is None, running.communicate()
            time.sleep(0.1)
        os.killpg(running.pid, signal.SIGINT)  # as a terminal does
        out, err = running.communicate(timeout=60)
    assert running.returncode == 2, out + err
    assert "1 PASS on 6.12.1-amd64" in out and "Traceback" not in out + err
    with pytest.raises(ProcessLookupError):
        os.killpg(running.pid, 0)
    quick = SLOW.replace("time.sleep(60)", 'guest.conclude(Verdict(Kind.PASS, "awake"))')
    again, results = run(tmp_path, "--kernel", "6.12", "--resume", *workers, tests=quick)
    assert again.returncode == 0, again.stdout + again.stderr
    assert [name for name, _ in results] == ["first", "second"]
