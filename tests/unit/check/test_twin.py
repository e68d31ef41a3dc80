# SPDX-License-Identifier: GPL-2.0-only
"""The twin of an object, and what is read in its programs, without a kernel."""

import shutil
import subprocess
import textwrap

import pytest

from harness.check import inputs, lockset, nature, twin
from harness.errors import UsageError
from harness.provision import elf

needs_clang = pytest.mark.skipif(shutil.which("clang") is None, reason="needs clang")

HEAD = """
typedef unsigned int __u32; typedef unsigned long long __u64;
#define SEC(name) __attribute__((section(name), used))
#define __uint(name, val) int (*name)[val]
#define __type(name, val) typeof(val) *name
struct bpf_spin_lock { __u32 val; };
struct bpf_res_spin_lock { __u32 val; };
extern int bpf_res_spin_lock(struct bpf_res_spin_lock *) __attribute__((section(".ksyms")));
extern void bpf_res_spin_unlock(struct bpf_res_spin_lock *) __attribute__((section(".ksyms")));
static void *(*lookup)(void *map, const void *key) = (void *) 1;
static long (*erase)(void *map, const void *key) = (void *) 3;
static __u64 (*ktime)(void) = (void *) 5;
static long (*lock)(struct bpf_spin_lock *) = (void *) 93;
static long (*unlock)(struct bpf_spin_lock *) = (void *) 94;
static long (*loop)(__u32 n, void *callback, void *ctx, __u64 flags) = (void *) 181;
struct item { struct bpf_spin_lock lock; __u32 count; __u64 sum; };
struct { __uint(type, 1); __uint(max_entries, 4); __type(key, __u32); __type(value, struct item); }
    items SEC(".maps");
struct res { struct bpf_res_spin_lock lock; __u32 count; };
struct { __uint(type, 1); __uint(max_entries, 4); __type(key, __u32); __type(value, struct res); }
    others SEC(".maps");
#define LOCKED(i, what) do { lock(&(i)->lock); what; unlock(&(i)->lock); } while (0)
"""


def compiled(tmp_path, text):
    source, result = tmp_path / "x.bpf.c", tmp_path / "x.o"
    source.write_text(HEAD + textwrap.dedent(text))
    options = ["-g", "-O2", "-target", "bpf", "-mcpu=v3", "-c", str(source), "-o", str(result)]
    subprocess.run(["clang", *options], check=True)
    return result.read_bytes()


def program(tmp_path, body, extra=""):
    start = "__u32 key = 0; struct item *i = lookup(&items, &key); if (!i) return 0;"
    return compiled(
        tmp_path, f'{extra}\nSEC("tc") int one(__u32 *ctx) {{ {start} {body} return 0; }}'
    )


def calls(data):
    found = elf.read(data).functions["one"]
    return [(i.src, i.imm) for i in found.insns if i.code == 0x85]


@needs_clang
def test_the_twin_makes_all_calls_but_those_of_the_lock(tmp_path):
    data = program(tmp_path, "LOCKED(i, i->count++); i->sum = ktime();")
    twinned = twin.without_locks(data)
    assert [imm for _, imm in calls(data)] == [1, 93, 94, 5]
    assert [imm for _, imm in calls(twinned)] == [1, 5] and len(twinned) == len(data)
    assert elf.read(twinned).maps == elf.read(data).maps


@needs_clang
def test_the_twin_of_a_res_spin_lock_has_no_kernel_function(tmp_path):
    body = (
        "struct res *r = lookup(&others, &key); if (r && !bpf_res_spin_lock(&r->lock))"
        " { r->count++; bpf_res_spin_unlock(&r->lock); }"
    )
    data = program(tmp_path, body)
    kinds = [t.kind for t in elf.read(data).functions["one"].targets.values()]
    assert kinds.count("extern") == 2
    found = elf.read(twin.without_locks(data)).functions["one"]
    assert sorted(t.name for t in found.targets.values()) == ["items", "others"]
    assert len([insn for insn in found.insns if insn.code == 0x85]) == 2


def reads(tmp_path, body, extra=""):
    found = elf.read(program(tmp_path, body, extra))
    return nature.of_programs(found, ["one"], lockset.analyse(found, found.programs))


@needs_clang
@pytest.mark.parametrize(
    "body, sections",
    [
        ("i->sum = 1;", 0),
        ("LOCKED(i, i->count++);", 1),
        ("if (*ctx) LOCKED(i, i->count++); else LOCKED(i, i->sum += 2);", 1),
        ("LOCKED(i, i->count++); ktime(); LOCKED(i, i->sum++);", 2),
        ("for (int n = 0; n < 100; n++) { LOCKED(i, i->count++); ktime(); }", nature.MANY),
        ("loop(5, each, i, 0);", nature.MANY),
        ("inner(i);", 1),
        ("inner(i); inner(i);", 2),
    ],
)
def test_sections_of_a_run(tmp_path, body, sections):
    extra = (
        "static __attribute__((noinline)) void inner(struct item *i) { LOCKED(i, i->count++); }\n"
        "static long each(__u32 n, struct item *i) { LOCKED(i, i->count++); return 0; }"
    )
    assert reads(tmp_path, body, extra).sections == sections


@needs_clang
def test_what_makes_comparisons_doubtful(tmp_path):
    plain = reads(tmp_path, "LOCKED(i, i->count++);")
    assert plain == nature.Nature(1)
    assert reads(tmp_path, "__u64 t = ktime(); LOCKED(i, i->sum = t);").clock
    assert reads(tmp_path, "erase(&items, &key);").deletes
    assert not reads(tmp_path, "__sync_fetch_and_add(&i->sum, 1);").tickets
    assert reads(
        tmp_path, "__u64 n = __sync_fetch_and_add(&i->sum, 1); key = n; erase(&items, &key);"
    ).tickets
    loose = reads(tmp_path, "__u32 n = i->count; LOCKED(i, i->count = n + 1);").loose
    assert loose == {("items", "count")}


def test_packets_are_whole():
    made = inputs.packets()
    assert all(len(data) >= 2 * 60 for data in made.values())
    assert inputs.given(made["UDP"]) == made["UDP"]


@pytest.mark.parametrize("word", ["no such file", "00" * 5, "xyz"])
def test_a_packet_that_is_none(word):
    with pytest.raises(UsageError, match="--packet"):
        inputs.given(word)


def test_a_packet_of_a_file(tmp_path):
    (tmp_path / "p").write_bytes(bytes(range(64)))
    assert inputs.given(str(tmp_path / "p")) == bytes(range(64)).hex()
