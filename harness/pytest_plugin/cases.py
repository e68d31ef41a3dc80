# SPDX-License-Identifier: GPL-2.0-only
"""What a pytest item says of its case: how it is called, on what it runs, with which others it belongs."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Sequence, Tuple

import pytest

from harness.pytest_plugin import sharding
from harness.scenarios.scenario import Scenario

RUNTIME_RULE = "Run-time behaviour"  # of a test whose module names none


def needs_guest(item: pytest.Item) -> bool:
    """Tell whether a test runs on the kernel under test; only then it has a kernel and a loader."""
    names = getattr(item, "fixturenames", ())
    return "scenario" in names or "guest" in names


def _params(item: pytest.Item) -> Dict[str, Any]:
    return dict(getattr(getattr(item, "callspec", None), "params", {}))


def scenario(item: pytest.Item) -> Optional[Scenario]:
    """Return the scenario a test is about, if it is about one."""
    return _params(item).get("scenario")


def loader(item: pytest.Item) -> str:
    """Return what loads the test's programs."""
    named: str = _params(item)["loader"]
    return named


def has_loader(item: pytest.Item) -> bool:
    """Tell whether a loader of this run can express a test: for one with none, pytest makes an item
    that it would skip."""
    return isinstance(_params(item).get("loader"), str)


def kernel(item: pytest.Item) -> Optional[str]:
    """Return the kernel as the user named it; None is the default, or what is running."""
    named: Optional[str] = _params(item)["kernel"]
    return named


def name(item: pytest.Item) -> str:
    """Return the name by which a case is run: its program's, or its test's with its parameters but
    those that are empty."""
    case = scenario(item)
    if case is not None:
        return case.name
    words = [getattr(item, "originalname", item.name).replace("test_", "", 1)]
    words += [str(v) for k, v in _params(item).items() if k not in ("loader", "kernel")]
    return "_".join(filter(None, words))


def rule(item: pytest.Item) -> str:
    """Return the name of the rule a case is about: its program's, or its module's RULE."""
    case = scenario(item)
    if case is not None:
        return case.rule
    named: str = getattr(getattr(item, "module", None), "RULE", RUNTIME_RULE)
    return named


def where(item: pytest.Item) -> str:
    """Return where a case is written, as file:line; the file as seen from the top of its checkout."""
    case = scenario(item)
    path, line = (
        (item.path, (item.location[1] or 0) + 1) if case is None else (case.file, case.line)
    )
    top = next(
        (p.parent for p in path.parents if p.name in ("tests", "bpf_progs")), path.parents[1]
    )
    return f"{path.relative_to(top)}:{line}"


def description(item: pytest.Item) -> str:
    """Return in a sentence what a case is about."""
    case = scenario(item)
    if case is not None:
        return case.description
    return (getattr(item, "obj").__doc__ or "").split("\n")[0]


def request(item: pytest.Item) -> str:
    """Return what a case shares a session with: its kernel, loader and file."""
    if not needs_guest(item):
        return str(item.path)
    case = scenario(item)
    return f"{kernel(item)} {loader(item)} {case.file if case else item.path}"


def group(item: pytest.Item, kernels: Sequence[Optional[str]]) -> str:
    """Return what shares a worker: a kernel, so that two do not wait for the same boot; with one
    kernel, a file."""
    if len(kernels) > 1:
        return f"{kernel(item)}-{loader(item)}"
    case = scenario(item)
    return f"{case.file.name if case else item.path.name}-{loader(item)}"


def in_turn(items: Sequence[pytest.Item], kernels: Sequence[Optional[str]]) -> List[pytest.Item]:
    """Return items in the order in which their turns come.

    Of a kernel, which is fetched when its turn comes, the programs' verdicts come first: the first of
    them is there soon. File by file, as those of one share a request, in the order in which rules
    are over with the fewest of others begun; through libbpf before bcc, which takes longer. Through
    bcc, cases that run programs come last: they have the machine's cores alone, best while the
    other loader's worker does not want them, too.
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
    """Return files, of each of which the cases per rule are given, so that few rules are open at a
    time: the next is always the one that leaves the fewest cases to come of rules that have begun.
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
    """Return what one of several machines runs; what shares a request stays together."""
    sizes: Dict[str, int] = {}
    for item in items:
        sizes[request(item)] = sizes.get(request(item), 0) + 1
    taken = sharding.portion(sizes, *sharding.shard(shard))
    return [item for item in items if request(item) in taken]
