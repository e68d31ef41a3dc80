# SPDX-License-Identifier: GPL-2.0-only
"""The list of expected failures, each with a reason and a date of expiry. Pure."""

from __future__ import annotations

import datetime
import fnmatch
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Sequence, Set, Tuple

import yaml

from harness.errors import UsageError
from harness.judging.verdict import Kind
from harness.results import matrix
from harness.results.matrix import Key
from harness.results.result import Result
from harness.scenarios import scenario, versions

_BAD = (Kind.CRASH, Kind.FAIL, Kind.ERROR, Kind.INCONCLUSIVE)
_FIELDS = {"case": str, "kernel": str, "loader": str, "reason": str, "expires": datetime.date}
_SHOWN = 8  # names of cases per line
_REQUIRED = ("case", "reason", "expires")
_FORM = (
    "an entry has case (may hold *), reason and expires (2027-01-31), perhaps kernel (>=6.1,<6.12)"
    " and loader"
)


@dataclass(frozen=True)
class Entry:
    """Cases that are expected to fail on a range of kernels until a date, with the reason."""

    case: str  # a name, or a pattern with * and ?
    reason: str
    expires: datetime.date  # the last day on which the entry is valid
    kernel: str = ""  # a range, such as ">=6.1,<6.12"; "": all kernels
    loader: str = ""

    def covers(self, result: Result) -> bool:
        """Tell whether the entry applies to a result."""
        return (
            fnmatch.fnmatchcase(result.name, self.case)
            and self.loader in ("", result.loader)
            and (not self.kernel or matrix.covers(self.kernel, matrix.version(result)))
        )

    def __str__(self) -> str:
        return " ".join(part for part in (self.case, self.loader, self.kernel) if part)


@dataclass(frozen=True)
class Known:
    """Results compared with a list of expected failures."""

    failures: Tuple[Tuple[Result, Entry], ...] = ()  # failures that an entry expects
    passes: Tuple[Tuple[Entry, str], ...] = ()  # entries with no failure on this kernel (column)
    expired: Tuple[Entry, ...] = ()
    unmet: Tuple[Entry, ...] = ()  # entries of which no case was run
    unknown: Tuple[Result, ...] = ()  # failures that no entry covers

    @property
    def keys(self) -> Set[Key]:
        """The keys of the expected failures."""
        return {matrix.key(result) for result, _ in self.failures}

    @property
    def stale(self) -> bool:
        """Whether the list must be corrected: an entry passes or has expired."""
        return bool(self.passes or self.expired)

    def lines(self) -> List[str]:
        """Return one line per entry or finding. Those that need a correction come first."""
        return [
            *(
                f"unexpected pass: {entry} on {kernel} ({entry.reason}); take it off the list"
                for entry, kernel in self.passes
            ),
            *(f"expired on {e.expires}: {e} ({e.reason}); mend or renew it" for e in self.expired),
            *(
                f"known until {entry.expires}: {result.verdict.value} {result.name}"
                f" [{result.loader}] on {matrix.column(result)} ({entry.reason})"
                for result, entry in self.failures
            ),
            *(f"not run: {entry}" for entry in self.unmet),
            *self._not_listed(),
        ]

    def _not_listed(self) -> List[str]:
        names = list(dict.fromkeys(result.name for result in self.unknown))
        shown = ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
        return [f"not on the list: {len(self.unknown)} failures ({shown})"] if names else []

    def to_json(self) -> Dict[str, Any]:
        """Return the findings as JSON of a stable structure."""
        return {
            "failures": [[*matrix.key(result), entry.reason] for result, entry in self.failures],
            "unexpected_passes": [[str(entry), kernel] for entry, kernel in self.passes],
            "expired": [[str(entry), entry.expires.isoformat()] for entry in self.expired],
            "not_run": [str(entry) for entry in self.unmet],
            "unknown": [list(matrix.key(result)) for result in self.unknown],
        }


def parse(text: str, source: str) -> List[Entry]:
    """Read a list in YAML. Raises UsageError with a sentence that names the wrong entry."""
    try:
        data = yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UsageError(f"{source}{line} is no YAML: {error.problem}.") from None
    except yaml.YAMLError as error:
        raise UsageError(f"{source} is no YAML: {' '.join(str(error).split())}.") from None
    except ValueError as error:
        raise UsageError(f"{source} has a date or a number that is none ({error}).") from None
    data = [] if data is None else data
    if not isinstance(data, list):
        raise UsageError(f"{source} must be a list; {_FORM}.")
    found: Dict[Tuple[str, str, str], int] = {}
    entries = []
    for number, row in enumerate(data, 1):
        entry = _entry(row, f"{source}, entry {number}")
        first = found.setdefault((entry.case, entry.kernel, entry.loader), number)
        if first != number:
            raise UsageError(
                f"{source}, entry {number} is about the same as entry {first} ({entry}): leave one"
                " of them out."
            )
        entries.append(entry)
    return entries


class _Loader(yaml.SafeLoader):
    """Reads YAML and refuses duplicate keys, which SafeLoader silently overwrites."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> Dict[Any, Any]:
        """See SafeLoader. Raises MarkedYAMLError."""
        seen: Set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"'{key.value}' is given twice", problem_mark=key.start_mark
                )
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def _entry(row: Any, where: str) -> Entry:
    if not isinstance(row, dict):
        raise UsageError(f"{where} is no mapping: {_FORM}.")
    for name, value in row.items():
        if name not in _FIELDS:
            raise UsageError(f"{where} has '{name}', which means nothing: {_FORM}.")
        if not isinstance(value, _FIELDS[name]) or isinstance(value, datetime.datetime):
            raise UsageError(f"{where}: {name} cannot be {value!r}: {_FORM}.")
    for name in _REQUIRED:
        if not row.get(name):
            raise UsageError(f"{where} has no {name}: {_FORM}.")
    if row.get("loader", "") not in ("", *scenario.LOADERS):
        raise UsageError(f"{where}: loader is {' or '.join(scenario.LOADERS)}.")
    if not versions.is_range(row.get("kernel", "")):
        raise UsageError(
            f"{where}: kernel {row['kernel']!r} is no range that a kernel can be in, such as"
            " >=6.1,<6.12."
        )
    return Entry(**row)


def apply(entries: Sequence[Entry], results: Sequence[Result], today: datetime.date) -> Known:
    """Compare results with a list; find expected failures and entries to correct."""
    valid = [entry for entry in entries if entry.expires >= today]
    failures: List[Tuple[Result, Entry]] = []
    unknown: List[Result] = []
    for result in (result for result in results if result.verdict in _BAD):
        entry = _covering(valid, result)
        if entry is None:
            unknown.append(result)
        else:
            failures.append((result, entry))
    passes: List[Tuple[Entry, str]] = []
    unmet: List[Entry] = []
    for entry in valid:
        # A skipped case is no evidence that the failure is gone.
        ran = [r for r in results if r.verdict is not Kind.SKIP and entry.covers(r)]
        if not ran:
            unmet.append(entry)
        for kernel in matrix.order(matrix.column(result) for result in ran):
            there = [result for result in ran if matrix.column(result) == kernel]
            if not any(result.verdict in (*_BAD, Kind.KNOWN) for result in there):
                passes.append((entry, kernel))
    expired = tuple(entry for entry in entries if entry.expires < today)
    return Known(tuple(failures), tuple(passes), expired, tuple(unmet), tuple(unknown))


def _covering(entries: Sequence[Entry], result: Result) -> Optional[Entry]:
    return next((entry for entry in entries if entry.covers(result)), None)
