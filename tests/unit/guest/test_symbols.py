# SPDX-License-Identifier: GPL-2.0-only
"""The addresses of kernel symbols, by which the host finds the queues of locks."""

from harness.guest import symbols

LINES = """\
0000000000000000 A fixed_percpu_data
000000000001a2c0 d qnodes
000000000001a3c0 d rqnodes
ffffffff82a3f0e0 R __per_cpu_offset
ffffffff82a3f0f0 R not__per_cpu_offset
ffffffffc0402000 d qnodes_of_a_module	[veth]
"""


def test_only_the_symbols_that_are_asked_for_are_told(tmp_path, monkeypatch):
    table = tmp_path / "kallsyms"
    monkeypatch.setattr(symbols, "KALLSYMS", str(table))
    assert symbols.addresses(["qnodes"]) == {}, "a kernel without the file"
    table.write_text(LINES)
    found = symbols.addresses(["__per_cpu_offset", "qnodes", "rqnodes", "missing"])
    assert found == {
        "__per_cpu_offset": 0xFFFFFFFF82A3F0E0,
        "qnodes": 0x1A2C0,
        "rqnodes": 0x1A3C0,
    }
