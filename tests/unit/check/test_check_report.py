# SPDX-License-Identifier: GPL-2.0-only
"""`spinlock check` without a kernel: what the guest reports, and what is made of it."""

import json
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from packaging.version import Version

from harness.__main__ import main
from harness.check import (
    classes,
    examine,
    lockset,
    refusal,
    report,
    report_json,
    since,
)
from harness.check.answer import Answer
from harness.check.examine import Outcome
from harness.check.linked import Linked
from harness.errors import UsageError
from harness.machines.loss import GuestLost
from harness.provision import catalogue, elf
from harness.provision.btf import Field
from harness.scenarios import versions
from harness.scenarios.programs import Programs
from harness.scenarios.versions import kernel_version

LOG = """\
; bpf_spin_lock(&i->lock);
8: (bf) r1 = r6
9: (85) call bpf_spin_lock#93
; i->sum = bpf_ktime_get_ns(); @ prog.bpf.c:31
10: (85) call bpf_ktime_get_ns#5
function calls are not allowed while holding a lock
processed 11 insns (limit 1000000) max_states_per_insn 0 total_states 1 peak_states 1 mark_read 1
"""
FACTS = {"release": "6.12.1", "version": ""}
SOURCE = examine.Source("prog.o", b"", elf.Object({}, ("good", "bad"), {}))


def seen(log="", stage="load", errno="EINVAL", messages=(), **more):
    return {"stage": stage, "errno": errno, "log": log, "messages": messages, **more}


def why(log="", release="6.12", asked=None, maps=None, linked=None, **more):
    asked = asked or {"btf": None, "maps": {}}
    return refusal.explain(seen(log, **more), asked, Version(release), linked, maps or {})


def linking(helpers=(), is_global=False, section="tc", calls_at=9):
    """A program that calls a function at an instruction, which calls helpers."""
    nothing = elf.Insn(0xB7, 0, 0, 0, 0)
    code = [nothing] * calls_at + [elf.Insn(0x85, 0, 1, 0, 0), elf.Insn(0x95, 0, 0, 0, 0)]
    targets = {calls_at: elf.Target("function", "inner")}
    called = [*(elf.Insn(0x85, 0, 0, 0, helper) for helper in helpers), code[-1]]
    functions = {
        "main": elf.Function("main", section, code, targets),
        "inner": elf.Function("inner", ".text", called, is_global=is_global),
    }
    return Linked(functions, "main")


def first(claim):
    return claim.spans[0].first if claim is not None else ""


class Guests:
    """A target whose guest reports what it is told to, and dies where it is told to."""

    name, cpus, kernel = "qemu", 2, "6.12"

    def __init__(self, outcomes):
        self.outcomes = outcomes
        self.asked = []

    @contextmanager
    def session(self, warm=False):
        yield self

    def call(self, request, note=None, limit=0):
        if request.name == "facts":
            return FACTS
        self.asked.append(request.only)
        note({"object": {"programs": [], "assumed": ["m"], "btf": None, "maps": {}}})
        for program in request.only:
            note({"begin": program})
            outcome = self.outcomes[program]
            if outcome == "panic":
                raise GuestLost("panic: it is dead", True, "console")
            if outcome == "emulator" or (outcome == "emulator, once" and len(self.asked) == 1):
                raise GuestLost("the emulator failed", False, "console")
            if outcome == "emulator, once":
                outcome = GOOD
            note({"end": program, "seen": {**outcome, "kernel_log": []}})


def reported(outcomes):
    guests = Guests(outcomes)
    row = examine.examine(guests, "6.12", SOURCE, SOURCE.object.programs)
    return (
        Answer(SOURCE, SOURCE.object.programs, (row,), lockset.Findings((), ())),
        guests,
    )


LOCK = Field("lock", 0, 4, lock="bpf_spin_lock")
GOOD = {"stage": None, "log": "", "seconds": 0.1}


def test_the_telling_line_and_its_place():
    found = why(LOG)
    assert (found.name, found.insn) == ("call-under-lock", 10)
    assert found.where == "prog.bpf.c:31" and "ktime" in found.source
    assert found.line == "function calls are not allowed while holding a lock"


@pytest.mark.parametrize(
    "log, name",
    [
        (
            "9: (85) call bpf_spin_lock#93\nfunction calls are not allowed while holding a lock",
            "second-lock",
        ),
        ("5: (95) exit\nbpf_spin_unlock is missing", "missing-unlock"),
        (
            "5: (95) exit\nBPF_EXIT instruction in main prog cannot be used inside"
            " bpf_spin_lock-ed region",
            "missing-unlock",
        ),
        (
            "BPF_LD_[ABS|IND] cannot be used inside bpf_spin_lock-ed region",
            "packet-load-under-lock",
        ),
        ("bpf_spin_unlock of different lock", "different-lock"),
        ("bpf_spin_lock at off=0 must be held for bpf_list_head", "list-lock"),
        ("bpf_res_spin_lock at off=16 must be held for bpf_rb_root", "tree-lock"),
        ("held lock and object are not in the same allocation", "list-lock"),
        (
            "16: (07) r1 += 4 bpf_spin_lock cannot be accessed directly by load/store",
            "direct-access",
        ),
        ("map 'm' has more than one 'struct bpf_spin_lock'", "two-locks"),
        ("off 8 doesn't point to 'struct bpf_spin_lock' that is at 4", "lock-place"),
        ("tracing progs cannot use bpf_spin_lock yet", "program-type"),
        ("unknown func bpf_spin_lock#93", "program-type"),
        ("unknown func bpf_loop#181", "helper-missing"),
        ("9: (85) call bpf_spin_lock#93\nR1 type=fp expected=map_value, ptr_", "lock-pointer"),
        ("9: (85) call bpf_foo#3\nR1 type=fp expected=map_value", "argument"),
        (
            "9: <invalid kfunc call>\nkfunc 'hid_bpf_get_data' is referenced but wasn't resolved",
            "kernel-function",
        ),
        ("bpf_lsm_bprm_check_security is not sleepable", "not-sleepable"),  # 5.10
        (
            "Only fentry/fexit/fmod_ret, lsm, iter, uprobe, and struct_ops programs can be sleepable",
            "not-sleepable",
        ),
        ("BPF_STX uses reserved fields", "instruction"),
        ("BPF_ATOMIC uses invalid atomic opcode 100", "instruction"),
        ("unknown opcode 06", "instruction"),
        ("what no kernel says", "other"),
    ],
)
def test_classes_by_text(log, name):
    assert why(f"0: (b7) r0 = 0\n{log}\nprocessed 1 insns\n").name == name


def test_the_source_that_a_log_quotes_is_not_taken_for_a_message():
    assert why("; /* bpf_spin_unlock is missing */\n1: (95) exit\nno such luck\n").name == "other"


RECORDED = json.loads((Path(__file__).parent.parent / "data/refusals.json").read_text())
OF_THE_MAP = {
    "TWO_LOCKS": "two-locks",
    "NESTED": "lock-place",
    "PERCPU": "map-type",
    "NO_BTF": "no-btf",
}


@pytest.mark.parametrize(
    "case", RECORDED, ids=[f"{c['release']}-{c['define']}-{c['program']}" for c in RECORDED]
)
def test_recorded_logs(case):
    """What 5.10, 6.1, 6.12 and 7.3 said to tests/harness/check/refused.bpf.c, where names tell why."""
    release = kernel_version(case["release"], case["version"])
    lock = elf.Field("inner.lock" if case["define"] == "NESTED" else "lock", 0, 4, "bpf_spin_lock")
    locks = (lock, lock) if case["define"] == "TWO_LOCKS" else (lock,)
    typed = case["define"] != "NO_BTF"
    maps = {"values": elf.Map("values", 1, typed, locks if typed else ())}
    if case["program"] == "static_call":
        expected = None if release >= Version("6.9") else "call-under-lock"
    elif case["program"] == "of_the_map":
        expected = OF_THE_MAP.get(case["define"])
        expected = None if expected == "lock-place" and release >= Version("6.11") else expected
    else:
        expected = None if case["program"] == "loads" else case["program"].replace("_", "-")
    if case["seen"] is None:
        assert expected is None
        return
    insn = refusal.explain(case["seen"], case["asked"], release, None, maps).insn
    linked = linking(calls_at=insn or 0) if case["program"] == "static_call" else None
    found = refusal.explain(case["seen"], case["asked"], release, linked, maps)
    assert found.name == expected, found
    if expected in ("call-under-lock", "lock-place") and case["program"] in (
        "static_call",
        "of_the_map",
    ):
        assert first(found.claim) in ("6.9", "6.11")


def test_an_explanation_after_the_line_does_not_hide_it():
    log = "1: (95) exit\nsome new sentence\nVerification failed: it did\nSuggestion: do better\n"
    assert why(log).line == "some new sentence"


def test_what_libbpf_hides():
    log = "map 'm' has to have BTF in order to use bpf_spin_lock\n"
    item = elf.Field("lock", 0, 4, "bpf_spin_lock")
    one = {"m": elf.Map("m", 5, True, (item,))}
    two = {"m": elf.Map("m", 1, True, (item, elf.Field("other", 4, 4, "bpf_spin_lock")))}
    refused = {"btf": None, "maps": {"m": "EOPNOTSUPP"}}
    assert why(log, maps=one, asked=refused).name == "map-type"
    assert why(log, maps=two, asked={"btf": "E2BIG", "maps": {}}).name == "two-locks"
    assert why(log, maps={"m": elf.Map("m", 1, False)}).name == "no-btf"


@pytest.mark.parametrize(
    "kind, answer, log, name",
    [
        (14, "EACCES", "map 'm' has to have BTF in order to use bpf_spin_lock\n", "map-type"),
        (22, "EINVAL", "invalid zero-sized read\n", "map-type"),
        (27, "EINVAL", "", "map-type"),
        (1, "EACCES", "", "map-flags"),
        (35, "EINVAL", "", "map-unknown"),
        (4096, "EINVAL", "", "map-unknown"),
    ],
)
def test_a_type_that_holds_no_lock_is_refused_for_many_reasons(kind, answer, log, name):
    """What 5.10 said to a DEVMAP, a QUEUE and a RINGBUF, a flag of a HASH, and types it lacks."""
    maps = {"m": elf.Map("m", kind, True, (elf.Field("lock", 0, 4, "bpf_spin_lock"),))}
    assert why(log, "5.10", {"btf": None, "maps": {"m": answer}}, maps).name == name


def test_types_that_are_too_deep_are_not_taken_for_locks():
    log = "map 'm' has to have BTF in order to use bpf_spin_lock\n"
    for release in ("5.10", "7.3"):
        assert why(log, release, {"btf": "E2BIG", "maps": {}}, {}).name == "btf-depth"
    one = {"m": elf.Map("m", 1, True, (elf.Field("lock", 0, 4, "bpf_spin_lock"),))}
    assert why(log, "5.10", {"btf": "E2BIG", "maps": {}}, one).name == "btf-depth"
    assert why(log, "7.3", {"btf": "E2BIG", "maps": {}}, one).name == "two-locks"


@pytest.mark.parametrize(
    "message, name",
    [
        ("elf: legacy map definitions in 'maps' section are not supported", "legacy-maps"),
        ("prog 'p': bad map relo against 'events' in section 'maps/events'", "legacy-maps"),
        ("prog 'p': bad map relo against 'state' in section 'lirc_mode2/maps'", "legacy-maps"),
        ("prog 'p': bad map relo against 'x' in section '.mapsize'", "object"),
        ("sec 'static': program 'one' is static and not supported", "static-program"),
        ("failed to find BTF for extern 'there': -2", "not-linked"),
        ("failed to find BTF for extern 'bpf_dynptr_slice' [22] section: -2", "not-linked"),
        ("what libbpf does not say", "object"),
    ],
)
def test_objects_that_libbpf_does_not_open(message, name):
    """What it said to objects of opensnitch, ir-keytable, cilium/ebpf and bpfilter, and twins."""
    found = refusal.broken({"errno": "EINVAL", "messages": [f"libbpf: {message}"]})
    assert found.name == name and message in found.line


def test_a_map_that_takes_no_btf_is_no_reason():
    """A plain call gives it BTF and is refused; libbpf, which loads the program, gives none."""
    asked = {"btf": None, "maps": {"xsks": "ENOTSUPP"}}
    maps = {"xsks": elf.Map("xsks", 17, True)}
    assert why("", maps=maps, asked=asked, errno="EINVAL", bare=False).name == "kind-missing"
    asked = {"btf": None, "maps": {"xsks": "EINVAL"}}
    assert why("", maps=maps, asked=asked, errno="EINVAL", bare=False).name == "map-unknown"


def test_a_map_of_maps_without_an_inner_one():
    asked = {"btf": None, "maps": {"outer": "EINVAL"}}
    alone = why("", maps={"outer": elf.Map("outer", 13, True)}, asked=asked)
    assert alone.name == "map-unknown" and "its own loader gives the inner one" in alone.line
    inner = elf.Map("outer[]", 1, True)
    whole = why("", maps={"outer": elf.Map("outer", 13, True, (), inner)}, asked=asked)
    assert whole.name == "map-unknown" and "own loader" not in whole.line


def test_a_struct_ops_that_the_kernel_has_not():
    message = "libbpf: struct_ops init_kern: struct hid_bpf_ops is not found in kernel BTF"
    assert why("", messages=[message], errno="ENOTSUPP").name == "hook-missing"


def test_a_program_that_loads_but_cannot_be_attached():
    seen = {
        "stage": "attach",
        "errno": "",
        "messages": ["this kernel has no attach type BPF_TCX_INGRESS"],
    }
    refused = refusal.explain(seen, {"btf": None, "maps": {}}, Version("5.10"), None, {})
    assert (refused.name, refused.line) == ("hook-missing", seen["messages"][0])


def test_a_program_for_another_one_is_not_taken_for_a_kind_the_kernel_has_not():
    messages = ["prog 'p': attach program FD is not set", "prog 'p': failed to load: -22"]
    messages = [f"libbpf: {message}" for message in messages]
    assert why("", messages=messages, errno="EINVAL", bare=False).name == "needs-target"


def test_since_which_kernel():
    log = "9: (85) call pc+4\nfunction calls are not allowed while holding a lock\n"
    assert first(why(log, "6.1", linked=linking()).claim) == "6.9"
    assert why(log, "6.12", linked=linking()).claim is None, "the rule book says it loads there"
    assert first(why("sleepable progs cannot use bpf_spin_lock yet", "6.1").claim) == "6.6"


def test_nothing_is_claimed_for_a_function_that_no_kernel_takes_under_the_lock():
    log = "9: (85) call pc+4\nfunction calls are not allowed while holding a lock\n"
    assert why(log, "6.1").claim is None, "what it calls is not known"
    for linked, words in (
        (linking(helpers=(1,)), "would be refused still"),
        (linking(is_global=True), "Make inner() static"),
    ):
        found = why(log, "6.1", linked=linked)
        assert found.claim is None and words in found.advice


@pytest.mark.parametrize("example", since.EXAMPLES, ids=lambda e: f"{e.of}-{e.scenario}")
def test_a_claim_is_what_the_rule_book_says(example):
    """On the kernels of the catalogue: where its scenario is refused, and nowhere else."""
    case = {s.name: s for s in Programs.read(examine.build.PROGRAMS).scenarios()}[example.scenario]
    for version in map(Version, catalogue.CHECKED.values()):
        text = {r"bitfield": "a bitfield"}.get(example.text, example.text.replace("\\b", ""))
        found = since.claim(example.of, [text], {example.trait}, version)
        expected = case.expectation(version)
        bugs = any(versions.covers(bug.kernels, version) for bug in case.known_bugs)
        if expected is None:
            continue
        if expected.accepted != bugs:
            assert found is None, "this kernel takes it"
        else:
            assert found is not None and not found.covers(version)
            for other in map(Version, catalogue.CHECKED.values()):
                there = case.expectation(other)
                broken = any(versions.covers(bug.kernels, other) for bug in case.known_bugs)
                exists = all(Version(need.since) <= other for need in case.needs)
                takes = there is not None and there.accepted != broken and exists
                assert found.covers(other) == takes, other


def test_a_claim_that_another_kernel_of_the_run_contradicts_is_not_made():
    log = "9: (85) call pc+4\nfunction calls are not allowed while holding a lock\n"
    old = why(log, "6.1", linked=linking())
    later = why(log, "6.12")

    def claimed(then):
        rows = (
            examine.OnKernel("6.1", "6.1.1", {"good": Outcome(old)}),
            examine.OnKernel("6.12", "6.12.1", {"good": then}),
        )
        none = lockset.Findings((), ())
        return report.terminal(Answer(SOURCE, ("good",), rows, none))

    assert "v6.9 takes it as it is" in claimed(Outcome())
    assert "v6.9 takes it" not in claimed(Outcome(later))


def test_answers_that_change_more_than_once_are_said_as_ranges():
    no = Outcome(why("no such luck"))
    answers = {"5.10": Outcome(), "6.1": Outcome(), "6.12": no, "7.1": no, "7.2": Outcome()}
    rows = tuple(examine.OnKernel(k, f"{k}.1", {"good": o}) for k, o in answers.items())
    found = Answer(SOURCE, ("good",), rows, lockset.Findings((), ()))
    text = report.terminal(found)
    assert "good: loads on 5.10 to 6.1, refused on 6.12 to 7.1, loads on 7.2" in text


def test_a_name_of_the_kernels_is_known_by_its_version():
    log = "9: (85) call unknown#2002000001\nfunction calls are not allowed while holding a lock\n"
    nothing = elf.Insn(0xB7, 0, 0, 0, 0)
    code = [nothing] * 9 + [elf.Insn(0x85, 0, 2, 0, -1)]
    target = elf.Target("extern", "bpf_preempt_disable")
    linked = Linked({"main": elf.Function("main", "tc", code, {9: target})}, "main")
    found = why(log, "6.1", linked=linked)
    assert found.name == "kernel-function"
    assert str(found.claim) == "v6.10 has bpf_preempt_disable"
    helper = why("9: (85) call bpf_loop#181\nunknown func bpf_loop#181\n", "5.10")
    assert str(helper.claim) == "v5.17 has bpf_loop()"
    assert why("unknown func bpf_loop#181\n", "6.1").claim is None, "this kernel has it"
    told = ["this kernel has no attach type BPF_TCX_INGRESS"]
    assert (
        str(why(messages=told, stage="attach", release="6.1").claim) == "v6.6 has BPF_TCX_INGRESS"
    )


def test_the_kernels_own_words_are_shown():
    log = (
        "7: (85) call bpf_spin_unlock#94\nbpf_spin_unlock without taking a lock\n\n"
        "Verification failed: Unlock without lock\n\nReason:\n  This unlock has\n  no lock.\n\n"
        "Suggestion:\n  Take it.\n\nprocessed 9 insns\n"
    )
    found = why(log, "7.3")
    assert (found.reason, found.suggestion) == ("This unlock has no lock.", "Take it.")


def test_limits():
    assert why(died="time").name == "time"
    assert why(died="memory").name == "memory"
    assert why(died="signal SIGSEGV").name == "libbpf"
    assert why(errno="EPERM").name == "capability"
    assert why(errno="ENOMEM").name == "map-size"
    said = ["libbpf: failed to load object '9057730-e308'"]
    kind = why(errno="EINVAL", bare=False, messages=said)
    assert (kind.name, kind.line) == (
        "kind-missing",
        "EINVAL, as to a program of its kind that does nothing",
    )
    assert why(errno="EINVAL").name == "other"


def test_every_class_is_explained():
    page = (examine.build.PROGRAMS.parent / classes.PAGE).read_text()
    for row in classes.CLASSES:
        assert f"\n## {row.name}\n" in page and row.advice in page
        rules = (examine.build.PROGRAMS.parent / "docs/rules.md").read_text()
        assert not row.rule or f"\n### {row.rule}\n" in rules


def test_report_of_one_that_loads_and_one_that_does_not():
    found, _ = reported({"good": GOOD, "bad": seen(LOG)})
    assert not replace(found, required=("6.12",)).good and found.good
    text = report.terminal(found)
    assert "bad   call-under-lock" in text and "prog.bpf.c:31" in text
    assert "docs/refusals.md#call-under-lock" in text and "No kernel takes everything" in text
    assert "1024 entries assumed: m" in text
    assert "[call-under-lock](docs/refusals.md#call-under-lock)" in report.markdown(found)
    data = json.loads(json.dumps(report_json.to_json(found)))
    assert data["smallest_kernel"] is None
    assert data["kernels"][0]["programs"]["bad"]["refusal"]["class"] == "call-under-lock"


@pytest.mark.parametrize(
    "programs, name, line",
    [
        ([{"name": "good"}], "section", "libbpf finds no program of this name: it is in .text"),
        ([{"name": "good"}, {"name": "bad"}], "time", "the object's time was over"),
    ],
)
def test_a_program_that_was_not_tried(programs, name, line):
    class Silent(Guests):
        def call(self, request, note=None, limit=0):
            if request.name == "facts":
                return FACTS
            note({"object": {"programs": programs, "assumed": [], "btf": None, "maps": {}}})
            note({"end": "good", "seen": {**GOOD, "kernel_log": []}})

    row = examine.examine(Silent({}), "6.12", SOURCE, SOURCE.object.programs)
    why = row.programs["bad"].refusal
    assert (why.name, why.line) == (name, line)


def test_everything_loads():
    found, _ = reported({"good": GOOD, "bad": GOOD})
    assert replace(found, required=("6.12",)).good
    assert "Everything loads on 6.12 (1 kernel checked)." in report.terminal(found)


@pytest.mark.parametrize(
    "refused, said",
    [
        ({"": "EINVAL"}, ["of the object (EINVAL)", "no lock, list or tree is known there"]),
        (
            {"guarded": "EOPNOTSUPP"},
            ["note: 6.12: ", "of map 'guarded' (EOPNOTSUPP)", "its lock is unknown"],
        ),
        ({"plain": "EOPNOTSUPP"}, []),
        ({}, []),
    ],
)
def test_what_libbpf_hides_of_btf_is_said_where_something_loads_for_it(refused, said):
    lock = Field("lock", 0, 4, lock="bpf_spin_lock")
    maps = {"guarded": elf.Map("guarded", 2, True, (lock,)), "plain": elf.Map("plain", 2, True)}
    source = examine.Source("prog.o", b"", elf.Object({}, ("good", "bad"), maps))
    loads, not_at_all = Outcome(), Outcome(refusal.crashed("it is dead"))

    def text(good):
        row = examine.OnKernel("6.12", "6.12.1", {"good": good}, btf_refused=refused)
        none = lockset.Findings((), ())
        return report.terminal(Answer(source, ("good",), (row,), none))

    assert all(words in text(loads) for words in said)
    assert ("refuses the BTF" in text(loads)) is bool(said)
    assert "refuses the BTF" not in text(not_at_all)


def test_a_lost_guest_is_blamed_on_its_program_and_the_rest_is_asked_again():
    found, guests = reported({"good": "panic", "bad": GOOD})
    assert guests.asked == [["good", "bad"], ["bad"]]
    programs = found.kernels[0].programs
    assert programs["good"].refusal.name == "crash" and programs["bad"].good


def test_a_guest_that_the_kernel_did_not_lose_is_no_answer():
    found, guests = reported({"good": GOOD, "bad": "emulator, once"})
    assert guests.asked == [["good", "bad"], ["bad"]]
    assert found.kernels[0].good


def test_a_guest_that_is_lost_again_and_again_accuses_no_kernel():
    found, guests = reported({"good": "emulator", "bad": GOOD})
    assert guests.asked == [["good", "bad"], ["good", "bad"], ["bad"]]
    programs = found.kernels[0].programs
    assert programs["good"].refusal.name == "other" and programs["bad"].good
    assert programs["good"].refusal.line == "the emulator failed"


@pytest.mark.parametrize(
    "content, text",
    [(b"", "not an ELF"), (b"\x7fELF" + bytes(60), "32-bit"), (None, "Cannot read")],
)
def test_bad_files_are_usage_errors(tmp_path, capsys, content, text):
    file = tmp_path / "prog.o"
    if content is not None:
        file.write_bytes(content)
    assert main(["check", str(file)]) == 2
    assert text in capsys.readouterr().err


def test_a_program_that_is_not_there():
    with pytest.raises(UsageError, match="has no program 'x'; it has: good, bad"):
        examine.choose(SOURCE, ["x"])


WARNED = [
    "------------[ cut here ]------------",
    "WARNING: CPU: 0 PID: 9 at kernel/bpf/btf.c:4030 btf_parse_fields+0x7a1/0x7d0",
    "Call Trace:",
    "---[ end trace 0000000000000000 ]---",
]


@pytest.mark.parametrize("at", ["object", "program"])
def test_a_complaint_about_types_is_not_put_on_the_program_that_came_then(at):
    class Complaining(Guests):
        def call(self, request, note=None, limit=0):
            if request.name == "facts":
                return {"release": "6.16.1", "version": ""}
            facts = {"programs": [], "assumed": [], "btf": None, "maps": {}}
            note({"object": {**facts, "kernel_log": WARNED if at == "object" else []}})
            for name in request.only:
                note({"begin": name})
                said = WARNED if at == "program" and name == "good" else []
                note({"end": name, "seen": {**GOOD, "kernel_log": said}})

    row = examine.examine(Complaining({}), "6.16", SOURCE, SOURCE.object.programs)
    assert "btf_parse_fields" in row.warning and not row.good
    assert all(seen.good for seen in row.programs.values())
    found = Answer(SOURCE, SOURCE.object.programs, (row,), lockset.Findings((), ()))
    text = report.terminal(found)
    assert "the object's BTF or maps on 6.16: the kernel complained: WARNING" in text
    assert "on record: f08619f06046" in text


def test_two_locks_of_which_the_kernel_sees_one_are_told():
    locks = tuple(Field(f"{n}.lock", 8 * i, 4, lock="bpf_spin_lock") for i, n in enumerate("ab"))
    code = [elf.Insn(0x18, 1, 1, 0, 0), elf.Insn(0, 0, 0, 0, 0), elf.Insn(0x95, 0, 0, 0, 0)]
    uses = elf.Function("good", "tc", code, {0: elf.Target("map", "twos")})
    found = elf.Object({"good": uses}, ("good",), {"twos": elf.Map("twos", 1, True, locks)})
    rows = tuple(
        examine.OnKernel(kernel, release, {"good": Outcome()})
        for kernel, release in (("6.16", "6.16.1"), ("7.3", "7.3.1"))
    )
    source = examine.Source("prog.o", b"", found)
    text = report.terminal(Answer(source, ("good",), rows, lockset.Findings((), ())))
    assert "note: 6.16: map 'twos' has 2 locks in a value" in text
    assert "on record: f08619f06046" in text


def test_what_the_btf_is_refused_for_is_the_cause_of_all_that_is_said_of_types():
    log = "map 'm' has to have BTF in order to use bpf_spin_lock\n"
    cause = {"in": "struct s", "member": "low", "type": "a bitfield of 3 bits"}
    found = why(log, "6.12", {"btf": "EINVAL", "causes": [cause], "maps": {}})
    assert found.name == "btf-refused" and "whole integer" in found.advice
    assert "the member low of struct s, a bitfield of 3 bits" in found.line
    assert "before v6.11" in str(found.claim) and "a7db0d4f872a" in str(found.claim)
    for kind, name in (
        ("struct bpf_spin_lock", "two-locks"),
        ("struct bpf_list_head", "contains"),
        ("a pointer with the type tag 'user'", "btf-refused"),
    ):
        asked = {"btf": "EINVAL", "causes": [{**cause, "type": kind}], "maps": {}}
        assert why(log, "6.12", asked).name == name
        assert why("R1 !read_ok\n", "6.12", asked).name == "other", "of no types"


@pytest.mark.parametrize(
    "section, helpers, line, words",
    [
        ("kprobe", (93,), "tracing progs cannot use bpf_spin_lock yet", ["bpf_res_spin_lock()"]),
        ("kprobe", (93,), "tracing progs cannot use bpf_spin_lock yet", ["mean to refuse it"]),
        ("socket", (), "socket filter progs cannot use bpf_spin_lock yet", ["takes no lock"]),
    ],
)
def test_advice_fits_the_program(section, helpers, line, words):
    found = why(f"{line}\n", linked=linking(helpers, section=section))
    assert found.name == "program-type" and all(word in found.advice for word in words)
    assert ("takes no lock" in found.advice) is (not helpers)
    assert "fentry" not in found.advice or "refuse it there" in found.advice


def test_advice_for_a_tail_call_is_not_to_move_it():
    log = "9: (85) call bpf_tail_call#12\nfunction calls are not allowed while holding a lock\n"
    assert why(log).advice.startswith("Unlock, then make the tail call")


def test_a_function_that_other_kernels_call_otherwise():
    log = "9: <invalid kfunc call>\nkfunc 'bpf_obj_new' is referenced but wasn't resolved\n"
    asked = {"btf": None, "maps": {}, "names": {"bpf_obj_new": False, "bpf_obj_new_impl": True}}
    assert why(log, asked=asked).advice.startswith("This kernel calls it bpf_obj_new_impl()")


def test_two_inner_locks_are_not_seen_before_inner_ones_are():
    locks = tuple(Field(f"{n}.lock", 8 * i, 4, lock="bpf_spin_lock") for i, n in enumerate("ab"))
    maps = {"m": elf.Map("m", 1, True, locks)}
    old = why("map 'm' doesn't have 'struct bpf_spin_lock'\n", "6.1", maps=maps)
    assert old.name == "lock-place" and "at the top level" in old.advice
    assert why("map 'm' has no valid bpf_spin_lock\n", "7.3", maps=maps).name == "two-locks"
    other = "off {} doesn't point to 'struct bpf_spin_lock' that is at 0\n"
    assert why(other.format(8), "6.16", maps=maps).name == "two-locks"
    assert why(other.format(4), "6.16", maps=maps).name == "lock-place"


def test_a_map_that_the_program_does_not_use_is_told_as_another():
    maps = {"outer": elf.Map("outer", 12, True, (), elf.Map("outer[]", 1, True, (LOCK,)))}
    asked = {"btf": None, "maps": {"outer": "ENOTSUPP"}}
    found = why("", "6.1", asked, maps, linking(), errno="ENOTSUPP")
    assert found.name == "inner-map" and "does not use the map 'outer'" in found.advice


def test_an_atomic_operation_is_found_where_an_old_kernel_does_not_say_where():
    code = [elf.Insn(0xDB, 1, 2, 0, 0xE1), elf.Insn(0x95, 0, 0, 0, 0)]
    linked = Linked({"main": elf.Function("main", "tc", code)}, "main")
    found = why("BPF_STX uses reserved fields\n", "5.10", linked=linked)
    assert str(found.claim) == "v5.12 takes it as it is"


def test_a_refusal_of_no_place_is_told_once():
    outcomes = {name: Outcome(refusal.Refusal("map-type", "no such map")) for name in "abcdefgh"}
    outcomes["placed"] = Outcome(
        refusal.Refusal("map-type", "no such map", file="x.c", line_number=3)
    )
    row = examine.OnKernel("6.12", "6.12.1", outcomes)
    found = Answer(SOURCE, tuple(outcomes), (row,), None)
    assert [group.programs for group in found.groups()] == [tuple(outcomes)]
    text = report.terminal(found)
    assert text.count("no such map") == 1 and "  source   x.c:3  (placed)\n" in text
    assert "\na, b, c, d, e, f and 3 more on 6.12: " in text
