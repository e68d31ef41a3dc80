# SPDX-License-Identifier: GPL-2.0-only
"""C files for bcc: which functions are programs, and what becomes of them, without a kernel."""

from contextlib import contextmanager
from dataclasses import replace

import pytest
from packaging.version import Version

from harness.__main__ import main
from harness.check import bcc_source, examine, refusal, report, report_json
from harness.check.answer import Answer
from harness.errors import UsageError
from harness.machines.loss import GuestLost

TEXT = """\
/* int old(struct xdp_md *ctx) { */
struct item { struct bpf_spin_lock lock; u64 count; };
BPF_ARRAY(items, struct item, 1);

static inline int add(struct __sk_buff *skb)
{
    return 0;
}
static __always_inline int twice(struct xdp_md *ctx) { return 0; }
int count(struct xdp_md *ctx)
{
    return XDP_PASS;
}
int
shape(struct __sk_buff *skb) {
    const char *s = "int quoted(struct xdp_md *c) {";
    return add(skb);
}
int trace(struct pt_regs *ctx, struct sock *sk)
{
    return 0;
}
TRACEPOINT_PROBE(sched, sched_switch)
{
    return 0;
}
LSM_PROBE(file_open, struct file *file)
{
    return 0;
}
int bare(void *ctx) { return 0; }
int helper(struct item *i) { return 0; }
"""
FACTS = {"release": "6.12.1", "version": "", "headers": True}
QUIET = {"seconds": {"open": 0.5}, "kernel_log": [], "log": "", "detail": "", "errno": None}
LOADS = {**QUIET, "stage": None}


def test_programs_are_told_by_what_they_are_given():
    assert dict(bcc_source.read("x.c", TEXT, {}).sections) == {
        "count": "xdp",
        "shape": "tc",
        "trace": "kprobe",
        "tracepoint__sched__sched_switch": "tracepoint/sched/sched_switch",
        "lsm__file_open": "lsm/file_open",
    }


def test_a_user_says_what_the_text_does_not():
    found = bcc_source.read("x.c", TEXT, {"bare": "raw_tp", "shape": "cgroup_skb/egress"})
    assert found.sections["bare"] == "raw_tp" and found.sections["shape"] == "cgroup_skb/egress"
    with pytest.raises(UsageError, match="no function 'shap'; its programs are: count, shape"):
        bcc_source.read("x.c", TEXT, {"shap": "tc"})


class Guests:
    """A target whose guest reports what it is told to."""

    name, cpus, kernel = "qemu", 2, "6.12"
    late = ()

    def __init__(self, outcomes, facts=FACTS):
        self.outcomes, self.facts = outcomes, facts

    @contextmanager
    def session(self, warm=False):
        yield self

    def call(self, request, note=None, limit=0):
        if request.name == "facts":
            return self.facts
        if request.name == "late":
            if isinstance(self.late, Exception):
                raise self.late
            return self.late
        for case in request.cases:
            note({"begin": case.name})
            outcome = self.outcomes[case.name]
            if outcome == "panic":
                raise GuestLost("panic: it is dead", True, "console")
            note({"late": []})
            note({"end": case.name, "observation": outcome})


def rows(outcomes, facts=FACTS):
    text = bcc_source.read("x.c", TEXT, {})
    programs = examine.choose(text, list(outcomes))
    row = examine.examine(Guests(outcomes, facts), "6.12", text, programs)
    return Answer(text, programs, (row,), None)


def test_each_program_has_its_answer():
    refused = {
        **QUIET,
        "stage": "prog_load",
        "errno": "EINVAL",
        "log": "function calls are not allowed while holding a lock\n",
    }
    found = rows({"count": LOADS, "shape": refused, "trace": "panic"})
    (row,) = found.kernels
    assert [found.word(row, name) for name in found.programs] == [
        "loads",
        "call-under-lock",
        "crash",
    ]
    text = report.terminal(found)
    assert text.startswith(
        "x.c: 3 programs, through bcc: count as xdp, shape as tc, trace as kprobe"
    )
    assert report_json.to_json(found)["lockset"] is None and "protect" not in text


@pytest.mark.parametrize(
    "observation, facts, name, line",
    [
        (
            {**QUIET, "stage": "compile", "detail": "x.c:3:1: warning: w\nx.c:9:1: error: no such"},
            FACTS,
            "compile",
            "x.c:9:1: error: no such",
        ),
        (
            {**QUIET, "stage": "map_create", "errno": "ENOTSUPP", "detail": "map 'items'"},
            FACTS,
            "map-type",
            "map 'items': ENOTSUPP; bcc makes all maps of a text, used or not",
        ),
        (LOADS, {**FACTS, "headers": False}, "no-headers", "no headers of 6.12.1 are in the guest"),
    ],
)
def test_what_is_wrong_with_all_of_it(observation, facts, name, line):
    found = rows({"count": observation}, facts)
    assert found.word(found.kernels[0], "count") == name
    assert [group.refusal.line for group in found.groups()] == [line]
    assert not replace(found, required=("6.12",)).good


def test_a_warning_on_the_way_is_told():
    warned = {**LOADS, "kernel_log": ["WARNING: CPU: 1 PID: 2 at kernel/x.c:3 f+0x4/0x5"]}
    found = rows({"count": warned})
    assert "the kernel complained: WARNING" in report.terminal(found)


def test_what_the_kernel_says_after_the_last_program_is_told(monkeypatch):
    monkeypatch.setattr(Guests, "late", ["WARNING: CPU: 1 PID: 2 at kernel/x.c:3 f+0x4/0x5"])
    refused = {**QUIET, "stage": "prog_load", "errno": "EINVAL"}
    text = report.terminal(rows({"count": refused, "shape": LOADS}))
    assert "shape on 6.12: the kernel complained: WARNING" in text


def test_a_guest_that_is_lost_when_no_program_is_on_is_blamed_on_none(monkeypatch):
    monkeypatch.setattr(Guests, "late", GuestLost("panic: it is dead", True, "console"))
    (row,) = rows({"count": LOADS, "shape": LOADS}).kernels
    assert row.problem is not None and row.problem.line == "panic: it is dead"
    assert not any(seen.refusal for seen in row.programs.values())


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["x.o"], "x.o is an object; bcc takes C files only."),
        (["none.c"], "Cannot read none.c (No such file or directory)."),
        (["x.c", "--run"], "--run does not go with --loader bcc"),
        (["x.c", "--section", "count"], "--section count: NAME=KIND was expected"),
        (["x.c", "--program", "nope"], "x.c has no program 'nope'; it has: count, shape"),
        (["empty.c"], "empty.c has no program: a function of a context as its first argument"),
    ],
)
def test_bad_input_is_a_sentence(tmp_path, monkeypatch, capsys, words, sentence):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.c").write_text(TEXT)
    (tmp_path / "empty.c").write_text("int x;\n")
    (tmp_path / "x.o").write_bytes(b"\x7fELF")
    assert main(["check", *words, "--loader", "bcc"]) == 2
    assert sentence in capsys.readouterr().err


def test_a_section_is_for_bcc_only(capsys):
    assert main(["check", "x.c", "--section", "count=xdp"]) == 2
    assert "--section goes with --loader bcc" in capsys.readouterr().err


def test_a_map_that_old_kernels_let_bcc_make_without_btf_holds_no_lock():
    log = "map 'recent' has to have BTF in order to use bpf_spin_lock\n"
    seen = {"stage": "prog_load", "errno": "EACCES", "log": log, "detail": ""}
    release = Version("6.1")
    assert refusal.by_bcc(seen, release, {"recent": 9}).name == "map-type"
    assert refusal.by_bcc(seen, release, {"recent": 1}).name == "no-btf"


def test_the_maps_of_a_text():
    text = (
        'BPF_TABLE("lru_hash", u32, struct flow, recent, 16);\n'
        "BPF_HASH(plain, u32);\nBPF_PERCPU_ARRAY(counts, u64, 4);\nBPF_QUEUE(waiting, u32, 8);\n"
        'BPF_TABLE_PINNED("hash", u32, u64, shared, 8, "/sys/fs/bpf/x");\n'
    )
    found = bcc_source.read("x.c", text, {}).maps
    assert found == {"recent": 9, "plain": 1, "counts": 6, "waiting": 22, "shared": 1}
