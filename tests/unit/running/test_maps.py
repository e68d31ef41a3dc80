# SPDX-License-Identifier: GPL-2.0-only
"""Maps of loaded programs: what is asked of the guest, and what its answers say."""

import base64
import shutil
import subprocess
import zlib

import pytest

from harness.guest import calls
from harness.provision.build import Source
from harness.provision.layout import Misfit, Misnamed
from harness.running.maps import Loaded

pytestmark = pytest.mark.skipif(shutil.which("clang") is None, reason="needs clang")

SOURCE = Source("x.bpf.c", "", "libbpf", b"", 0.0)

TEXT = """
typedef unsigned int __u32; typedef unsigned long long __u64;
#define SEC(name) __attribute__((section(name), used))
#define __uint(name, val) int (*name)[val]
#define __type(name, val) typeof(val) *name
struct visits { __u64 runs, torn; };
struct { __uint(type, 2); __type(key, __u32); __type(value, struct visits); } visits SEC(".maps");
struct { __uint(type, 6); __type(key, __u32); __type(value, struct visits); } each SEC(".maps");
SEC("tc") int program(void *ctx) { return 0; }
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    source = tmp_path_factory.mktemp("object") / "x.bpf.c"
    source.write_text(TEXT)
    result = source.with_suffix(".o")
    command = ["clang", "-g", "-O2", "-target", "bpf", "-c", str(source), "-o", str(result)]
    subprocess.run(command, check=True)
    return result.read_bytes()


class Session:
    """Answers lookups with what was written, and keeps what was asked."""

    def __init__(self, content=b""):
        self.content, self.calls = content, []

    def call(self, request, limit=0):
        self.calls.append(request)
        if isinstance(request, calls.MapUpdate):
            self.content = bytes.fromhex(request.value)
        if isinstance(request, calls.MapMemory):
            pieces = [self.content[at : at + size] for at, size in request.pieces]
            return [base64.b64encode(zlib.compress(p)).decode() if p else "" for p in pieces]
        return self.content.hex()


def test_an_element_is_written_and_read(data):
    session = Session()
    visits = Loaded(session, SOURCE, lambda: data).map("visits")
    visits[3] = {"torn": 7}
    assert visits[3].torn == 7 and visits[3].runs == 0
    visits.lookup(3, flags=4, fill=255)
    written, *_, asked = session.calls
    assert (written.name, written.map, written.key) == ("map_update", "visits", "03000000")
    assert asked == calls.MapLookup("visits", "03000000", flags=4, fill=255)


def test_an_element_of_all_cpus(data):
    session = Session()
    each = Loaded(session, SOURCE, lambda: data).map("each")
    session.content = b"".join(each.value.encode({"runs": n, "torn": 1}) for n in range(4))
    assert [cpu.runs for cpu in each[0]] == [0, 1, 2, 3]
    assert (each.total().runs, each.total().torn) == (6, 4)
    assert list(each.rows(0, "runs")) == [(0,), (1,), (2,), (3,)]
    with pytest.raises(Misfit, match="a value of each CPU"):
        each[0] = {}
    each.reset()
    assert session.calls[-1] == calls.MapReset("each")


def test_pieces_of_memory(data):
    session = Session()
    visits = Loaded(session, SOURCE, lambda: data).map("visits")
    session.content = b"".join(visits.value.encode({"runs": n}) for n in range(8))
    rows = visits.memory([(1, 2), (5, 0), (6, 1)], 60.0, "runs")
    assert [list(piece) for piece in rows] == [[(1,), (2,)], [], [(6,)]]
    assert session.calls[-1].pieces == [(16, 32), (80, 0), (96, 16)]


def test_the_object_is_made_only_if_asked_for(data):
    loaded = Loaded(Session(), SOURCE, lambda: pytest.fail("made an object"))
    loaded.call(calls.Attach("program"))
    with pytest.raises(Misnamed, match="no map 'visit'; the nearest are: visits"):
        Loaded(Session(), SOURCE, lambda: data).map("visit")
