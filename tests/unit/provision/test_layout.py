# SPDX-License-Identifier: GPL-2.0-only
"""Types of objects as the compiler leaves them: what is read and written, and what is refused."""

import shutil
import struct
import subprocess

import pytest

from harness.provision.btf import Malformed
from harness.provision.layout import Misfit, Misnamed, Types, Value

pytestmark = pytest.mark.skipif(shutil.which("clang") is None, reason="needs clang")

TEXT = """
typedef unsigned char __u8; typedef unsigned short __u16; typedef int __s32;
typedef unsigned int __u32; typedef unsigned long long __u64;
#define SEC(name) __attribute__((section(name), used))
#define __uint(name, val) int (*name)[val]
#define __type(name, val) typeof(val) *name
struct bpf_spin_lock { __u32 val; };
enum color { RED, GREEN = 7 };
struct pair { __u16 first, second; };
struct all {
    struct bpf_spin_lock lock;
    __s32 below;
    __u8 small;
    char text[5];
    __u32 many[3];
    struct pair pairs[2];
    union { __u64 whole; struct { __u32 low, high; }; };
    enum color color;
    void *pointer;
    const volatile __u64 count;
};
struct operation { __u64 ticket, arrive, leave; __u32 element, bare; };
struct odd { __u32 a, b; __u8 c; } __attribute__((packed));
struct bits { __u32 few : 3, more : 29; };
struct key { __u64 inode; __u32 type; };
struct { __uint(type, 2); __type(key, __u32); __type(value, struct all); } state SEC(".maps");
struct { __uint(type, 6); __type(key, __u32); __type(value, struct operation); } runs SEC(".maps");
struct { __uint(type, 6); __type(key, __u32); __type(value, struct odd); } odds SEC(".maps");
struct { __uint(type, 2); __type(key, __u32); __type(value, struct bits); } few SEC(".maps");
struct { __uint(type, 1); __type(key, struct key); __type(value, __u64); } number SEC(".maps");
struct { __uint(type, 2); __uint(key_size, 4); __uint(value_size, 8); } untyped SEC(".maps");
static __u64 variable SEC(".data.shared") = 1;
SEC("tc") int program(void *ctx) { return (int)variable++; }
"""


def compiled(directory, options=("-g",)):
    source, result = directory / "x.bpf.c", directory / "x.o"
    source.write_text(TEXT)
    command = ["clang", *options, "-O2", "-target", "bpf", "-c", str(source), "-o", str(result)]
    subprocess.run(command, check=True)
    return result.read_bytes()


@pytest.fixture(scope="module")
def types(tmp_path_factory):
    return Types(compiled(tmp_path_factory.mktemp("object")))


def test_a_map_knows_its_types(types):
    key, value, per_cpu = types.map("state")
    assert (key.name, value.name, value.size, per_cpu) == ("__u32", "struct all", 72, False)
    assert types.map("runs").per_cpu
    assert types.map("number").key.name == "struct key"
    assert types.map("number").value.name == "__u64"


def test_members_are_where_the_compiler_put_them(types):
    value = types.layout("struct all")
    assert value.span("lock") == (0, 4) and value.span("lock.val") == (0, 4)
    assert value.span("text") == (9, 14) and value.span("many") == (16, 28)
    assert value.span("high") == (44, 48) and value.span("count") == (64, 72)


def test_what_is_written_is_read(types):
    value = types.layout("struct all")
    written = {
        "lock": {"val": 9},
        "below": -2,
        "small": 255,
        "text": b"abcde",
        "many": (1, 2),
        "pairs": [{"first": 3}, {"second": 4}],
        "high": 5,
        "color": 7,
        "pointer": 1 << 63,
        "count": (1 << 64) - 1,
    }
    data = value.encode(written)
    assert len(data) == value.size
    assert struct.unpack_from("<IiB5s", data) == (9, -2, 255, b"abcde")
    seen = value.decode(data)
    assert (seen.lock.val, seen.below, seen.text, seen.many) == (9, -2, b"abcde", [1, 2, 0])
    assert [(each.first, each.second) for each in seen.pairs] == [(3, 0), (0, 4)]
    assert (seen.whole, seen.low, seen.high) == (5 << 32, 0, 5)
    assert (seen.color, seen.pointer, seen.count) == (7, 1 << 63, (1 << 64) - 1)
    assert value.decode(value.encode({name: getattr(seen, name) for name in written})) == seen
    assert value.encode({}) == bytes(value.size) and value.encode(data) == data


def test_values_of_all_cpus(types):
    runs = types.map("runs").value
    data = b"".join(runs.encode({"ticket": n, "leave": 2 * n, "element": n}) for n in range(4))
    assert [each.leave for each in runs.decode_each(data)] == [0, 2, 4, 6]
    assert list(runs.rows(data, "ticket", "element")) == [(0, 0), (1, 1), (2, 2), (3, 3)]
    assert list(runs.rows(data, "element", "leave")) == [(n, 2 * n) for n in range(4)]
    total = Value.total(runs.decode_each(data))
    assert (total.ticket, total.leave, dict(total)["bare"]) == (6, 12, 0)


def test_values_of_an_odd_size_lie_eight_bytes_apart(types):
    odd = types.map("odds").value
    assert (odd.size, odd.stride) == (9, 16)
    data = b"".join(odd.encode({"a": n, "c": n}).ljust(16, b"x") for n in (1, 2))
    assert list(odd.rows(data, "a", "c")) == [(1, 1), (2, 2)]
    assert [each.c for each in odd.decode_each(data)] == [1, 2]


@pytest.mark.parametrize(
    "ask, words",
    [
        (
            lambda t: t.map("runs").value.decode(bytes(32)).tickets,
            "struct operation.*'tickets'.*: ticket",
        ),
        (
            lambda t: t.map("runs").value.encode({"elment": 1}),
            "struct operation.*'elment'.*: element",
        ),
        (lambda t: t.map("runs").value.span("leaf"), "no member 'leaf'; the nearest are: leave"),
        (lambda t: t.map("runs").value.rows(b"", "zzz"), "'zzz'.*: ticket, arrive, leave, element"),
        (
            lambda t: t.layout("struct all").span("lock.value"),
            "struct bpf_spin_lock.*'value'.*: val",
        ),
        (lambda t: t.map("stat"), "the object has no map 'stat'; the nearest are: state"),
        (lambda t: t.layout("struct operatoin"), "no type .*: struct operation"),
    ],
)
def test_a_misspelt_name_is_one_sentence(types, ask, words):
    with pytest.raises(Misnamed, match=words) as raised:
        ask(types)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "ask, words",
    [
        (lambda t: t.map("runs").value.decode(bytes(31)), "struct operation has 32 bytes, not 31"),
        (lambda t: t.map("runs").value.decode_each(bytes(33)), "33 bytes are no whole number"),
        (
            lambda t: t.map("runs").value.encode({"element": 1 << 32}),
            "no value of __u32, of 4 bytes",
        ),
        (lambda t: t.map("runs").value.encode(5), "5 is no value of struct operation"),
        (lambda t: t.map("number").value.encode({}), r"\{\} is no value of __u64"),
        (lambda t: t.layout("struct all").encode({"many": range(4)}), "no room for 4 elements"),
        (
            lambda t: t.layout("struct all").encode({"text": b"abc"}),
            r"char\[5\] has 5 bytes, not 3",
        ),
        (lambda t: t.layout("struct all").rows(b"", "pairs"), "pairs of struct all is no number"),
        (lambda t: t.layout("struct all").rows(b"", "whole", "low"), "is no number of its own"),
    ],
)
def test_what_does_not_fit_is_one_sentence(types, ask, words):
    with pytest.raises(Misfit, match=words):
        ask(types)


def test_a_section_of_variables_is_read_as_one_is_told(types):
    with pytest.raises(Malformed, match="does not name the type"):
        types.map(".data.shared")
    key, value, _ = types.map(".data.shared", "struct key")
    assert (key.size, value.size) == (4, 16)


def test_what_is_not_read_is_refused(types, tmp_path):
    with pytest.raises(Malformed, match="struct bits.few is a bit field"):
        types.map("few")
    with pytest.raises(Malformed, match="the map untyped does not name"):
        types.map("untyped")
    with pytest.raises(Malformed, match="no BTF"):
        Types(compiled(tmp_path, options=()))


def test_a_history_is_read_as_fast_as_by_a_format_of_ones_own(types):
    """By the very same reader: what differs is only that bytes which nobody asked for are skipped."""
    runs = types.map("runs").value
    data = struct.pack("<QQQII", 1, 2, 3, 4, 5) * 200_000
    assert sum(ticket for ticket, *_ in runs.rows(data, "ticket", "arrive", "leave")) == 200_000
    assert type(runs.rows(data, "ticket")) is type(struct.iter_unpack("<Q", b""))
