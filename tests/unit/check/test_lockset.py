# SPDX-License-Identifier: GPL-2.0-only
"""Objects as the compiler leaves them, read and followed without a kernel."""

import random
import shutil
import struct
import subprocess
import textwrap

import pytest

from harness.check import lockset, walk
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
            "read without the lock, by one load",
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
    "flags, verdict",
    [(0, "never locked"), (1, "not touched"), (4, "protected"), ("*ctx", "unknown")],
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


def test_one_load_is_whole_where_nothing_else_is_torn(tmp_path):
    def verdict(body):
        start = "if (!(i = find(0))) return 0; lock(&i->lock); i->sum = 1; i->in.a = 2;"
        return findings(tmp_path, start + body).verdict("items", "sum")

    whole = "read without the lock, by one load"
    half = 'asm volatile("*(u32 *)(%0 + 12) = %1" :: "r"(i), "r"(7) : "memory");'
    assert verdict("unlock(&i->lock); return i->sum;") == whole
    assert verdict("unlock(&i->lock); return *(__u32 *)&i->sum;") == "read without the lock"
    assert verdict(half + "unlock(&i->lock); return i->sum;") == "read without the lock"
    found = findings(
        tmp_path,
        "if (!(i = find(0))) return 0; lock(&i->lock); i->sum = 1;"
        " unlock(&i->lock); return i->sum;",
    )
    assert verdict("unlock(&i->lock); return i->sum + i->in.a;") == "read without the lock"
    (told,) = [line for line in found.lines() if "change:" in line]
    assert "an aligned load sees all of one store" in told


def test_an_element_of_an_array_is_the_same_by_the_same_key(tmp_path):
    extra = """
    struct { __uint(type, 2); __uint(max_entries, 4); __type(key, __u32); __type(value, struct item); }
        row SEC(".maps");
    static inline __attribute__((always_inline)) struct item *at(__u32 key)
    { return lookup(&row, &key); }"""
    body = "struct item *j = at({}); if ((i = at({})) && j)"
    body += " {{ lock(&i->lock); j->count = 1; unlock(&i->lock); }}"
    for keys, verdict in (
        ((1, 1), "protected"),
        ((1, 2), "never locked"),
        (("*ctx", 1), "never locked"),
    ):
        assert findings(tmp_path, body.format(*keys), extra).verdict("row", "count") == verdict


def test_an_extension_may_be_given_what_it_touches(tmp_path):
    locked = """
    SEC("tc") int locks(void *ctx) { struct item *i = find(0); if (i)
    { lock(&i->lock); i->count = 1; unlock(&i->lock); } return 0; }"""
    for given, verdict in (("struct item *i", "unknown"), ("struct xdp_md *i", "protected")):
        text = f'{locked} struct xdp_md; SEC("freplace/it") int replaces({given})'
        text += "{ if (i) *((__u32 *)i + 1) = 2; return 0; }"
        found = elf.read(compiled(tmp_path, text))
        assert lockset.analyse(found, found.programs).verdict("items", "count") == verdict


# -- what is touched besides loads and stores ------------------------------------------------------

MORE = """
static long (*output)(void *ring, void *data, __u64 size, __u64 flags) = (void *) 130;
static long (*comm)(void *buf, __u32 size) = (void *) 16;
static long (*probe)(void *dst, __u32 size, const void *from) = (void *) 113;
static long (*printk)(const char *fmt, __u32 size, ...) = (void *) 6;
static long (*dynptr)(void *data, __u32 size, __u64 flags, void *ptr) = (void *) 197;
static long (*sys_bpf)(__u32 command, void *attributes, __u32 size) = (void *) 166;
static long (*push)(void *map, const void *value, __u64 flags) = (void *) 87;
static long (*each)(void *map, void *callback, void *ctx, __u64 flags) = (void *) 164;
struct { __uint(type, 27); __uint(max_entries, 4096); } ring SEC(".maps");
struct wide { __u64 first, second; };
struct { __uint(type, 22); __uint(max_entries, 4); __type(value, struct wide); } queue SEC(".maps");
struct { __uint(type, 1); __uint(max_entries, 4); __type(key, __u32); __type(value, struct item); }
    others SEC(".maps");
extern void kernel_reads(const struct in *in) __attribute__((section(".ksyms")));
extern void kernel_writes(struct in *in) __attribute__((section(".ksyms")));
extern void kernel_sized(void *mem, int mem__sz) __attribute__((section(".ksyms")));
extern void kernel_opaque(void *mem) __attribute__((section(".ksyms")));
extern int kernel_text(const char *text) __attribute__((section(".ksyms")));
extern int kernel_words(const __u32 *words, __u32 count) __attribute__((section(".ksyms")));
extern int kernel_list(__u64 *addresses, __u32 size) __attribute__((section(".ksyms")));
extern struct in *kernel_part(void *mem, int mem__sz) __attribute__((section(".ksyms")));
"""
LOCKED = "if (!(i = find(0))) return 0; lock(&i->lock); i->count = 1; i->sum = 2; i->in.a = 3;"
LOCKED += " i->in.b = 4; i->many[1] = 5; unlock(&i->lock); "
PROTECTED = dict.fromkeys(("count", "sum", "in.a", "in.b", "many"), "protected")


@pytest.mark.parametrize(
    "body, other",
    [
        ("output(&ring, &i->count, 4, 0);", {"count": "read without the lock"}),
        (
            "output(&ring, &i->sum, 16, 0);",
            dict.fromkeys(("sum", "in.a", "in.b"), "read without the lock"),
        ),
        ("comm(&i->sum, 8);", {"sum": "NOT PROTECTED"}),
        ("comm(i->many, *ctx);", {"many": "unknown"}),
        (
            "struct in copy; probe(&copy, 8, &i->in); return copy.a;",
            {"in.a": "read without the lock", "in.b": "read without the lock"},
        ),
        (
            "push(&queue, &i->sum, 0);",
            dict.fromkeys(("sum", "in.a", "in.b"), "read without the lock"),
        ),
        ('static char text[] = "%s"; printk(text, 3, &i->many);', {"many": "unknown"}),
        ("__u64 space[2]; dynptr(&i->in, 8, 0, space);", {"in.a": "unknown", "in.b": "unknown"}),
        (
            "kernel_reads(&i->in);",
            {"in.a": "read without the lock", "in.b": "read without the lock"},
        ),
        (
            "kernel_writes(&i->in);",
            {"in.a": "read without the lock", "in.b": "read without the lock"},
        ),
        ("kernel_sized(&i->in.b, 4);", {"in.b": "read without the lock"}),
        ("kernel_opaque(&i->in.b);", {"in.b": "unknown", "many": "unknown"}),
        (
            "kernel_text((char *)&i->in);",
            {"in.a": "read without the lock", "in.b": "unknown", "many": "unknown"},
        ),
        # How many words they are, or how many bytes, is not said.
        ("kernel_words(&i->in.a, 2);", {"in.a": "read without the lock", "in.b": "unknown"}),
        (
            "__u64 a[1] = { (__u64)&i->in.b }; kernel_list(a, 8);",
            {"in.b": "unknown", "many": "unknown"},
        ),
        # Of memory of a size that is not known, which begins at the lock.
        (
            "char to[64]; __u32 size = *ctx & 63; probe(to, size, i); return to[5];",
            dict.fromkeys(PROTECTED, "unknown"),
        ),
        ("sys_bpf(2, ctx, 8);", dict.fromkeys(PROTECTED, "unknown")),
        # An address in memory that is not followed, or one that an atomic instruction gives back.
        ("*(void **)(ctx + 2) = &i->many;", {"many": "unknown"}),
        (
            "struct item *slot = i; struct item *volatile *at = &slot;"
            " struct item *got = (void *)__sync_lock_test_and_set((__u64 *)at, 0); got->sum = 1;",
            {"sum": "NOT PROTECTED"},
        ),
        (
            "kernel_part(&i->sum, 8)->a = 1;",
            dict.fromkeys(PROTECTED, "unknown") | {"sum": "read without the lock"},
        ),
        (
            "struct item *o = *ctx ? i : lookup(&others, ctx); if (o) o->sum = 1;",
            {"sum": "NOT PROTECTED"},
        ),
        ("((char *)i)[4 + (*ctx & 15)] = 1;", dict.fromkeys(("count", "sum", "in.a"), "unknown")),
        ("if (*ctx < 4) i->many[*ctx] = 1;", {"many": "NOT PROTECTED"}),
        (
            "struct item copy = {}; struct item *p = *ctx ? i : &copy; p->sum = 1;",
            {"sum": "NOT PROTECTED"},
        ),
        (
            "struct wide w = *(struct wide *)&i->sum; return w.first + w.second;",
            dict.fromkeys(("sum", "in.a", "in.b"), "read without the lock"),
        ),
    ],
)
def test_memory_given_counts_with_its_size(tmp_path, body, other):
    found = findings(tmp_path, LOCKED + body, MORE)
    seen = {field: found.verdict("items", field) for field in PROTECTED}
    assert seen == {**PROTECTED, **other}


def test_a_pointer_that_may_be_of_either_map_counts_for_both(tmp_path):
    body = """
    i = *ctx ? lookup(&items, ctx) : lookup(&others, ctx);
    if (i) { i->count = 1; lock(&i->lock); i->sum = 1; unlock(&i->lock); }"""
    found = findings(tmp_path, body, MORE)
    for name in ("items", "others"):
        assert found.verdict(name, "count") == "never locked"
        assert found.verdict(name, "sum") == "protected"


@pytest.mark.parametrize(
    "body",
    [
        # Which of the two is locked, and which is written, changes with a condition.
        """struct item *a = find(1), *b = find(2), *p, *q; if (!a || !b) return 0;
        if (*ctx) { p = a; q = b; } else { p = b; q = a; }
        asm volatile("" : "+r"(p), "+r"(q));
        lock(&p->lock); q->count = 1; unlock(&p->lock);""",
        # What the turn before found is another element.
        """struct item *before = find(9); if (!before) return 0;
        for (int n = 0; n < 100; n++) { i = find(n); if (!i) return 0;
        lock(&i->lock); before->count = n; unlock(&i->lock); before = i; }""",
        """struct item *one = find(9), *two = one; if (!one) return 0;
        for (int n = 0; n < 100; n++) { i = find(n); if (!i) return 0;
        lock(&one->lock); two->count = n; unlock(&one->lock); two = one; one = i; }""",
        # A lock that is held on one of two paths only.
        """i = find(0); if (!i) return 0; if (*ctx) lock(&i->lock);
        i->count = 1; if (*ctx) unlock(&i->lock);""",
        # NULL in one register tells nothing of another.
        """struct item *q = 0; i = find(0); if (!i) return 0;
        if (*ctx) q = i; asm volatile("" : "+r"(q));
        lock(&i->lock); i->count = 2; unlock(&i->lock); if (!q) i->count = 1;""",
    ],
)
def test_an_element_is_not_taken_for_another(tmp_path, body):
    found = findings(tmp_path, body)
    assert found.verdict("items", "count") in ("NOT PROTECTED", "never locked")


def test_callbacks_run_any_number_of_times_and_later_for_every_map(tmp_path):
    extra = MORE + """
    extern int bpf_wq_set_callback(void *work, void *callback, __u32 flags)
        __attribute__((section(".ksyms")));
    static int late(void *map, int *key, struct item *i) { i->count = 1; return 0; }
    static long visit(void *map, __u32 *key, struct item *i, void *ctx) { i->sum = 1; return 0; }
    """
    body = """
    if ((i = find(0))) bpf_wq_set_callback(&i->many, late, 0);
    if ((i = lookup(&others, ctx))) bpf_wq_set_callback(&i->many, late, 0);
    each(&others, visit, 0, 0);"""
    found = findings(tmp_path, body, extra)
    assert found.verdict("items", "count") == found.verdict("others", "count") == "never locked"
    assert found.verdict("others", "sum") == "never locked"


RESILIENT = """
struct bpf_res_spin_lock { __u32 val; };
struct res { struct bpf_res_spin_lock lock; __u32 n; __u64 m; };
struct { __uint(type, 2); __uint(max_entries, 4); __type(key, __u32); __type(value, struct res); }
    resilient SEC(".maps");
extern int bpf_res_spin_lock(struct bpf_res_spin_lock *) __attribute__((section(".ksyms")));
extern void bpf_res_spin_unlock(struct bpf_res_spin_lock *) __attribute__((section(".ksyms")));
"""


def test_a_lock_that_may_fail_is_held_if_it_has_not(tmp_path):
    body = """
    struct res *r = lookup(&resilient, ctx);
    if (!r) return 0;
    if (bpf_res_spin_lock(&r->lock)) { r->m = 1; return 0; }
    r->n = 1; r->m = 2; bpf_res_spin_unlock(&r->lock);"""
    found = findings(tmp_path, body, RESILIENT)
    assert found.verdict("resilient", "n") == "protected"
    assert found.verdict("resilient", "m") == "NOT PROTECTED"


# -- locks elsewhere -------------------------------------------------------------------------------

GLOBALS = """
struct guard { struct bpf_spin_lock lock; };
struct { __uint(type, 1); __uint(max_entries, 4); __type(key, __u32); __type(value, struct guard); }
    guards SEC(".maps");
struct { __uint(type, 1); __uint(max_entries, 4); __type(key, __u32); __type(value, struct in); }
    plain SEC(".maps");
static struct bpf_spin_lock only SEC(".data.only");
static volatile __u32 beside SEC(".data.only");
static volatile __u32 counted, forgotten, unrelated;
"""


def test_a_global_lock_guards_what_is_touched_under_it(tmp_path):
    body = """
    struct in *p = lookup(&plain, ctx);
    unrelated = 1; forgotten = 1;
    lock(&only); counted++; beside++; forgotten++; if (p) p->a++; unlock(&only);"""
    found = findings(tmp_path, body, GLOBALS)
    assert found.verdict(".data.only", "beside") == "protected"
    assert found.verdict(".bss", "counted") == found.verdict("plain", "a") == "protected"
    assert found.verdict(".bss", "forgotten") == "NOT PROTECTED"
    assert "by .data.only.only" in "\n".join(found.lines())
    with pytest.raises(KeyError):
        found.verdict(".bss", "unrelated")


def test_a_lock_in_another_map_is_tied_to_nothing(tmp_path):
    body = """
    struct guard *g = lookup(&guards, ctx); struct in *p = lookup(&plain, ctx);
    if (!g || !p) return 0;
    lock(&g->lock); p->a = 1; p->b = 1; unlock(&g->lock); p->b = 2;"""
    found = findings(tmp_path, body, GLOBALS)
    assert found.verdict("plain", "a") == "unknown"
    assert found.verdict("plain", "b") == "changed under another lock and without any"
    assert "guards.lock" in "\n".join(found.lines())


def test_fields_of_the_kernel_and_bits_that_share_a_byte(tmp_path):
    extra = """
    struct bpf_timer { __u64 opaque[2]; };
    struct bpf_list_head { __u64 opaque[2]; };
    struct whole {
        struct bpf_spin_lock lock; __u32 low : 3, high : 5; __u32 apart; struct bpf_timer timer;
        struct { struct bpf_list_head head; __u64 n; } lists[2];
        char __attribute__((btf_type_tag("kptr"))) *kept; __u64 after;
        union { __u32 left; __u64 right; };
    };
    struct { __uint(type, 1); __uint(max_entries, 4); __type(key, __u32);
        __type(value, struct whole); } wholes SEC(".maps");
    static long (*timer_start)(void *, __u64, __u64) = (void *) 171;
    extern struct in *pop_front(struct bpf_list_head *) __attribute__((section(".ksyms")));
    """
    body = """
    struct whole *w = lookup(&wholes, ctx);
    if (!w) return 0;
    w->low = *ctx; timer_start(&w->timer, 1, 0);
    struct in *popped = pop_front(&w->lists[0].head); if (popped) popped->b = 1;
    lock(&w->lock); w->after = 1; w->lists[1].n = 2; unlock(&w->lock);"""
    found = findings(tmp_path, body, extra)
    verdicts = {each.field: each.verdict for each in found.fields}
    assert verdicts["low"] == verdicts["high"] == "never locked"
    assert verdicts["apart"] == verdicts["left|right"] == "not touched"
    assert verdicts["after"] == verdicts["lists[1].n"] == "protected"
    kernels = [name for name, verdict in verdicts.items() if verdict == "the kernel's"]
    assert kernels == ["timer", "lists[0].head", "lists[1].head", "kept"]
    assert "wholes.timer" in "\n".join(found.lines())


def test_maps_that_are_reached_through_a_map_of_maps(tmp_path):
    extra = """
    struct inner { __uint(type, 2); __uint(max_entries, 4); __type(key, __u32);
        __type(value, struct item); } held SEC(".maps");
    struct { __uint(type, 12); __uint(max_entries, 1); __type(key, __u32);
        struct inner *values[]; } outer SEC(".maps") = { .values = { &held } };
    """
    body = """
    void *in = lookup(&outer, ctx);
    if (in && (i = lookup(in, ctx))) i->sum = 1;
    if ((i = lookup(&held, ctx))) { lock(&i->lock); i->sum = 2; i->count = 2; unlock(&i->lock); }"""
    found = findings(tmp_path, body, extra)
    assert found.verdict("held", "sum") == found.verdict("outer[]", "sum") == "NOT PROTECTED"
    assert found.verdict("held", "count") == "protected"
    # Whether user space puts it there is not known.
    found = findings(
        tmp_path,
        body,
        extra.replace("held SEC", 'held SEC(".maps"), other SEC').replace("&held", "&other"),
    )
    assert found.verdict("held", "sum") == "unknown"
    assert found.verdict("held", "count") == "protected"


@pytest.mark.parametrize(
    "kind, value, text",
    [
        (9, "struct item", "others: a map of type LRU_HASH holds no lock: not judged"),
        (1, "struct two", "others: first.lock and second.lock in one value"),
    ],
)
def test_locks_that_no_kernel_takes_are_not_judged(tmp_path, kind, value, text):
    extra = f"""
    struct two {{ struct item first, second; __u32 count; }};
    struct {{ __uint(type, {kind}); __uint(max_entries, 4); __type(key, __u32);
        __type(value, {value}); }} others SEC(".maps");
    """
    body = f"{value} *o = lookup(&others, ctx); if (o) o->count = 1;"
    found = findings(tmp_path, body, extra)
    assert text in "\n".join(found.lines())
    assert not [each for each in found.fields if each.map == "others"]


def test_what_is_not_followed_makes_all_unknown(tmp_path):
    extra = MORE + """
    extern void call_me(void *callback) __attribute__((section(".ksyms")));
    static int strange(struct item *i) { i->sum = 1; return 0; }
    """
    found = findings(tmp_path, LOCKED + "call_me(strange);", extra)
    assert {found.verdict("items", field) for field in PROTECTED} == {"unknown"}
    assert "unknown, because a pointer was not followed: x.bpf.c:" in "\n".join(found.lines())


# -- advice ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "section, body, text",
    [
        ("tc", "struct item n = {}; update(&items, ctx, &n, 0);", "BPF_NOEXIST"),
        ("tc", "__sync_fetch_and_add(&i->sum, 1);", "does not wait for the lock"),
        ("tc", "i->sum = 7;", "Take the lock there"),
        ("tracepoint/x/y", "i->sum = 7;", "may not touch a map with a lock"),
        ("tc", "output(&ring, &i->sum, 8, 0);", "give the copy"),
        ("tc", "return i->sum + i->count;", "into a local variable"),
    ],
)
def test_advice_fits_what_is_wrong(tmp_path, section, body, text):
    code = f"""{MORE}
    SEC("tc") int right(__u32 *ctx) {{ struct item *i; {LOCKED} return 0; }}
    SEC("{section}") int wrong(__u32 *ctx)
    {{ struct item *i = find(1); if (!i) return 0; {body} return 0; }}"""
    found = elf.read(compiled(tmp_path, code))
    lines = lockset.analyse(found, found.programs).lines()
    (advice,) = [line for line in lines if line.startswith("    change: ")]
    assert text in advice


def test_alike_fields_are_told_once(tmp_path):
    found = findings(tmp_path, LOCKED + "i->count = i->in.a = 7;", MORE)
    lines = found.lines()
    assert any(line.startswith("  items.sum, in.b, many ") for line in lines)
    assert len([line for line in lines if "NOT PROTECTED" in line]) <= 2


def test_a_loop_reaches_no_further_than_its_array(tmp_path):
    """The compiler makes a pointer that is moved of the index; its end is that of the loop."""
    extra = """
    struct long_ { struct bpf_spin_lock lock; __u32 before; __u64 turns[64]; __u64 after; };
    struct { __uint(type, 1); __uint(max_entries, 4); __type(key, __u32);
        __type(value, struct long_); } longs SEC(".maps");
    """
    body = """
    struct long_ *l = lookup(&longs, ctx);
    if (!l) return 0;
    lock(&l->lock); l->before = l->after = 1; unlock(&l->lock);
    for (int n = 0; n < 64; n++) l->turns[n] = *(volatile __u32 *)ctx;"""
    found = findings(tmp_path, body, extra)
    assert found.verdict("longs", "turns") == "never locked"
    assert found.verdict("longs", "before") == found.verdict("longs", "after") == "protected"


def test_a_struct_that_is_only_named_is_not_passed_over(tmp_path):
    text = """
    struct hidden; struct { __uint(type, 1); __uint(max_entries, 4); __type(key, __u32);
        struct hidden *value; } named SEC(".maps");
    SEC("tc") int program(__u32 *ctx) { return lookup(&named, ctx) ? 1 : 0; }"""
    found = elf.read(compiled(tmp_path, text))
    notes = lockset.analyse(found, found.programs).notes
    assert "named: the object only names the struct of its value: not judged" in notes


def test_what_is_too_large_is_unknown(tmp_path, monkeypatch):
    monkeypatch.setattr(walk, "MOST_OF_ALL", 40)
    found = findings(tmp_path, LOCKED)
    assert found.unfinished == ("program",)
    first, *_ = found.fields
    assert first.said.startswith("unknown, because the program is too large to be followed")
