# SPDX-License-Identifier: GPL-2.0-only
"""Objects as the compiler leaves them, read and followed without a kernel."""

import random
import shutil
import struct
import subprocess
import textwrap

import pytest

from harness.check import lockset
from harness.provision import elf
from harness.provision.btf import Field, Malformed

pytestmark = pytest.mark.skipif(shutil.which("clang") is None, reason="needs clang")

# What the programs need of libbpf's headers, so that no image is needed.
HEAD = """
typedef unsigned int __u32; typedef unsigned long long __u64;
#define SEC(name) __attribute__((section(name), used))
#define __uint(name, val) int (*name)[val]
#define __type(name, val) typeof(val) *name
struct bpf_spin_lock { __u32 val; };
static void *(*lookup)(void *map, const void *key) = (void *) 1;
static long (*update)(void *map, const void *key, const void *value, __u64 flags) = (void *) 2;
static __u64 (*ktime)(void) = (void *) 5;
static long (*lock)(struct bpf_spin_lock *) = (void *) 93;
static long (*unlock)(struct bpf_spin_lock *) = (void *) 94;
static long (*loop)(__u32 n, void *callback, void *ctx, __u64 flags) = (void *) 181;
struct in { __u32 a, b; };
struct item { struct bpf_spin_lock lock; __u32 count; __u64 sum; struct in in; __u32 many[4]; };
struct { __uint(type, 1); __uint(max_entries, 4); __type(key, __u32); __type(value, struct item); }
    items SEC(".maps");
static inline __attribute__((always_inline)) struct item *find(__u32 key)
{ return lookup(&items, &key); }
"""


def compiled(tmp_path, text, cpu="v3", target="bpf"):
    source, result = tmp_path / "x.bpf.c", tmp_path / "x.o"
    source.write_text(HEAD + textwrap.dedent(text))
    options = ["-g", "-O2", "-target", target, f"-mcpu={cpu}"]
    subprocess.run(["clang", *options, "-c", str(source), "-o", str(result)], check=True)
    return result.read_bytes()


def findings(tmp_path, body, extra="", cpu="v3"):
    text = f'{extra}\nSEC("tc") int program(__u32 *ctx)\n{{ struct item *i; {body} return 0; }}\n'
    found = elf.read(compiled(tmp_path, text, cpu))
    assert not found.problem
    return lockset.analyse(found, found.programs)


def test_reads_programs_maps_and_lines(tmp_path):
    found = elf.read(compiled(tmp_path, 'SEC("tc") int one(void) { return find(1) ? 1 : 0; }'))
    assert found.programs == ("one",)
    (declared,) = found.maps.values()
    assert (declared.name, declared.type, declared.has_btf) == ("items", 1, True)
    names = [part.name for part in declared.fields]
    assert names == ["lock", "count", "sum", "in.a", "in.b", "many"]
    assert [lock.name for lock in declared.locks] == ["lock"]
    assert found.functions["one"].line(0)[0].endswith("x.bpf.c")


@pytest.mark.parametrize("cpu", ["v1", "v2", "v3"])
@pytest.mark.parametrize(
    "body, field, verdict",
    [
        (
            "if ((i = find(0))) { lock(&i->lock); i->count++; unlock(&i->lock); }",
            "count",
            "protected",
        ),
        ("if ((i = find(0))) i->count++;", "count", "never locked"),
        (
            "if ((i = find(0))) { lock(&i->lock); i->sum += 2; unlock(&i->lock); i->sum = 5; }",
            "sum",
            "NOT PROTECTED",
        ),
        (
            "if ((i = find(0))) { lock(&i->lock); i->sum += 2; unlock(&i->lock); return i->sum; }",
            "sum",
            "read without the lock",
        ),
        ("if ((i = find(0))) return i->in.b;", "in.b", "only read"),
        ("if ((i = find(0))) { lock(&i->lock); unlock(&i->lock); }", "in.a", "not touched"),
        (
            "if ((i = find(0))) { lock(&i->lock); i->many[*ctx & 3]++; unlock(&i->lock); }",
            "many",
            "protected",
        ),
        (
            "struct item *j = find(1); if ((i = find(0)) && j)"
            " { lock(&i->lock); i->count = 1; j->count = 1; unlock(&i->lock); }",
            "count",
            "NOT PROTECTED",
        ),
        (
            "if ((i = find(0))) __sync_fetch_and_add(&i->sum, 1);",
            "sum",
            "atomic, without the lock",
        ),
        (
            # The same place in a loop is another element each turn.
            "for (int n = 0; n < 4; n++) { i = find(n); if (!i) return 0;"
            " lock(&i->lock); i->count += n; unlock(&i->lock); }",
            "count",
            "protected",
        ),
    ],
)
def test_a_field(tmp_path, cpu, body, field, verdict):
    assert findings(tmp_path, body, cpu=cpu).verdict("items", field) == verdict


def test_follows_static_functions_and_spills(tmp_path):
    extra = """
    static __attribute__((noinline)) void add(struct item *i, int n) { i->count += n; i->sum += n; }
    """
    body = "if ((i = find(0))) { ktime(); lock(&i->lock); add(i, 1); add(i, 2); unlock(&i->lock); }"
    found = findings(tmp_path, body, extra)
    assert found.verdict("items", "count") == found.verdict("items", "sum") == "protected"


def test_follows_callbacks(tmp_path):
    extra = """
    static long each(__u32 n, struct item **ctx)
    { struct item *i = find(n); if (i) { lock(&i->lock); i->count++; unlock(&i->lock); i->sum = 1; }
      return 0; }
    """
    found = findings(tmp_path, "loop(4, each, &i, 0);", extra)
    assert found.verdict("items", "count") == "protected"
    assert found.verdict("items", "sum") == "never locked"


@pytest.mark.parametrize("name", ["bpf_wq_set_callback", "bpf_wq_set_callback_impl"])
def test_follows_work_that_is_put_off(tmp_path, name):
    """As udev-hid-bpf's ACK05 has it: its callback writes the state without the lock."""
    extra = f"""
    extern int {name}(void *work, void *callback, __u32 flags)
        __attribute__((section(".ksyms")));
    static int late(void *map, int *key, struct item *i) {{ i->count = 1; return 0; }}
    """
    body = f"""
    if ((i = find(0))) {{
        lock(&i->lock); i->count = 2; i->sum = 2; unlock(&i->lock); {name}(&i->many, late, 0);
    }}"""
    found = findings(tmp_path, body, extra)
    assert found.verdict("items", "count") == "NOT PROTECTED"
    assert found.verdict("items", "sum") == "protected"


@pytest.mark.parametrize(
    "flags, verdict", [(0, "never locked"), (1, "not touched"), (4, "protected")]
)
def test_whole_updates(tmp_path, flags, verdict):
    body = f"struct item n = {{}}; __u32 key = 1; update(&items, &key, &n, {flags});"
    assert findings(tmp_path, body).verdict("items", "count") == verdict


def test_files_that_are_no_objects(tmp_path):
    data = compiled(tmp_path, 'SEC("tc") int one(void) { return 0; }')
    big = compiled(tmp_path, 'SEC("tc") int one(void) { return 0; }', target="bpfeb")
    for damaged, text in (
        (b"", "not an ELF"),
        (b"int main;", "not an ELF"),
        (data[:200], "cut off or damaged"),
        (data[:4] + b"\1" + data[5:], "32-bit"),
        (data[:18] + b"\x3e\0" + data[20:], "machine 62"),
        (big, "big-endian"),
    ):
        with pytest.raises(Malformed, match=text):
            elf.read(damaged)


def test_two_names_of_one_function(tmp_path):
    text = """
        SEC("tc") int one(void) { struct item *i = find(1); if (i) i->count++; return 0; }
        int other(void) __attribute__((alias("one")));
    """
    found = elf.read(compiled(tmp_path, text))
    assert set(found.programs) == {"one", "other"}
    assert lockset.analyse(found, ["other"]).verdict("items", "count") == "never locked"


def test_an_object_whose_functions_have_no_type(tmp_path):
    """Clang 7 left them so; cilium/ebpf keeps such objects as test data."""
    data = bytearray(compiled(tmp_path, 'SEC("tc") int one(void) { return 0; }'))
    (headers,) = struct.unpack_from("<Q", data, 40)
    (count,) = struct.unpack_from("<H", data, 60)
    for at in range(headers, headers + 64 * count, 64):
        kind, _, _, start, size = struct.unpack_from("<IQQQQ", data, at + 4)
        for symbol in range(start, start + size, 24) if kind == 2 else ():
            if data[symbol + 4] & 15 == 2:
                data[symbol + 4] &= 0xF0
    with pytest.raises(Malformed, match="no symbol that is a function.*clang 9 or later"):
        elf.read(bytes(data))


@pytest.mark.parametrize("to", [-200, -2, 1, 200])
def test_a_jump_out_of_its_function_leads_nowhere(to):
    jump, leave = elf.Insn(0x05, 0, 0, to, 0), elf.Insn(0x95, 0, 0, 0, 0)
    program = elf.Function("program", "tc", [jump, leave])
    guarded = elf.Map("guarded", 2, True, (Field("lock", 0, 4, lock="bpf_spin_lock"),))
    found = elf.Object({"program": program}, ("program",), {"guarded": guarded})
    assert not lockset.analyse(found, found.programs).unfinished


def test_damaged_objects_end_in_an_answer(tmp_path):
    data = compiled(tmp_path, 'SEC("tc") int one(void) { return find(1) ? 1 : 0; }')
    random_ = random.Random(1)
    for _ in range(600):
        damaged = bytearray(data)
        for _ in range(random_.randint(1, 8)):
            damaged[random_.randrange(len(damaged))] = random_.randrange(256)
        try:
            found = elf.read(bytes(damaged[: random_.randint(1, len(damaged))]))
        except Malformed:
            continue
        lockset.analyse(found, found.programs)
