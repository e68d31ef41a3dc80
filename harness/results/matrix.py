# SPDX-License-Identifier: GPL-2.0-only
"""Results arranged as rules x cases x kernels x loaders: read, merge, select, pivot."""

from __future__ import annotations

import collections
import json
import os
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Dict, Iterable, List, Optional, Sequence, Tuple

from packaging.version import Version

from harness.errors import UsageError
from harness.judging.verdict import Kind
from harness.results.result import Result
from harness.scenarios import scenario, versions

Key = Tuple[str, str, str]  # (case, kernel, loader)
LATEST = Path("results/latest")


@dataclass(frozen=True)
class Reading:
    """The results of some files, and a sentence about each result or line that was left out."""

    results: Tuple[Result, ...]
    notes: Tuple[str, ...] = ()


def read(places: Sequence[Path]) -> Reading:
    """Read results files, or directories that hold one. Newer results replace older ones.

    A killed run may leave an incomplete last line: it is left out, with a note. Raises UsageError
    if a file is missing, empty or damaged.
    """
    files = [place / "results.jsonl" if os.path.isdir(place) else place for place in places]
    notes: List[str] = []
    newest: Dict[Key, Result] = {}
    source: Dict[Key, Path] = {}
    for file in sorted(files, key=_written):
        for result in _read_file(file, notes):
            this = key(result)
            old = newest.pop(this, None)
            if old is not None and old.verdict is not result.verdict and source[this] != file:
                notes.append(
                    f"{result.name} [{result.loader}] on {column(result)} is {old.verdict.value} in"
                    f" {source[this]} and {result.verdict.value} in {file}, which is newer and counts."
                )
            newest[this], source[this] = result, file
    return Reading(tuple(newest.values()), tuple(notes))


def _written(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except OSError as error:
        missing = isinstance(error, FileNotFoundError) and file.parent.is_dir()
        if missing and file.name == "results.jsonl":
            raise UsageError(
                f"There are no results in {file.parent}: the directory of a run holds results.jsonl."
            ) from None
        hint = "; `spinlock run` makes one" if LATEST in file.parents else ""
        raise UsageError(f"Cannot read {file} ({error.strerror}){hint}.") from None


def _read_file(file: Path, notes: List[str]) -> List[Result]:
    try:
        text = file.read_bytes().decode("utf-8", "replace")
    except OSError as error:
        raise UsageError(f"Cannot read {file} ({error.strerror}).") from None
    results = []
    lines = text.splitlines(keepends=True)
    for number, line in enumerate(lines, 1):
        try:
            results.append(Result.from_json(json.loads(line)))
        except (ValueError, RecursionError) as error:
            if number == len(lines) and line[:1] in "{\0" and not line.endswith("\n"):
                notes.append(f"{file}: the last line is cut off, as of a killed run; left out.")
                break
            no_json = isinstance(error, (json.JSONDecodeError, RecursionError))
            raise UsageError(
                f"{file}:{number} is no result ({'it is no JSON' if no_json else error}); a results"
                " file is the results.jsonl of a run."
            ) from None
    if not results:
        raise UsageError(f"{file} holds no result: nothing ran to its end.")
    return results


def key(result: Result) -> Key:
    """Return the case, kernel and loader of a result."""
    return result.name, column(result), result.loader


def column(result: Result) -> str:
    """Return the heading of a result's column: its kernel."""
    return result.column or result.kernel or "unknown"


def order(columns: Iterable[str]) -> List[str]:
    """Return columns in the order of versions. Flavours follow their version; paths come last."""

    def rank(name: str) -> Tuple[bool, Version, str]:
        match = re.match(r"\d+(?:\.\d+)+", name)
        return match is None, Version(match.group() if match else "0"), name

    return sorted(set(columns), key=rank)


def worst(results: Iterable[Result]) -> Optional[Result]:
    """Return the worst result; None if there is none. Any case that ran outranks a skip."""
    kinds = [kind for kind in Kind if kind is not Kind.SKIP] + [Kind.SKIP]
    return min(results, key=lambda result: kinds.index(result.verdict), default=None)


def version(result: Result) -> Optional[Version]:
    """Return the kernel's version, in a form to compare with the ranges of expectations."""
    try:
        return versions.kernel_version(
            str(result.facts.get("release") or result.kernel), str(result.facts.get("version", ""))
        )
    except UsageError:
        return None


@lru_cache(maxsize=None)
def covers(kernels: str, release: Optional[Version]) -> bool:
    """Tell whether a range includes a kernel. An unknown version is in no range."""
    return release is not None and versions.covers(kernels, release)


@dataclass(frozen=True)
class Selection:
    """Filters of the results to show. Empty ones select everything."""

    rule: str = ""  # part of the rule's or the case's name; upper and lower case are the same
    kernels: Tuple[str, ...] = ()
    verdicts: Tuple[str, ...] = ()
    loader: str = ""

    def of(self, results: Sequence[Result]) -> List[Result]:
        """Return the selected results. Raises UsageError if there is none."""
        for name in self.kernels:
            if not any(name in (column(r), r.kernel) for r in results):
                there = ", ".join(order(column(r) for r in results))
                raise UsageError(f"These results have no kernel '{name}': they have {there}.")
        chosen = [result for result in results if self._holds(result)]
        if not chosen:
            raise UsageError("No result is left by these filters.")
        return chosen

    def _holds(self, result: Result) -> bool:
        words = self.rule.lower()
        return (
            (words in result.rule.lower() or words in result.name)
            and (not self.kernels or bool({column(result), result.kernel} & set(self.kernels)))
            and (not self.verdicts or result.verdict.value in self.verdicts)
            and (not self.loader or result.loader == self.loader)
        )


class Matrix:
    """Results by rule, case, kernel and loader."""

    def __init__(self, results: Sequence[Result]) -> None:
        self.results = list(results)
        self.columns = order(column(result) for result in results)
        used = dict.fromkeys([*scenario.LOADERS, *(result.loader for result in results)])
        self.loaders = [name for name in used if any(r.loader == name for r in results)]
        self.rules: Dict[str, List[str]] = {}  # rule -> its cases
        self.cells: Dict[Key, Result] = {key(result): result for result in results}
        for result in results:
            cases = self.rules.setdefault(result.rule or "Without a rule", [])
            if result.name not in cases:
                cases.append(result.name)

    def cell(self, cases: Iterable[str], kernel: str) -> List[Result]:
        """Return the results of some cases on a kernel, through each loader."""
        keys = ((case, kernel, loader) for case in cases for loader in self.loaders)
        return [self.cells[k] for k in keys if k in self.cells]

    def release(self, kernel: str) -> str:
        """Return the output of `uname -r` on a kernel; "" if it never booted."""
        return next((r.kernel for r in self.results if column(r) == kernel and r.kernel), "")

    def counts(self, kernel: str) -> Dict[Kind, int]:
        """Return the number of results per verdict on a kernel, the worst first."""
        found = collections.Counter(r.verdict for r in self.results if column(r) == kernel)
        return {kind: found[kind] for kind in Kind if found[kind]}

    def notable(self) -> List[Tuple[Result, List[str]]]:
        """Return the results that are neither PASS nor SKIP, with their kernels; the worst first.

        One result stands for all kernels with the same case, loader and verdict.
        """
        kinds = list(Kind)
        found: Dict[Tuple[str, str, Kind], List[Result]] = {}
        for kernel in self.columns:
            for case in (case for cases in self.rules.values() for case in cases):
                for result in self.cell([case], kernel):
                    if result.verdict not in (Kind.PASS, Kind.SKIP):
                        same = (result.name, result.loader, result.verdict)
                        found.setdefault(same, []).append(result)
        groups = sorted(found.values(), key=lambda group: kinds.index(group[0].verdict))
        return [(group[0], [column(result) for result in group]) for group in groups]


def to_json(matrix: Matrix) -> Dict[str, Any]:
    """Return a matrix as JSON of a stable structure; docs/formats.md documents it."""
    return {
        "format": 1,
        "kernels": [
            {
                "name": kernel,
                "release": matrix.release(kernel),
                "counts": {kind.value: count for kind, count in matrix.counts(kernel).items()},
            }
            for kernel in matrix.columns
        ],
        "loaders": matrix.loaders,
        "rules": [
            {"name": rule, "cases": [_case_json(matrix, case) for case in cases]}
            for rule, cases in matrix.rules.items()
        ],
    }


def _case_json(matrix: Matrix, case: str) -> Dict[str, Any]:
    seen = [r for kernel in matrix.columns for r in matrix.cell([case], kernel)]
    return {
        "name": case,
        "where": seen[0].where,
        "commits": list(seen[0].commits),
        "results": [
            {
                "kernel": column(result),
                "loader": result.loader,
                "verdict": result.verdict.value,
                "reason": result.reason,
                "lock_path": result.lock_path,
                "stage": result.observation.stage if result.observation else None,
                "errno": result.observation.errno if result.observation else None,
                "expected": next((e.what for e in result.expected if e.applies), None),
                "repeat": result.repeat,
            }
            for result in seen
        ],
    }
