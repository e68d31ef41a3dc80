# SPDX-License-Identifier: GPL-2.0-only
"""The plugin from a test to its result, on a target that only plays one: also in xdist's workers."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

PLAYED = """
from contextlib import contextmanager
from harness.machines import choose, loss
from harness.provision import build

FACTS = {"release": "6.12.1-amd64", "version": "#1 SMP Debian 6.12.1-1", "cpus": 4, "headers": ""}


class Session:
    boot = {"seconds": 0.5}
    disturbed, waited = False, 0.0

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


def run(place, *options, tests=TESTS):
    (place / "played.py").write_text(PLAYED)
    (place / "test_count.py").write_text(tests)
    command = [sys.executable, "-m", "pytest", "-c", str(ROOT / "setup.cfg"), "test_count.py"]
    more = ["--results", "night", "--target", "qemu", "--loader", "libbpf", "-p", "played"]
    path = os.pathsep.join([str(ROOT), str(place)])
    done = subprocess.run(
        [*command, *more, "-p", "no:cacheprovider", *options],
        cwd=place,
        env={**os.environ, "PYTHONPATH": path, "SPINLOCK_CACHE": str(place / "cache")},
        capture_output=True,
        text=True,
        timeout=120,
    )
    lines = (place / "night" / "results.jsonl").read_text().splitlines()
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
