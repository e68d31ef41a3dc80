"""results.jsonl: one line per case, written as it goes; the only stored truth of a run."""

from __future__ import annotations

import collections.abc
import dataclasses
import datetime
import functools
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Tuple, get_args, get_origin, get_type_hints

from harness.errors import SetupError, UsageError
from harness.judging.judge import Kind


@dataclass(frozen=True)
class Expected:
    """What must happen on a range of kernels, in words, and whether this kernel is one of them."""

    kernels: str  # such as ">=6.9"; "" is all
    what: str
    applies: bool


@dataclass(frozen=True)
class Result:
    """One case with everything that was seen of it."""

    name: str
    loader: str
    kernel: str  # uname -r
    verdict: Kind
    reason: str
    column: str = ""  # the kernel as the user named it, "6.12", or else as `kernel`
    evidence: Tuple[str, ...] = ()
    rule: str = ""
    rule_text: str = ""  # what the rule is and why
    where: str = ""  # file:line
    description: str = ""
    comment: str = ""  # why: the C comment above the program
    commits: Tuple[str, ...] = ()  # that made or changed what is asked, the rule's among them
    expected: Tuple[Expected, ...] = ()  # on each range of kernels
    known_bugs: Tuple[Tuple[str, str], ...] = ()  # (commit that mends it, kernels that have it)
    target: str = ""
    observation: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)  # the kernel's and the tools'
    seconds: Mapping[str, float] = field(default_factory=dict)  # boot, build, case
    repeat: str = ""  # the command that repeats it

    def to_json(self) -> Dict[str, Any]:
        """Return it as a JSON object."""
        return {**dataclasses.asdict(self), "verdict": self.verdict.value}

    @classmethod
    def from_json(cls, data: Any) -> "Result":
        """Make one of a JSON object. Raises ValueError, which says in words why it is none."""
        result: Result = _of_json(cls, data, "it")
        return result


@functools.lru_cache(maxsize=None)
def _members(kind: Any) -> Tuple[Mapping[str, Any], Tuple[str, ...]]:
    """Return the types of a dataclass's members, and which of them must be given."""
    fields = dataclasses.fields(kind)
    missing = dataclasses.MISSING
    needed = [f.name for f in fields if f.default is missing and f.default_factory is missing]
    return get_type_hints(kind), tuple(needed)


def _of_json(kind: Any, value: Any, name: str) -> Any:
    """Return a value of JSON as a type of Result's members has it. Raises ValueError."""
    origin, inner = get_origin(kind), get_args(kind)
    if hasattr(kind, "__dataclass_fields__") and isinstance(value, dict):
        types, needed = _members(kind)
        for member in (member for member in needed if member not in value):
            raise ValueError(f"{name} has no {member}")
        for member in (member for member in value if member not in types):
            raise ValueError(f"{name} has '{member}', which only a newer harness may know")
        return kind(**{member: _of_json(types[member], value[member], member) for member in value})
    if origin is tuple and isinstance(value, (list, tuple)):
        kinds = inner[:1] * len(value) if inner[-1] is ... else inner
        if len(kinds) == len(value):
            return tuple(_of_json(kind, one, name) for kind, one in zip(kinds, value))
    if origin is collections.abc.Mapping and isinstance(value, dict):
        return {key: _of_json(inner[1], one, name) for key, one in value.items()}
    if kind is Kind and value in [each.value for each in Kind]:
        return Kind(value)
    plain: Any = {float: (int, float), str: str, bool: bool}.get(kind, ())
    if kind is Any or isinstance(value, plain):
        return value
    raise ValueError(f"{name} cannot be {json.dumps(value)[:_SHOWN]}")


_SHOWN = 60  # characters of what is wrong


class ResultLog:
    """Appends results to a file; each is on the disk before the next case begins."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = path.open("a", encoding="utf-8")
        except OSError as error:
            raise SetupError(
                f"Cannot write results to {path} ({error.strerror}); choose another place by --results."
            ) from None

    def add(self, result: Result) -> None:
        """Write one result. Raises SetupError when it cannot be stored."""
        try:
            self._file.write(json.dumps(result.to_json()) + "\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise SetupError(
                f"Cannot write results to {self.path} ({error.strerror}); what came before is kept."
                " Make room, then run again."
            ) from None

    def close(self) -> None:
        """Close the file. What could not be written has been said by `add`."""
        try:
            self._file.close()
        except OSError:
            pass


def mend(path: Path) -> bool:
    """Cut off the last line of a results file if a killed run left it unfinished.

    Returns whether the file holds anything. Raises UsageError, and leaves it alone, when that line
    is nothing that a run writes; SetupError.
    """
    try:
        with path.open("r+b") as file:
            whole = file.read()
            end = whole.rfind(b"\n") + 1
            if whole[end : end + 1] not in (b"", b"{", b"\0"):  # zeros are of a power cut
                raise UsageError(f"{path} is no results file, so no run can go on in it.")
            file.truncate(end)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise SetupError(f"Cannot go on writing {path} ({error.strerror}).") from None
    return end > 0


# What should be alike in all of a run, and what people call it.
_ALIKE = {
    "release": "kernel",
    "kernel_package": "package",
    "kernel_digest": "the kernel's files",
    "config_sha256": "configuration",
    "cpus": "CPUs",
    "append": "--append",
    "command_line": "command line",
    "accelerator": "accelerator",
    "qemu": "QEMU",
    "libbpf": "libbpf",
    "bcc": "bcc",
    "image_digest": "image",
    "agent": "agent",
}


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> List[str]:
    """Return in words in what the facts of two results of one run differ that should not.

    What is known of one of them only is no difference, nor are words that a test wanted on the
    kernel's command line.
    """
    alike = dict(_ALIKE)
    if before.get("also", "") != now.get("also", ""):
        del alike["command_line"]
    return [
        f"{name} {before[key] or 'none'}, now {now[key] or 'none'}"
        for key, name in alike.items()
        if key in before and key in now and before[key] != now[key]
    ]


def exit_code(results: List[Result]) -> int:
    """Return the exit code that a run with these results deserves.

    0 all passed (or known, or skipped beside something that passed), 1 failed or crashed,
    3 inconclusive, 4 something could not run, or nothing ran at all.
    """
    kinds = {result.verdict for result in results}
    if kinds & {Kind.FAIL, Kind.CRASH}:
        return 1
    if Kind.ERROR in kinds or not kinds - {Kind.SKIP}:
        return 4
    return 3 if Kind.INCONCLUSIVE in kinds else 0


def new_directory(chosen: Optional[str]) -> Path:
    """Make the directory for a new run's results: the one chosen, or results/<time>.

    The latter is linked as results/latest. Raises SetupError when it cannot be made.
    """
    directory = Path(chosen or f"results/{datetime.datetime.now():%Y-%m-%dT%H.%M.%S}")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if chosen is None:
            link = directory.parent / f".latest-{os.getpid()}"
            link.symlink_to(directory.name)
            link.replace(directory.parent / "latest")
    except OSError as error:
        raise SetupError(
            f"Cannot make {directory} ({error.strerror}); choose another place by --results."
        ) from None
    return directory
