"""results.jsonl: one line per case, written as it goes; the only stored truth of a run."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Tuple

from harness.errors import SetupError
from harness.judge import Kind


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
    def from_json(cls, data: Dict[str, Any]) -> "Result":
        """Make one of a JSON object. Raises TypeError, KeyError or ValueError if it is none."""
        known = {**data, "verdict": Kind(data["verdict"]), "evidence": tuple(data["evidence"])}
        known["commits"] = tuple(data.get("commits", ()))
        known["expected"] = tuple(Expected(**clause) for clause in data.get("expected", ()))
        known["known_bugs"] = tuple((bug[0], bug[1]) for bug in data.get("known_bugs", ()))
        return cls(**known)


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
        """Close the file."""
        self._file.close()


def mend(path: Path) -> bool:
    """Cut off the last line of a results file if a killed run left it unfinished.

    Returns whether the file holds anything. Raises SetupError.
    """
    try:
        with path.open("r+b") as file:
            whole = file.read()
            end = whole.rfind(b"\n") + 1
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

    What is known of one of them only is no difference.
    """
    return [
        f"{name} {before[key] or 'none'}, now {now[key] or 'none'}"
        for key, name in _ALIKE.items()
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
