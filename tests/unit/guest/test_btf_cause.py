# SPDX-License-Identifier: GPL-2.0-only
"""The members for which a BTF is refused, found by trying; here a kernel is what a test says."""

import struct

from harness.guest import btf_cause

INT, PTR, STRUCT, TYPE_TAG, DECL_TAG, FLOAT = 1, 2, 4, 18, 17, 16


class Making:
    """A BTF that is being written."""

    def __init__(self):
        self.types, self.strings, self.count = b"", b"\0", 0

    def name(self, text):
        at = len(self.strings)
        self.strings += text.encode() + b"\0"
        return at if text else 0

    def add(self, kind, name, ref, rest=b"", count=0, flag=0):
        head = (self.name(name), flag << 31 | kind << 24 | count, ref)
        self.types += struct.pack("<III", *head) + rest
        self.count += 1
        return self.count

    def integer(self, name="int", size=4):
        return self.add(INT, name, size, struct.pack("<I", size * 8))

    def structure(self, name, *members, wide=False):
        rest = b""
        for index, (member, kind, bits) in enumerate(members):
            offset = bits << 24 | index * 64 if wide else index * 64
            rest += struct.pack("<III", self.name(member), kind, offset)
        return self.add(STRUCT, name, 8 * len(members), rest, len(members), int(wide))

    def data(self):
        size = len(self.types)
        head = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, size, size, len(self.strings))
        return head + self.types + self.strings


def members(data, name):
    """The members of a structure as (name, type, raw offset)."""
    types = btf_cause._Types(data)
    return [p for p in types.parts if types.kinds[p.owner][1] == name]


def test_a_bitfield_beside_a_lock():
    made = Making()
    number = made.integer()
    lock = made.structure("bpf_spin_lock", ("val", number, 0))
    made.structure("sample", ("low", number, 3), ("lock", lock, 0), ("n", number, 0), wide=True)
    tried = []

    def loads(data):
        tried.append(data)
        parts = {part.name: part for part in members(data, "sample")}
        return not (parts["low"].bits and parts["lock"].type == lock)

    found = btf_cause.find(made.data(), loads)
    assert found == [{"in": "struct sample", "member": "low", "type": "a bitfield of 3 bits"}]
    assert len(tried) < 20


def test_two_of_several_structures():
    made = Making()
    number, real = made.integer(), made.add(FLOAT, "double", 8)
    tagged = made.add(PTR, "", made.add(TYPE_TAG, "rcu", number))
    made.structure("fine", ("a", number, 0), ("b", tagged, 0))
    made.structure("one", ("a", number, 0), ("where", tagged, 0))
    made.structure("two", ("ratio", real, 0))

    def loads(data):
        where = members(data, "one")[1].type != tagged
        return where and members(data, "two")[0].type != real

    assert btf_cause.find(made.data(), loads) == [
        {"in": "struct one", "member": "where", "type": "a pointer with the type tag 'rcu'"},
        {"in": "struct two", "member": "ratio", "type": "a floating-point number"},
    ]


def test_of_two_locks_the_second_is_the_cause_and_of_a_head_the_head():
    made = Making()
    number = made.integer()
    lock = made.structure("bpf_spin_lock", ("val", number, 0))
    made.structure("both", ("first", lock, 0), ("n", number, 0), ("second", lock, 0))

    def loads(data):
        return [part.type for part in members(data, "both")].count(lock) < 2

    found = btf_cause.find(made.data(), loads)
    assert found == [{"in": "struct both", "member": "second", "type": "struct bpf_spin_lock"}]


def test_a_tag_is_a_cause():
    made = Making()
    number = made.integer()
    made.structure("s", ("n", number, 0))
    made.add(DECL_TAG, "odd", 2, struct.pack("<i", 0))

    def loads(data):
        return not any(part.name == "odd" for part in btf_cause._Types(data).parts)

    assert btf_cause.find(made.data(), loads) == [
        {"in": "the tags", "member": "odd", "type": "a tag on struct s"}
    ]


def test_what_is_refused_whatever_is_taken_out_has_no_cause_here():
    made = Making()
    made.structure("s", ("n", made.integer(), 0))
    assert btf_cause.find(made.data(), lambda data: False) == []
    assert btf_cause.find(made.data()[:40], lambda data: True) == []
    assert btf_cause.find(b"", lambda data: True) == []
