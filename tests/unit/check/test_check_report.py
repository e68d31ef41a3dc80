# SPDX-License-Identifier: GPL-2.0-only
"""`spinlock check` without a kernel: what the guest reports, and what is made of it."""

import json
from contextlib import contextmanager
from pathlib import Path

import pytest
from packaging.version import Version

from harness.__main__ import main
from harness.check import examine, lockset, refusal, report
from harness.check.examine import Outcome
from harness.errors import UsageError
from harness.machines.loss import GuestLost
from harness.provision import elf
from harness.provision.btf import Field
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


def why(log="", release="6.12", asked=None, maps=None, **more):
    asked = asked or {"btf": None, "maps": {}}
    return refusal.explain(seen(log, **more), asked, Version(release), None, maps or {})


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
        report.Report(SOURCE, SOURCE.object.programs, (row,), lockset.Findings((), ())),
        guests,
    )


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
        ("9: (85) call bpf_foo#3\nR1 type=fp expected=map_value", "other"),
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
    found = refusal.explain(case["seen"], case["asked"], release, None, maps)
    assert found.name == expected, found
    if expected in ("call-under-lock", "lock-place") and case["program"] in (
        "static_call",
        "of_the_map",
    ):
        assert found.since in ("6.9", "6.11")


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
    assert why(log, "6.1").since == "6.9"
    assert why(log, "6.12").since == ""
    assert why("sleepable progs cannot use bpf_spin_lock yet", "6.1").since == "6.6"


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
    page = (examine.build.PROGRAMS.parent / refusal.PAGE).read_text()
    for row in refusal.CLASSES:
        assert f"\n## {row.name}\n" in page and row.advice in page
        rules = (examine.build.PROGRAMS.parent / "docs/rules.md").read_text()
        assert not row.rule or f"\n### {row.rule}\n" in rules


def test_report_of_one_that_loads_and_one_that_does_not():
    found, _ = reported({"good": GOOD, "bad": seen(LOG)})
    assert report.exit_code(found, ["6.12"]) == 1 and report.exit_code(found, []) == 0
    text = report.terminal(found)
    assert "bad   call-under-lock" in text and "prog.bpf.c:31" in text
    assert "docs/refusals.md#call-under-lock" in text and "No kernel takes everything" in text
    assert "1024 entries assumed: m" in text
    assert "[call-under-lock](docs/refusals.md#call-under-lock)" in report.markdown(found)
    data = json.loads(json.dumps(report.to_json(found)))
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
    assert report.exit_code(found, ["6.12"]) == 0
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
        return report.terminal(report.Report(source, ("good",), (row,), none))

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


def test_lock_words():
    assert report._lock_words("# WARNING!! The output is\n0: {{1,},17,}\n1: {{0,},3,}\n", 0) == [
        1,
        0,
    ]
    assert report._lock_words("0: {7,[1,2],{1,},}\n", 2) == [1]


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
