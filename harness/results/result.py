# SPDX-License-Identifier: GPL-2.0-only
"""The Result of a case, and its conversion to and from JSON. Pure."""

from __future__ import annotations

import collections.abc
import dataclasses
import functools
import json
from dataclasses import dataclass, field
from typing import (
    Any,
    Dict,
    List,
    Mapping,
    Optional,
    Tuple,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from harness.judging.verdict import Kind, Observation


@dataclass(frozen=True)
class Expected:
    """The expected outcome on a range of kernels. `applies` if this kernel is in the range."""

    kernels: str  # such as ">=6.9"; "": all kernels
    what: str
    applies: bool


@dataclass(frozen=True)
class Build:
    """One unit of a C file, and the digest of the object or text that the loader was given."""

    file: str
    unit: str  # "": the object that all programs of the file share
    digest: str


@dataclass(frozen=True)
class Result:
    """One case on one kernel, with its verdict and all facts that were observed."""

    name: str
    loader: str
    kernel: str  # uname -r
    verdict: Kind
    reason: str
    column: str = ""  # the kernel as the user named it, such as "6.12"; else equal to `kernel`
    evidence: Tuple[str, ...] = ()
    rule: str = ""
    rule_text: str = ""  # the rule and its reason
    where: str = ""  # file:line
    description: str = ""
    comment: str = ""  # the C comment above the program, which gives the reason
    commits: Tuple[str, ...] = ()  # kernel commits that made or changed the tested behaviour
    expected: Tuple[Expected, ...] = ()  # one per range of kernels
    known_bugs: Tuple[Tuple[str, str], ...] = ()  # (commit of the fix, affected kernels)
    target: str = ""
    lock_path: str = (
        ""  # by which contending CPUs took the lock, of judging.lock_path; "": not seen
    )
    observation: Optional[Observation] = None  # None: the case ended before it was observed
    compiler: str = ""  # the compiler of the object: clang's version line, or bcc's version
    builds: Tuple[Build, ...] = ()  # of the loaded programs; a run-time test may load many
    facts: Mapping[str, Any] = field(default_factory=dict)  # of the kernel and the tools
    seconds: Mapping[str, float] = field(default_factory=dict)  # boot, build, case
    repeat: str = ""  # the command that repeats it

    def to_json(self) -> Dict[str, Any]:
        """Return the result as a JSON object."""
        return {**dataclasses.asdict(self), "verdict": self.verdict.value}

    @classmethod
    def from_json(cls, data: Any) -> "Result":
        """Make a result from a JSON object. Raises ValueError with the reason if it is none."""
        if isinstance(data, dict) and data.get("observation") == {}:
            data = {**data, "observation": None}  # older releases wrote {} for None
        result: Result = _of_json(cls, data, "it")
        return result


@functools.lru_cache(maxsize=None)
def _members(kind: Any) -> Tuple[Mapping[str, Any], Tuple[str, ...]]:
    """Return the types of a dataclass's members, and the names of the required members."""
    fields = dataclasses.fields(kind)
    missing = dataclasses.MISSING
    needed = [f.name for f in fields if f.default is missing and f.default_factory is missing]
    return get_type_hints(kind), tuple(needed)


def _record(kind: Any, value: Mapping[str, Any], name: str) -> Any:
    """Convert a JSON object to a dataclass. Raises ValueError."""
    types, needed = _members(kind)
    for member in (member for member in needed if member not in value):
        raise ValueError(f"{name} has no {member}")
    for member in (member for member in value if member not in types):
        raise ValueError(f"{name} has '{member}', which only a newer harness may know")
    return kind(**{member: _of_json(types[member], value[member], member) for member in value})


def _of_json(kind: Any, value: Any, name: str) -> Any:
    """Convert a JSON value to the type of a Result's member. Raises ValueError."""
    origin, inner = get_origin(kind), get_args(kind)
    if hasattr(kind, "__dataclass_fields__") and isinstance(value, dict):
        return _record(kind, value, name)
    if origin is Union:  # Optional is the only one
        return None if value is None else _of_json(inner[0], value, name)
    if origin is tuple and isinstance(value, (list, tuple)):
        kinds = inner[:1] * len(value) if inner[-1] is ... else inner
        if len(kinds) == len(value):
            return tuple(_of_json(kind, one, name) for kind, one in zip(kinds, value))
    if origin is collections.abc.Mapping and isinstance(value, dict):
        return {key: _of_json(inner[1], one, name) for key, one in value.items()}
    if kind is Kind and value in [each.value for each in Kind]:
        return Kind(value)
    plain: Any = {float: (int, float), int: int, str: str, bool: bool}.get(kind, ())
    if kind is Any or isinstance(value, plain):
        return value
    raise ValueError(f"{name} cannot be {json.dumps(value)[:_SHOWN]}")


_SHOWN = 60  # characters of a wrong value that an error shows


def exit_code(results: List[Result]) -> int:
    """Return the exit code of a run with these results.

    0 all passed; KNOWN counts as passed, and so does SKIP if another case passed.
    1 failed or crashed, 3 inconclusive, 4 a case could not run or no case ran.
    """
    kinds = {result.verdict for result in results}
    if kinds & {Kind.FAIL, Kind.CRASH}:
        return 1
    if Kind.ERROR in kinds or not kinds - {Kind.SKIP}:
        return 4
    return 3 if Kind.INCONCLUSIVE in kinds else 0
