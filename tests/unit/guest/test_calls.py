# SPDX-License-Identifier: GPL-2.0-only
"""The agent's calls: each has a handler, each handler a call, and a request survives the wire.

The handlers are read, not imported: the machine's own libbpf may be too old to be loaded.
"""

import ast
import json
from pathlib import Path

import pytest

from harness.guest import calls

GUEST = Path(calls.__file__).parent
REQUESTS = [
    calls.Facts(),
    calls.Has(["bpf_timer"]),
    calls.TestRun("count", repeat=3, cpu=1),
    calls.Verify(calls.Source("libbpf", object="AAAA"), [calls.Trial("first", "tc", run=True)]),
    calls.Drive([calls.Order("xdp_native", "count", 0, [0, 1], 9, seconds=0.5)], "runs"),
    calls.Race(["add", "write"], {"torn": 1}, 5.0),
    calls.MapUpdateBatch("table", [["00000000", "ff"]], flags=4),
    calls.Copy(
        "table",
        calls.Access("update", ["ff"], flags=4),
        calls.Shape([0, 4], [8, 16]),
        calls.Until(times=3, seconds=1.0, held=1),
        calls.Busy("write", [1, 2]),
        here=0,
    ),
]


def handlers():
    """Return {call: (the function's type of request, its type of answer)}, as the source has it."""
    found = {}
    for file in (GUEST / "handlers").glob("*.py"):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            for mark in getattr(node, "decorator_list", ()):
                assert ast.unparse(mark.func) == "answers"
                kind = ast.unparse(mark.args[0]).replace("calls.", "")
                assert kind not in found, f"two functions answer {kind}"
                asked = ast.unparse(node.args.args[1].annotation)
                answer = ast.unparse(node.returns)
                found[kind] = asked.replace("calls.", ""), answer.replace("calls.", "")
    return found


def table():
    """Return {call: (itself, its type of answer)}, as the source has it."""
    tree = ast.parse((GUEST / "calls.py").read_text(encoding="utf-8"))
    names = {kind.__name__ for kind in calls.CALLS.values()}
    return {
        node.name: (node.name, ast.unparse(node.bases[0].slice))
        for node in tree.body
        if isinstance(node, ast.ClassDef) and node.name in names
    }


def test_each_call_has_one_handler_of_its_types_and_each_handler_a_call():
    assert handlers() == table()


def test_all_modules_of_handlers_are_known_to_the_session():
    modules = {file.stem for file in (GUEST / "handlers").glob("*.py")} - {"__init__"}
    tree = ast.parse((GUEST / "session.py").read_text(encoding="utf-8"))
    imported = [
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "harness.guest.handlers"
        for alias in node.names
    ]
    assert sorted(imported) == sorted(modules)


def test_a_range_is_sent_as_a_list():
    busy = calls.Busy("write", range(1, 3))
    line = calls.Sweep(calls.Numbered("a", ["01"], "work"), "00", "ff", (), (), busy=busy).to_json()
    assert json.loads(json.dumps(line))["with"]["busy"]["cpus"] == [1, 2]


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: request.name)
def test_a_request_is_the_same_on_both_sides(request_):
    assert calls.from_json(json.loads(json.dumps(request_.to_json()))) == request_


@pytest.mark.parametrize(
    "line, error",
    [
        ({"call": "fcats", "with": {}}, KeyError),
        ({"call": "has", "with": {"name": []}}, TypeError),
        ({"call": "has", "with": {"nmaes": []}}, KeyError),
        ({"call": "has", "with": {}}, TypeError),
    ],
)
def test_what_is_no_call_is_refused(line, error):
    with pytest.raises(error):
        calls.from_json(line)


def test_calls_in_which_cpus_meet_need_them_alone():
    alone = {name for name, call in calls.CALLS.items() if call.alone}
    # All of them name CPUs on which programs run at the same time.
    several = {"drive", "run_together", "race", "copy", "sweep", "accept", "map_text"}
    assert alone == several
