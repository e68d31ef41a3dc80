# SPDX-License-Identifier: GPL-2.0-only
"""Who is blamed when a guest is lost or complains late; a scripted session stands for the guest."""

from contextlib import contextmanager
from itertools import groupby
from pathlib import Path

import pytest

from harness.judging.verdict import Kind
from harness.machines.loss import EmulatorFailed, GuestLost
from harness.machines.session import AgentError, KernelRefusal
from harness.provision import build
from harness.running.observe import Observer
from harness.scenarios import annotation
from harness.scenarios.programs import Programs, order

FACTS = {"release": "6.12.117", "version": ""}
WARN = "WARNING: CPU: 1 PID: 213 at kernel/bpf/btf.c:3924 btf_parse_fields+0x5b6/0x6d0"
CASES = {
    s.name: s
    for s in annotation.read(
        "\n".join(
            f'SEC("tc") __rule("r") __success\nint {name}(struct __sk_buff *skb) {{}}'
            for name in ("first", "second", "third")
        ),
        Path("x.bpf.c"),
    ).scenarios
}


def ended(name, *log):
    return {"end": name, "observation": {"stage": None, "kernel_log": list(log)}}


class ScriptedTarget:
    """Gives sessions that play one script each: events, or an exception to raise."""

    name, kernel, cpus = "scripted", "6.12", 4

    def __init__(self, *scripts, late=None):
        self.scripts, self.late, self.asked = list(scripts), late or [], []
        self.told = []  # the events that somebody waited for

    def headers(self):
        return Path("include")

    def describe(self):
        return {"accelerator": "none"}

    @contextmanager
    def session(self, warm=False):
        self.boot, self.disturbed = {"kind": "restored", "seconds": 0.1}, False
        yield self

    def call(self, request):
        if request.name == "facts":
            return FACTS
        if request.name == "options":
            return {}
        if request.name == "has":
            return {name: False for name in request.names}
        if request.name == "late":
            if isinstance(self.late, Exception):
                raise self.late
            return self.late
        raise AssertionError(request.name)

    def events(self, request):
        self.asked.append([case.name for case in request.cases])
        for step in self.scripts.pop(0):
            if isinstance(step, Exception):
                raise step
            self.told.append(step)
            yield step


@pytest.fixture(autouse=True)
def no_compiler(monkeypatch):
    made = build.Source("x.bpf.c", "", "libbpf", b"", 0.0)
    monkeypatch.setattr(build, "source", lambda *arguments: made)
    monkeypatch.setattr(build, "compiler", lambda: "clang version 14.0.6")


def kinds(target):
    observer = Observer(target, list(CASES.values()))
    judged = {name: observer.judge(CASES[name], "libbpf", CASES.values())[0] for name in CASES}
    return [verdict.kind for verdict in judged.values()]


def test_one_request_serves_all():
    script = [{"begin": n} if i % 2 == 0 else ended(n) for n in CASES for i in range(2)]
    target = ScriptedTarget(script)
    assert kinds(target) == [Kind.PASS] * 3
    assert target.asked == [["first", "second", "third"]]


def test_a_case_whose_needs_are_not_met_never_reaches_the_guest():
    text = 'SEC("tc") __rule("r") __needs(bpf_new, "9.0") __success\nint fourth(void *ctx) {}'
    fourth = annotation.read(text, Path("x.bpf.c")).scenarios[0]
    target = ScriptedTarget([{"begin": "first"}, ended("first")])
    observer = Observer(target, [CASES["first"], fourth])
    verdict, _ = observer.judge(fourth, "libbpf", [CASES["first"]])
    assert verdict.kind is Kind.SKIP and "bpf_new (since v9.0)" in verdict.reason
    assert target.asked == [["first"]]


def test_the_case_that_had_begun_is_blamed_and_the_rest_goes_on():
    panic = GuestLost("panic", crashed=True, console="Kernel panic")
    target = ScriptedTarget(
        [{"begin": "first"}, ended("first"), {"begin": "second"}, panic],
        [{"begin": "third"}, ended("third")],
    )
    assert kinds(target) == [Kind.PASS, Kind.CRASH, Kind.PASS]
    assert target.asked == [["first", "second", "third"], ["third"]]


def test_a_guest_that_is_lost_before_anything_began_costs_one_case_each_time():
    lost = GuestLost("gone", crashed=False, console="")
    target = ScriptedTarget([lost], [lost], [{"begin": "third"}, ended("third")])
    assert kinds(target) == [Kind.ERROR, Kind.ERROR, Kind.PASS]


def test_the_emulator_may_fail_a_case_once():
    lost = EmulatorFailed("Oops: int3")
    begun = [{"begin": "first"}, ended("first"), {"begin": "second"}, lost]
    rest = [{"begin": "second"}, ended("second"), {"begin": "third"}, ended("third")]
    target = ScriptedTarget(begun, rest)
    assert kinds(target) == [Kind.PASS] * 3
    assert target.asked == [["first", "second", "third"], ["second", "third"]]
    target = ScriptedTarget(begun, begun[2:], rest[2:])
    assert kinds(target) == [Kind.PASS, Kind.ERROR, Kind.PASS]


def test_after_a_splat_the_rest_goes_on_in_another_guest():
    target = ScriptedTarget(
        [{"begin": "first"}, ended("first", WARN), {"begin": "second"}, ended("second")],
        [{"begin": "second"}, ended("second", WARN)],
        [{"begin": "third"}, ended("third")],
    )
    assert kinds(target) == [Kind.CRASH, Kind.CRASH, Kind.PASS]
    assert target.asked == [["first", "second", "third"], ["second", "third"], ["third"]]


@pytest.mark.parametrize("log, kind", [([WARN], Kind.CRASH), ([], Kind.ERROR)])
def test_a_process_that_ended_costs_the_case_that_had_begun(log, kind):
    ended_agent = AgentError("the agent's process in the guest ended: signal 11", log)
    target = ScriptedTarget(
        [{"begin": "first"}, ended("first"), {"begin": "second"}, ended_agent],
        [{"begin": "third"}, ended("third")],
    )
    assert kinds(target) == [Kind.PASS, kind, Kind.PASS]


def test_what_the_agent_cannot_do_is_an_error_of_all_that_are_left():
    defect = AgentError("KeyError: 'second'")
    target = ScriptedTarget([{"begin": "first"}, ended("first"), {"begin": "second"}, defect])
    assert kinds(target) == [Kind.PASS, Kind.ERROR, Kind.ERROR]
    assert len(target.asked) == 1


def test_a_guest_that_is_lost_before_a_request_returns_is_blamed_on_its_last_case():
    script = [{"begin": n} if i % 2 == 0 else ended(n) for n in CASES for i in range(2)]
    panic = GuestLost("panic", crashed=True, console="Kernel panic")
    assert kinds(ScriptedTarget([*script, panic])) == [Kind.PASS, Kind.PASS, Kind.CRASH]


def test_a_late_splat_belongs_to_the_case_before():
    target = ScriptedTarget(
        [{"begin": "first"}, ended("first"), {"begin": "second"}, {"late": [WARN]}],
        [{"begin": "second"}, ended("second"), {"begin": "third"}, ended("third")],
    )
    assert kinds(target) == [Kind.CRASH, Kind.PASS, Kind.PASS]
    assert target.asked == [["first", "second", "third"], ["second", "third"]]


def test_a_splat_of_nobody_costs_no_guest_before_a_case_is_over():
    script = [{"late": [WARN]}, {"begin": "first"}, ended("first")]
    target = ScriptedTarget(script, [{"begin": "second"}, ended("second")], [ended("third")])
    assert kinds(target) == [Kind.PASS] * 3


def test_a_splat_after_the_last_case_belongs_to_it():
    script = [{"begin": n} if i % 2 == 0 else ended(n) for n in CASES for i in range(2)]
    assert kinds(ScriptedTarget(script, late=[WARN])) == [Kind.PASS, Kind.PASS, Kind.CRASH]


def test_a_guest_that_is_lost_after_the_last_case_is_blamed_on_it():
    script = [{"begin": n} if i % 2 == 0 else ended(n) for n in CASES for i in range(2)]
    panic = GuestLost("panic", crashed=True, console="Kernel panic")
    assert kinds(ScriptedTarget(script, late=panic)) == [Kind.PASS, Kind.PASS, Kind.CRASH]


def test_a_kernel_log_that_cannot_be_read_at_the_end_is_an_error_of_the_last_case():
    script = [{"begin": n} if i % 2 == 0 else ended(n) for n in CASES for i in range(2)]
    unreadable = KernelRefusal({"message": "Broken pipe", "errno": "EPIPE"})
    assert kinds(ScriptedTarget(script, late=unreadable)) == [Kind.PASS, Kind.PASS, Kind.ERROR]


def test_a_file_that_does_not_compile_is_an_error_with_the_compilers_words(monkeypatch):
    def refuse(*arguments):
        raise build.CompileError("x.bpf.c:3:9: error: use of undeclared identifier 'x'")

    monkeypatch.setattr(build, "source", refuse)
    observer = Observer(ScriptedTarget(), list(CASES.values()))
    verdict, _ = observer.judge(CASES["first"], "libbpf", [])
    assert verdict.kind is Kind.ERROR and "undeclared identifier" in verdict.reason


def test_a_stuck_cpu_is_its_case_s_crash_and_the_rest_gets_another_guest():
    stuck = {"stage": None, "kernel_log": ["NMI backtrace for cpu 2"], "stuck": [2]}
    before = [{"begin": "first"}, {"end": "first", "observation": stuck}]
    after = [event for n in ("second", "third") for event in ({"begin": n}, ended(n))]
    target = ScriptedTarget(before, after)
    assert kinds(target) == [Kind.CRASH, Kind.PASS, Kind.PASS]
    assert target.asked == [["first", "second", "third"], ["second", "third"]]
    assert target.disturbed is False, "the second guest is as good as new"


def test_a_case_is_judged_as_soon_as_the_next_one_has_begun():
    events = [step for n in CASES for step in ({"begin": n}, {"late": []}, ended(n))]
    target = ScriptedTarget(events)
    observer = Observer(target, list(CASES.values()))
    for number, name in enumerate(CASES, 1):
        verdict, _ = observer.judge(CASES[name], "libbpf", CASES.values())
        assert verdict.kind is Kind.PASS
        assert len(target.told) == min(3 * number + 2, 9), "it waits for the next to begin, no more"


def test_what_is_left_of_a_request_is_observed_or_given_up():
    events = [step for n in CASES for step in ({"begin": n}, {"late": []}, ended(n))]
    target = ScriptedTarget(events)
    observer = Observer(target, list(CASES.values()))
    observer.judge(CASES["first"], "libbpf", CASES.values())
    observer.finish()
    assert len(target.told) == 9
    observer.judge(CASES["third"], "libbpf")
    assert len(target.asked) == 1

    target = ScriptedTarget(events, events)
    observer = Observer(target, list(CASES.values()))
    observer.judge(CASES["first"], "libbpf", CASES.values())
    observer.abandon()
    observer.judge(CASES["third"], "libbpf", [CASES["second"]])
    assert target.asked == [["first", "second", "third"], ["third", "second"]]


def test_a_splat_goes_to_the_case_before_also_when_one_between_never_ran():
    text = 'SEC("tc") __rule("r") __needs(bpf_new, "9.0") __success\nint fourth(void *ctx) {}'
    fourth = annotation.read(text, Path("y.bpf.c")).scenarios[0]
    target = ScriptedTarget([{"begin": "first"}, ended("first")], late=[WARN])
    observer = Observer(target, [CASES["first"], fourth])
    assert observer.judge(CASES["first"], "libbpf", [fourth])[0].kind is Kind.CRASH
    assert observer.judge(fourth, "libbpf")[0].kind is Kind.SKIP


def test_units_come_whole_and_twins_before_those_that_need_them():
    files = Programs.read(build.PROGRAMS).files
    by_name = {case.name: case for file in files for case in file.scenarios}
    for file in files:
        ordered = order(file.scenarios, by_name)
        places = {case.name: place for place, case in enumerate(ordered)}
        assert {case.name for case in file.scenarios} <= set(places)
        units = [unit for unit, _ in groupby(ordered, key=lambda case: (case.file, case.unit))]
        assert len(units) == len(set(units))
        for case in file.scenarios:
            assert case.twin is None or places[case.twin] < places[case.name]
