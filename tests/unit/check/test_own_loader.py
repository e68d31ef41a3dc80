# SPDX-License-Identifier: GPL-2.0-only
"""The user's own loader: what is carried, what is refused at once, and what its end means."""

import json
import stat
from contextlib import contextmanager
from pathlib import Path

import pytest
from packaging.version import Version

from harness.__main__ import main
from harness.check import own_loader, report, report_json, sarif
from harness.check.answer import Answer
from harness.check.examine import OnKernel
from harness.errors import SetupError, UsageError

LOG = """\
libbpf: prog 'count': BPF program load failed: Invalid argument
libbpf: prog 'count': -- BEGIN PROG LOAD LOG --
; return 1; @ prog.bpf.c:17
12: (95) exit
bpf_spin_unlock is missing
processed 12 insns (limit 1000000) max_states_per_insn 0 total_states 1 peak_states 1 mark_read 1
-- END PROG LOAD LOG --
libbpf: failed to load object 'prog.o'
my-loader: cannot go on
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    loader = tmp_path / "my-loader"
    loader.write_text("#!/bin/sh\n")
    loader.chmod(loader.stat().st_mode | stat.S_IXUSR)
    (tmp_path / "prog.o").write_bytes(b"object")
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/libmine.so").write_bytes(b"library")
    return tmp_path


def ran(status=0, output="", loaded=1, left=(), **more):
    facts = {"status": status, "output": output, "missing": [], "loaded": loaded, "seconds": 1.5}
    return {**facts, "left": list(left), "kernel_log": [], **more}


def judged(*arguments, **more):
    return own_loader.judge(ran(*arguments, **more), Version("6.12"), 30.0)


def test_what_the_command_names_and_what_is_given_is_carried(place):
    found = own_loader.open_loader("./my-loader prog.o --level 3", [Path("lib")], 30.0)
    assert set(found.files) == {"my-loader", "prog.o", "lib/libmine.so"}
    assert found.executable == ("my-loader",) and found.name == "my-loader"
    alone = own_loader.open_loader("bpftool prog load prog.o /sys/fs/bpf/x", [], 30.0)
    assert set(alone.files) == {"prog.o"} and alone.name == "bpftool"


@pytest.mark.parametrize(
    "command, more, seconds, words",
    [
        ("", [], 30, "--command is empty"),
        ("./my-loader 'x", [], 30, "No closing quotation"),
        ("./gone", [], 30, "Cannot read gone .No such file"),
        ("./lib", [], 30, "lib is no file"),
        ("./prog.o", [], 30, "prog.o cannot be run: chmod [+]x ./prog.o"),
        ("./my-loader", ["/etc/passwd"], 30, "/etc/passwd is not below this directory"),
        ("./my-loader", ["gone.so"], 30, "Cannot read gone.so"),
        ("./my-loader", [], 0, "--time-limit 0: 1 to 600 seconds"),
    ],
)
def test_a_command_that_cannot_be_carried_is_a_mistake(place, command, more, seconds, words):
    with pytest.raises(UsageError, match=words):
        own_loader.open_loader(command, [Path(each) for each in more], seconds)


@pytest.mark.parametrize(
    "given, words",
    [
        (["--command", "./my-loader", "prog.o"], "--command is instead of a file"),
        (["--command", "./my-loader", "--run"], "--run does not go with --command"),
        (["--command", "./my-loader", "-D", "X=1"], "-D does not go with --command"),
        (["prog.o", "--with", "lib"], "--with goes with --command"),
        (["prog.o", "--time-limit", "3"], "--time-limit goes with --command"),
        ([], "There is no file to check"),
    ],
)
def test_options_that_do_not_go_together(place, capsys, given, words):
    assert main(["check", *given]) == 2
    assert words in capsys.readouterr().err


def test_files_too_large_for_a_guest(place, monkeypatch):
    monkeypatch.setattr(own_loader, "MOST_BYTES", 5)
    with pytest.raises(UsageError, match="too large for a guest"):
        own_loader.open_loader("./my-loader prog.o", [], 30.0)


def test_an_exit_code_of_0_counts_if_something_was_loaded():
    assert judged().good and "the kernel took 1 program meanwhile" in judged().told
    assert judged(left=["count"]).told.endswith("with programs in the kernel: count")
    idle = judged(loaded=0)
    assert idle.refusal.name == "loader-idle" and not idle.good


def test_a_daemon_counts_by_what_it_holds():
    held = judged(None, left=["count", "forget"])
    assert held.good
    assert held.told == "it still ran after 30 s, with programs in the kernel: count, forget"
    assert judged(None, loaded=3).refusal.name == "loader-idle", "probes that are gone"


def test_a_failure_is_explained_by_the_verifier_s_log_among_its_words():
    failed = judged(1, LOG)
    assert failed.refusal.name == "missing-unlock" and failed.refusal.where == "prog.bpf.c:17"
    assert failed.refusal.line == "bpf_spin_unlock is missing"
    assert failed.told == "it ended with exit code 1" and failed.log == LOG


@pytest.mark.parametrize(
    "status, output, line",
    [
        (3, "no config\n\n", "it ended with exit code 3: no config"),
        (3, "", "it ended with exit code 3: it said nothing"),
        (-11, "", "it was ended by SIGSEGV: it said nothing"),
        (137, "", "it was ended by SIGKILL: it said nothing"),
        (
            127,
            "sh: 1: nosuch: not found\n",
            "it ended with exit code 127: sh: 1: nosuch: not found",
        ),
    ],
)
def test_a_failure_without_a_log_is_told_by_its_last_words(status, output, line):
    assert (judged(status, output).refusal.name, judged(status, output).refusal.line) == (
        "loader",
        line,
    )


def test_a_library_that_the_guest_lacks():
    class Guests:
        @contextmanager
        def session(self, warm=False):
            yield self

        def call(self, request, note=None, limit=0):
            if request.name == "facts":
                return {"release": "6.12.1", "version": ""}
            return ran(None, missing=["libmine.so => not found"])

    loader = own_loader.open_loader("true", [], 30.0)
    with pytest.raises(
        SetupError, match="lacks what true needs .libmine.so => not found.: carry it"
    ):
        own_loader.examine_loader(Guests(), "6.12", loader)


def test_a_complaint_of_the_kernel_is_no_success():
    said = ["WARNING: CPU: 1 PID: 2 at kernel/x.c:3 f+0x4/0x5"]
    assert not judged(kernel_log=said).good


def test_every_form_of_the_report_tells_how_it_ended(place):
    loader = own_loader.open_loader("./my-loader prog.o", [], 30.0)
    rows = tuple(OnKernel(k, f"{k}.1", {"my-loader": judged(1, LOG)}) for k in ("6.1", "6.12"))
    answer = Answer(loader, loader.programs, rows, None, ("6.12",))
    text = report.terminal(answer)
    assert "./my-loader prog.o: the judge is this loader; files carried: my-loader, prog.o" in text
    assert "6.1, 6.12: it ended with exit code 1" in text
    assert "* 6.1, 6.12: it ended with exit code 1" in report.markdown(answer)
    assert "cannot go on" in report.terminal(answer, everything=True) and "go on" not in text
    data = json.loads(json.dumps(report_json.to_json(answer)))
    assert data["kernels"][0]["programs"]["my-loader"]["told"] == "it ended with exit code 1"
    result = sarif.to_sarif([(Path("my-loader"), answer)], "1")["runs"][0]["results"][0]
    assert result["ruleId"] == "missing-unlock"
