# SPDX-License-Identifier: GPL-2.0-only
"""Reads from a pytest item the name, kernel, loader, rule and group of its case."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Sequence, Tuple

import pytest

from harness.pytest_plugin import sharding
from harness.scenarios.scenario import Scenario

RUNTIME_RULE = "Run-time behaviour"  # the rule of tests in a module without RULE


def needs_guest(item: pytest.Item) -> bool:
    """Tell whether a test runs on the kernel under test. Only such a test has kernel and loader."""
    names = getattr(item, "fixturenames", ())
    return "scenario" in names or "guest" in names


def _params(item: pytest.Item) -> Dict[str, Any]:
    return dict(getattr(getattr(item, "callspec", None), "params", {}))


def scenario(item: pytest.Item) -> Optional[Scenario]:
    """Return the scenario of a test, or None for a run-time test."""
    return _params(item).get("scenario")


def is_of_no_scenario(item: pytest.Item) -> bool:
    """Tell whether a test of scenarios got none, since other cases are asked for."""
    return _params(item).get("scenario", item) is None


def loader(item: pytest.Item) -> str:
    """Return the loader of the test's programs."""
    named: str = _params(item)["loader"]
    return named


def has_loader(item: pytest.Item) -> bool:
    """Tell whether a loader of this run can express a test.

    For a test without such a loader, pytest makes an item that it would skip.
    """
    return isinstance(_params(item).get("loader"), str)


def kernel(item: pytest.Item) -> Optional[str]:
    """Return the kernel as the user named it; None: the default, or the running one."""
    named: Optional[str] = _params(item)["kernel"]
    return named


def name(item: pytest.Item) -> str:
    """Return the name of a case for `spinlock run`.

    It is the name of its program, or of its test with all parameters that are not empty.
    """
    case = scenario(item)
    if case is not None:
        return case.name
    words = [getattr(item, "originalname", item.name).replace("test_", "", 1)]
    named = _params(item)
    words += [str(v) for k, v in named.items() if k not in ("loader", "kernel", "lock_path")]
    words.append(named.get("lock_path", ""))
    return "_".join(filter(None, words))


def contends(item: pytest.Item) -> bool:
    """Tell whether CPUs contend for a lock in a test, so that the path of the lock matters."""
    return item.get_closest_marker("contends") is not None


def matters_queued(item: pytest.Item) -> bool:
    """Tell whether a test runs without --lock-path, given the path that it was made for.

    The marker contends(both=…) is True, or names the parameters of the cases that are run queued.
    """
    mark, named = item.get_closest_marker("contends"), _params(item)
    if mark is None or not named.get("lock_path"):
        return True
    both = mark.kwargs.get("both", False)
    return both is True or bool(
        both and set(both) & {v for v in named.values() if isinstance(v, str)}
    )


def rule(item: pytest.Item) -> str:
    """Return the name of a case's rule: that of its program, or RULE of its module."""
    case = scenario(item)
    if case is not None:
        return case.rule
    named: str = getattr(getattr(item, "module", None), "RULE", RUNTIME_RULE)
    return named


def where(item: pytest.Item) -> str:
    """Return the source of a case as file:line, relative to the top of its checkout."""
    case = scenario(item)
    path, line = (
        (item.path, (item.location[1] or 0) + 1) if case is None else (case.file, case.line)
    )
    top = next(
        (p.parent for p in path.parents if p.name in ("tests", "bpf_progs")), path.parents[1]
    )
    return f"{path.relative_to(top)}:{line}"


def description(item: pytest.Item) -> str:
    """Return the description of a case, a sentence."""
    case = scenario(item)
    if case is not None:
        return case.description
    return (getattr(item, "obj").__doc__ or "").split("\n")[0]


def request(item: pytest.Item) -> str:
    """Return the key of cases that share a session: their kernel, loader and file."""
    if not needs_guest(item):
        return str(item.path)
    case = scenario(item)
    return f"{kernel(item)} {loader(item)} {case.file if case else item.path}"


def group(item: pytest.Item, kernels: Sequence[Optional[str]]) -> str:
    """Return the xdist group: one per kernel, or per file with one kernel.

    One worker per kernel avoids two workers that wait for the same boot.
    """
    if len(kernels) > 1:
        return f"{kernel(item)}-{loader(item)}"
    case = scenario(item)
    return f"{case.file.name if case else item.path.name}-{loader(item)}"


def in_turn(items: Sequence[pytest.Item], kernels: Sequence[Optional[str]]) -> List[pytest.Item]:
    """Return items in the order of the run.

    Kernels come one by one: each is fetched and booted when its first case runs. Verdicts of
    programs come first, because the first of them comes soon. The cases of a file share a request,
    so they stay together; files are ordered so that few rules are open at a time. libbpf comes
    before bcc, which is slower. Through bcc, run-time tests come last: they use the machine's cores
    alone, and by then the worker of the other loader has usually ended.
    """
    rules: Dict[str, Dict[str, int]] = {}
    for item in filter(needs_guest, items):
        of_file = rules.setdefault(_file(item), {})
        of_file[rule(item)] = of_file.get(rule(item), 0) + 1
    place = {file: number for number, file in enumerate(_rules_together(rules))}

    def turn(item: pytest.Item) -> Tuple[int, int, int, bool]:
        if not needs_guest(item):
            return -1, 0, 0, False
        bcc, runs = loader(item) == "bcc", scenario(item) is None
        return kernels.index(kernel(item)), runs + (bcc and runs), place[_file(item)], bcc

    return sorted(items, key=turn)


def _file(item: pytest.Item) -> str:
    case = scenario(item)
    return str(item.path if case is None else case.file)


def _rules_together(files: Dict[str, Dict[str, int]]) -> List[str]:
    """Order files so that few rules are open at a time; `files` gives the cases per file and rule.

    The next file is always the one that leaves the fewest cases of rules that have begun.
    """
    left: Dict[str, int] = {}
    for counts in files.values():
        for each, count in counts.items():
            left[each] = left.get(each, 0) + count
    begun: Dict[str, int] = {}
    ordered: List[str] = []
    to_come = dict(files)
    while to_come:

        def open_after(file: str) -> int:
            counts = to_come[file]
            new = sum(left[each] - count for each, count in counts.items() if each not in begun)
            return new - sum(count for each, count in counts.items() if each in begun)

        file = min(to_come, key=open_after)
        for each, count in to_come.pop(file).items():
            begun[each] = begun.get(each, left[each]) - count
        ordered.append(file)
    return ordered


def in_shard(items: Sequence[pytest.Item], shard: str) -> List[pytest.Item]:
    """Return the items of one of several machines. Cases that share a request stay together."""
    sizes: Dict[str, int] = {}
    for item in items:
        sizes[request(item)] = sizes.get(request(item), 0) + 1
    taken = sharding.portion(sizes, *sharding.shard(shard))
    return [item for item in items if request(item) in taken]
