# SPDX-License-Identifier: GPL-2.0-only
"""`spinlock check` on real kernels: every refusal has the right class, and the guest survives."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from harness.check import classes, examine, own_loader
from harness.machines import choose, target

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
KERNELS = ("5.10", "6.12")
HUGE = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
char _license[] SEC("license") = "GPL";
struct item { struct bpf_spin_lock lock; char bytes[4000]; };
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1000000); __type(key, __u32);
         __type(value, struct item); } big SEC(".maps");
SEC("tc") int one(struct __sk_buff *skb) { __u32 k = 0; return bpf_map_lookup_elem(&big, &k) != 0; }
"""

FATAL = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
char _license[] SEC("license") = "GPL";
struct { __uint(type, BPF_MAP_TYPE_STRUCT_OPS); __uint(max_entries, 1); __type(key, __u32);
         __type(value, __u32); } own SEC(".maps");
SEC("tc") int one(struct __sk_buff *skb) { __u32 k = 0; return bpf_map_lookup_elem(&own, &k) != 0; }
SEC("tc") int two(struct __sk_buff *skb) { __u32 k = 1; return bpf_map_lookup_elem(&own, &k) != 0; }
"""


# With workers, the tests of a kernel go to one of them, which then boots it alone.
BY_KERNEL = [pytest.param(name, marks=pytest.mark.xdist_group(f"check {name}")) for name in KERNELS]


@pytest.fixture(scope="module", params=BY_KERNEL)
def guests(request):
    found = choose.open_target(target.Settings("qemu", request.param, 4), lambda message: None)
    yield found
    found.close()


def refused(guests, define):
    file = HERE / "check/refused.bpf.c"
    source = examine.open_source(file, guests.headers(), (), [define])
    return examine.examine(guests, guests.kernel, source, source.object.programs)


def test_each_program_is_refused_for_the_reason_in_its_name(guests):
    for name, seen in refused(guests, "EACH").programs.items():
        why = seen.refusal.name if seen.refusal else None
        if name in ("loads", "of_the_map") or (name, guests.kernel) == ("static_call", "6.12"):
            assert why is None
        elif name == "static_call":
            assert why == "call-under-lock" and "v6.9 takes it" in str(seen.refusal.claim)
        else:
            assert why == name.replace("_", "-"), (name, seen.refusal)


@pytest.mark.parametrize(
    "define, name", [("TWO_LOCKS", "two-locks"), ("PERCPU", "map-type"), ("NO_BTF", "no-btf")]
)
def test_what_is_wrong_with_the_map(guests, define, name):
    assert refused(guests, define).programs["of_the_map"].refusal.name == name


def test_a_map_of_four_gigabytes_is_loaded_with_fewer_entries(guests, tmp_path):
    file = tmp_path / "huge.bpf.c"
    file.write_text(HUGE)
    source = examine.open_source(file, guests.headers())
    row = examine.examine(guests, guests.kernel, source, ("one",))
    assert row.programs["one"].refusal is None and row.shrunk == ("big",)


def test_the_cause_of_an_objects_trouble(guests):
    """See causes.bpf.c: what a program is named after, on v6.12; v5.10 takes some of it."""
    source = examine.open_source(HERE / "check/causes.bpf.c", guests.headers())
    row = examine.examine(guests, guests.kernel, source, source.object.programs)
    reasons = {name: seen.refusal and seen.refusal.name for name, seen in row.programs.items()}
    old = guests.kernel == "5.10"
    assert reasons == {
        "fills_slot": None,
        "dispatches": None,
        "reads_configuration": None,
        "unresolved_under_lock": "kernel-function",
        "attaches_to_lock": "hook-missing" if old else "lock-functions",
        "tail_call_under_lock": "call-under-lock",
    }
    assert "never comes back" in row.programs["tail_call_under_lock"].refusal.advice


def test_the_member_for_which_the_kernel_refuses_the_btf(guests):
    source = examine.open_source(HERE / "check/bitfields.bpf.c", guests.headers())
    row = examine.examine(guests, guests.kernel, source, source.object.programs)
    why = row.programs["count"].refusal
    if guests.kernel == "5.10":  # the kernels before v6.11 take it
        assert why is None and not row.causes
        return
    assert why.name == "btf-refused" and "a7db0d4f872a" in str(why.claim)
    assert row.causes == ("the member high of struct flow, a bitfield of 29 bits",)


def test_what_ends_libbpf_at_one_program_keeps_no_other_waiting(guests, tmp_path):
    """libbpf 1.5 crashes on a struct_ops that is declared as an ordinary map."""
    file = tmp_path / "fatal.bpf.c"
    file.write_text(FATAL)
    source = examine.open_source(file, guests.headers())
    row = examine.examine(guests, guests.kernel, source, source.object.programs)
    assert row.problem is None
    assert {name: seen.refusal.name for name, seen in row.programs.items()} == {
        "one": "libbpf",
        "two": "libbpf",
    }


def spinlock(*arguments):
    command = [sys.executable, "-m", "harness", "check", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


def test_a_text_through_bcc(guests):
    text = examine.open_text(HERE / "check/for_bcc.c", (), {})
    row = examine.examine(guests, guests.kernel, text, examine.choose(text, ()))
    assert row.problem is None
    reasons = {name: seen.refusal and seen.refusal.name for name, seen in row.programs.items()}
    assert reasons == {"count": None, "forget": "missing-unlock", "trace": "program-type"}


def test_a_text_that_does_not_compile(guests, tmp_path):
    file = tmp_path / "wrong.c"
    file.write_text("int count(struct xdp_md *ctx) { return no_such; }\n")
    text = examine.open_text(file, (), {})
    row = examine.examine(guests, guests.kernel, text, examine.choose(text, ()))
    assert row.problem.name == "compile"
    assert row.problem.line.startswith("wrong.c:1:") and "no_such" in row.problem.line


def test_the_command_says_no_by_its_exit_code():
    done = spinlock(HERE / "check/tutorial_1.bpf.c", "--kernel", "6.12", "--json")
    assert done.returncode == 1, done.stderr
    data = json.loads(done.stdout)
    programs = data["kernels"][0]["programs"]
    assert (
        programs["count"]["refusal"]["class"] == "call-under-lock" and programs["forget"]["loads"]
    )
    assert "tutorial_1.bpf.c" in programs["count"]["refusal"]["where"]
    verdicts = {field["field"]: field["verdict"] for field in data["lockset"]["fields"]}
    assert verdicts["packets"] == "NOT PROTECTED" and verdicts["bytes"] == "protected"


LOADER = """\
#!/bin/sh
exec bpftool prog load "$1" /sys/fs/bpf/own
"""


def test_own_loader_is_believed(guests, tmp_path, monkeypatch):
    """By its exit code, by the verifier's log that it prints, and by what it has loaded."""
    monkeypatch.chdir(tmp_path)
    for name, file in (("good.o", "tutorial_3.bpf.c"), ("refused.o", "tutorial_1.bpf.c")):
        source = examine.open_source(HERE / "check" / file, guests.headers())
        (tmp_path / name).write_bytes(source.data)
    (tmp_path / "mine").write_text(LOADER)
    (tmp_path / "mine").chmod(0o755)
    seen = {}
    for command in ("./mine good.o", "./mine refused.o", "bpftool version", "./mine gone.o"):
        loader = own_loader.open_loader(command, [], 30.0)
        row = own_loader.examine_loader(guests, guests.kernel, loader)
        seen[command] = row.programs[loader.name]
    assert seen["./mine good.o"].good and "exit code 0" in seen["./mine good.o"].told
    assert seen["./mine refused.o"].refusal.name in classes.BY_NAME
    assert "BEGIN PROG LOAD LOG" in seen["./mine refused.o"].log
    assert seen["./mine refused.o"].refusal.name != "loader"
    assert seen["bpftool version"].refusal.name == "loader-idle"
    assert seen["./mine gone.o"].refusal.name == "loader"


def test_the_example_in_python_prints_what_the_page_says():
    page = (ROOT / "docs/check.md").read_text(encoding="utf-8")
    code, printed = re.findall(
        r"```python\n(from harness\.check .*?)```\n```\n(.*?)```", page, re.DOTALL
    )[0]
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.stdout == printed, done.stderr


def test_damaged_objects(tmp_path):
    file = HERE / "check/tutorial_3.bpf.c"
    guests = choose.open_target(target.Settings("qemu", "6.12", 4), lambda message: None)
    (tmp_path / "x.o").write_bytes(examine.open_source(file, guests.headers()).data)
    guests.close()
    command = [sys.executable, str(ROOT / "benchmarks/damaged_objects.py"), "x.o", "--count", "40"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 without an answer, 0 guests lost" in done.stdout
