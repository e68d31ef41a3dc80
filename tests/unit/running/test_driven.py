# SPDX-License-Identifier: GPL-2.0-only
"""A run-time test's guest, on a session that only plays one: what becomes of what was checked."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.errors import UsageError
from harness.judging.verdict import Kind, Verdict
from harness.machines.loss import EmulatorFailed, GuestLost
from harness.machines.session import AgentError, KernelRefusal
from harness.provision import build
from harness.results.record import Case
from harness.running import driven, experiment, lacking
from harness.running.driven import Contest, Guest, Unmet
from harness.running.maps import Loaded
from harness.scenarios.programs import Programs
from harness.scenarios.scenario import KnownBug, Rule, SourceFile

FACTS = {"release": "6.12.1-amd64", "version": "#1 SMP Debian 6.12.1-1", "cpus": 4, "headers": ""}
LOCK_PATH = SourceFile(Path("/progs/lock_path.bpf.c"), (), ())
BUG = KnownBug('aaaaaaaaaaaa ("bpf: mend it")', "<6.13")
CASE = Case(
    name="hooks_xdp",
    loader="libbpf",
    rule=Rule("Hooks", "Every hook counts.", ("bbbbbbbbbbbb",), "bpf_progs/a.bpf.c:1"),
    where="tests/lock/serialization/test_hooks.py:12",
    description="Each hook counts.",
    sources={"source": "tests/lock/serialization/test_hooks.py"},
    repeat="spinlock run hooks_xdp --loader libbpf",
)


class Session:
    boot = {"seconds": 0.5}

    def __init__(self, **answers):
        self.disturbed, self.waited, self.queued = False, 0.0, 0.0
        self._answers = {
            "facts": FACTS,
            "begin": [],
            "end": {"kernel_log": []},
            "has": {"bpf_res_spin_lock": False},
            **answers,
        }

    def call(self, request, limit=0):
        answer = self._answers[request.name]
        if isinstance(answer, Exception):
            raise answer
        return answer


def guest(session=None, case=CASE, name="qemu", also=None, contest=None):
    def start(words):
        target = SimpleNamespace(
            name=name,
            kernel="6.12",
            cpus=4,
            describe=lambda: {"qemu": "9", "also": words},
            headers=lambda: Path("/none"),
        )
        return target, (also if words else session) or Session()

    programs = Programs(Path("/progs"), (SourceFile(Path("/progs/a.bpf.c"), (), ()), LOCK_PATH))
    return Guest(case, start, programs, contest)


def test_what_held_is_a_pass_with_its_evidence():
    held = guest()
    held.check(True, "200 runs")
    held.conclude(Verdict(Kind.PASS, "all ran", ("of 4 CPUs",)), runs=200)
    result = held.finish(None)
    assert (result.verdict, result.reason) == (Kind.PASS, "all ran")
    assert result.evidence == ("MATCHED    200 runs", "of 4 CPUs")
    assert result.observation.measurements == {"runs": 200}
    assert (result.column, result.kernel, result.rule) == ("6.12", "6.12.1-amd64", "Hooks")
    assert (
        result.facts["source"] == "tests/lock/serialization/test_hooks.py"
        and result.facts["qemu"] == "9"
    )
    assert result.seconds["boot"] == 0.5


def test_what_does_not_hold_fails_and_disturbs_the_guest():
    session = Session()
    failing = guest(session)
    failing.check(True, "the first")
    failing.check(False, "the second", "another")
    failing.conclude(Verdict(Kind.PASS, "all ran"))
    result = failing.finish(None)
    assert (result.verdict, result.reason) == (Kind.FAIL, "expected: the second")
    assert result.evidence[1:] == ("EXPECTED   the second", "UNEXPECTED another")
    assert session.disturbed


@pytest.mark.parametrize(
    "holds, kernels, kind",
    [
        (False, "<6.13", Kind.KNOWN),
        (True, "<6.13", Kind.FAIL),  # the range is wrong
        (False, "<6.12", Kind.FAIL),
        (True, "<6.12", Kind.PASS),
    ],
)
def test_a_bug_on_record_must_be_there(holds, kernels, kind):
    buggy = guest()
    buggy.check(holds, "no copy is torn", "3 torn", KnownBug(BUG.commit, kernels))
    result = buggy.finish(None)
    assert result.verdict is kind, result.reason
    assert result.known_bugs == ((BUG.commit, kernels),)


def test_without_power_a_bug_on_record_need_not_show():
    weak = guest()
    weak.check(True, "no copy is torn", bug=BUG)
    weak.conclude(Verdict(Kind.INCONCLUSIVE, "the CPUs did not meet"))
    assert weak.finish(None).verdict is Kind.INCONCLUSIVE


@pytest.mark.parametrize(
    "error, kind, reason",
    [
        (None, Kind.ERROR, "the test checked nothing"),
        (AssertionError("one\ntwo"), Kind.FAIL, "one"),
        (ValueError("odd"), Kind.ERROR, "ValueError: odd"),
        (KernelRefusal({"message": "EPERM", "errno": "EPERM"}), Kind.FAIL, "refused: EPERM"),
        (GuestLost("it panicked", True, "Kernel panic"), Kind.CRASH, "it panicked"),
    ],
)
def test_how_a_test_ended_decides(error, kind, reason):
    result = guest().finish(error)
    assert result.verdict is kind
    assert reason in result.reason


def test_a_guest_lost_at_the_very_end_is_a_crash():
    session = Session(end=GuestLost("it hung", True, "watchdog"))
    checked = guest(session)
    checked.check(True, "200 runs")
    assert checked.finish(None).verdict is Kind.CRASH
    assert session.disturbed


def test_a_splat_beats_what_held():
    session = Session(end={"kernel_log": ["BUG: spinlock recursion on CPU#0, a/1"]})
    checked = guest(session)
    checked.check(True, "200 runs")
    assert checked.finish(None).verdict is Kind.CRASH


def test_a_splat_that_ended_the_agent_is_the_kernel_s():
    splat = ["BUG: scheduling while atomic: python3/73/0x00000002"]
    ended = AgentError("the agent's process in the guest ended: signal 11", splat)
    assert guest(Session(end=ended)).finish(ended).verdict is Kind.CRASH
    quiet = AgentError("the agent's process in the guest ended: signal 11", [])
    assert guest(Session(end=quiet)).finish(quiet).verdict is Kind.ERROR


def test_what_another_test_left_behind_is_not_blamed_on_this_one():
    session = Session(begin=["BUG: spinlock recursion on CPU#0, a/1"])
    with pytest.raises(AgentError, match="a test before this one left behind: BUG: spinlock"):
        guest(session)
    assert session.disturbed


def test_what_the_kernel_is_too_old_for_is_skipped():
    lacking = guest()
    with pytest.raises(Unmet) as unmet:
        lacking.needs("bpf_res_spin_lock", "6.15")
    assert lacking.finish(unmet.value).verdict is Kind.SKIP


@pytest.mark.parametrize("smp, kind", [("n", Kind.SKIP), ("y", Kind.ERROR)])
def test_two_cpus_are_needed(smp, kind):
    guest().needs_two_cpus("one CPU never meets another")  # it has four
    one = {**FACTS, "cpus": 1, "command_line": "quiet"}
    alone = guest(Session(facts=one, options={"CONFIG_SMP": smp}))
    with pytest.raises(Unmet) as unmet:
        alone.needs_two_cpus("one CPU never meets another")
    assert alone.finish(unmet.value).verdict is kind


def test_a_kernel_with_every_option_is_asked_for_no_feature():
    options = {"CONFIG_UNWINDER_ORC": "y", "CONFIG_BPF_JIT": "y"}
    assert lacking.probed(Session(has=AssertionError("asked")), options, Path("/none")) == options


def test_bcc_without_headers_loads_nothing():
    with pytest.raises(Unmet):
        guest(case=replace(CASE, loader="bcc")).load("a.bpf.c", ["count"])


def test_a_file_that_is_not_there_is_named():
    with pytest.raises(UsageError, match="no C file b.bpf.c in /progs"):
        guest().load("b.bpf.c", ["count"])


def test_a_guest_booted_with_other_words_is_the_one_that_is_judged():
    complaint = {"kernel_log": ["[    1.0] BUG: scheduling while atomic: python3/65/0x00000002"]}
    other = guest(also=Session(end=complaint))
    other.boot_with("clearcpuid=hypervisor")
    other.check(True, "it counts")
    result = other.finish(None)
    assert result.verdict is Kind.CRASH and result.facts["also"] == "clearcpuid=hypervisor"


def test_a_machine_that_is_not_ours_to_boot_skips_what_wants_to():
    running = guest(name="vagrant")
    with pytest.raises(Unmet) as raised:
        running.boot_with("clearcpuid=hypervisor")
    result = running.finish(raised.value)
    assert result.verdict is Kind.SKIP and "--target vagrant boots none" in result.reason


def test_a_result_names_what_was_loaded_and_what_made_it(monkeypatch):
    def load(session, file, programs, loader, include, unit):
        source = build.Source(file.path.name, unit, loader, f"object {unit}".encode(), 0.0)
        return Loaded(session, source, lambda: source.content)

    monkeypatch.setattr(experiment, "load", load)
    monkeypatch.setattr(build, "compiler", lambda: "clang version 14.0.6")
    loading = guest()
    loading.load("a.bpf.c", ["count"])
    loading.load("a.bpf.c", ["count"], "TWO")
    loading.load("a.bpf.c", ["other"], "TWO")  # the same object
    loading.check(True, "it counts")
    result = loading.finish(None)
    assert result.compiler == "clang version 14.0.6"
    one, two = result.builds
    assert (one.file, one.unit, two.unit) == ("a.bpf.c", "", "TWO") and one.digest != two.digest
    session = Session(facts={**FACTS, "headers": True, "bcc": "0.31.0"})
    through_bcc = guest(session, replace(CASE, loader="bcc"))
    through_bcc.load("a.bpf.c", ["count"])
    assert through_bcc.finish(None).compiler == "bcc 0.31.0"
    nothing = guest().finish(None)
    assert (nothing.compiler, nothing.builds) == ("", ())


def test_a_guest_that_its_emulator_lost_is_told_from_others():
    assert guest().finish(EmulatorFailed("Oops: int3")).observation.emulator_failed
    lost = guest().finish(GuestLost("it panicked", True, "Kernel panic")).observation
    assert lost.lost_is_crash and not lost.emulator_failed


@pytest.fixture
def took(monkeypatch):
    """Give a function that says by which path a guest's CPUs take the lock, and loads nothing."""
    monkeypatch.setattr(experiment, "load", lambda *of: SimpleNamespace(source=None))
    monkeypatch.setattr(driven, "made", lambda *of: ("clang", ()))

    def by(path):
        monkeypatch.setattr(driven.observed_path, "observe", lambda *of: path)

    return by


@pytest.mark.parametrize(
    "path, kind",
    [("queued", Kind.PASS), ("test-and-set", Kind.INCONCLUSIVE), ("", Kind.INCONCLUSIVE)],
)
def test_what_was_asked_for_on_a_path_that_was_not_taken_shows_nothing(took, path, kind):
    took(path)
    running = guest(contest=Contest("queued"))
    running.load("a.bpf.c", [])
    running.check(True, "all is counted")
    result = running.finish(None)
    assert (result.verdict, result.lock_path) == (kind, path)


def test_a_machine_that_is_not_ours_to_boot_has_the_path_that_it_has(took):
    took("test-and-set")
    with pytest.raises(Unmet) as raised:
        guest(name="vagrant", contest=Contest("queued")).load("a.bpf.c", [])
    assert raised.value.verdict.kind is Kind.SKIP
    took("queued")
    guest(name="local", contest=Contest("queued")).load("a.bpf.c", [])


def test_the_path_matters_only_where_cpus_contend(took):
    took("queued")
    running = guest()
    running.load("a.bpf.c", [])
    assert running.lock_path == ""
