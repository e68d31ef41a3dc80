# SPDX-License-Identifier: GPL-2.0-only
"""Findings: programs that a kernel answers otherwise than it must, each kind once. Pure."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from harness.errors import UsageError
from harness.fuzz import draft, ir, known, listing, lower, oracle, rules
from harness.guest.uapi import errno_name

_E2BIG, _ENOMEM = 7, 12
SUFFIX = ".fuzz"


@dataclass(frozen=True)
class Asked:
    """A program, what a kernel must do with it, and its errno (0: it was loaded)."""

    program: ir.Program
    verdict: oracle.Verdict
    errno: int

    @property
    def accepted(self) -> bool:
        """Tell whether the kernel loaded it."""
        return self.errno == 0

    @property
    def gave_up(self) -> bool:
        """Tell whether the verifier found the program too complex, which is no answer."""
        return self.errno in (_E2BIG, _ENOMEM)

    @property
    def differs(self) -> bool:
        """Tell whether the kernel did not do what it must."""
        if self.gave_up or self.verdict.answer == oracle.UNKNOWN:
            return False
        return (self.verdict.answer == oracle.ACCEPT) != (self.errno == 0)


@dataclass(frozen=True)
class Finding:
    """A kind of wrong answer: its smallest program, the verifier's log, where and how often it was met.

    With `crash` the kernel did not answer at all, or complained: the words say how.
    """

    asked: Asked
    log: str
    record: Optional[known.Known]
    after: int  # programs before the first
    times: int = 1
    crash: str = ""

    @property
    def signature(self) -> Tuple[str, ...]:
        """What tells kinds of findings apart."""
        if self.crash:
            return ("crash", self.crash)
        if self.record:
            return (self.record.name,)
        words = sorted({s.word for s in ir.everything(self.asked.program)})
        return (self.asked.verdict.answer, self.asked.verdict.reason, *words)

    @property
    def words(self) -> str:
        """What differs, as a line."""
        if self.crash:
            return f"the kernel does not survive it: {self.crash}"
        if self.asked.errno == 0:
            reason = self.asked.verdict.reason
            return f"accepted, but must be refused ({reason}): {rules.rule(reason)}"
        return f"refused with {errno_name(self.asked.errno)}, but breaks no rule: {self.last_line}"

    @property
    def last_line(self) -> str:
        """The line of the log that says why, as far as that can be told."""
        lines = [line for line in self.log.splitlines() if line.strip()]
        told = [line for line in lines if not line.startswith(("processed", "verification time"))]
        return told[-1] if told else "without a word"

    @property
    def file_name(self) -> str:
        """Its name in a corpus."""
        digest = hashlib.sha256("\n".join(self.signature).encode()).hexdigest()[:8]
        kind = "crash" if self.crash else self.asked.verdict.reason or "refused"
        return f"{kind}-{digest}{SUFFIX}"


def text_of(asked: Asked) -> str:
    """Return a program as text: in its own language, as instructions, and as a draft in C."""
    listed = listing.listing(lower.lower(asked.program))
    return "\n".join([ir.show(asked.program), listed, draft.draft(asked.program, asked.verdict)])


def text(finding: Finding) -> str:
    """Return a finding as text: the program, and what the verifier said."""
    parts = [finding.words, "", text_of(finding.asked)]
    if finding.asked.errno:
        parts.append("\n".join(finding.log.splitlines()[-6:]))
    return "\n".join(parts)


def to_json(finding: Finding) -> Dict[str, Any]:
    """Return a finding for programs; docs/formats.md has the fields."""
    program = finding.asked.program
    return {
        "what": finding.words,
        "known": finding.record.name if finding.record else None,
        "mended": finding.record.mended if finding.record else None,
        "answer": finding.asked.verdict.answer,
        "reason": finding.asked.verdict.reason,
        "errno": finding.asked.errno,
        "after": finding.after,
        "times": finding.times,
        "program": ir.show(program),
        "listing": listing.listing(lower.lower(program)),
        "draft": draft.draft(program, finding.asked.verdict),
    }


def save(directory: Path, found: List[Finding], release: str) -> None:
    """Add findings to a corpus, a file for each kind. Raises OSError."""
    directory.mkdir(parents=True, exist_ok=True)
    for finding in found:
        lines = f"# {release}: {finding.words}\n"
        path = directory / finding.file_name
        path.write_text(lines + ir.show(finding.asked.program), encoding="utf-8")


def corpus(directory: Path) -> List[ir.Program]:
    """Return the programs of a corpus. Raises UsageError for a file that is none."""
    if not directory.exists():
        return []
    if not directory.is_dir():
        raise UsageError(f"{directory} is no directory: give one for --corpus.")
    return [read(path) for path in sorted(directory.glob(f"*{SUFFIX}"))]


def read(path: Path) -> ir.Program:
    """Return the program of a file. Raises UsageError with what is wrong with it."""
    try:
        return ir.parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"Cannot read {path} ({error.strerror}).") from None
    except UnicodeDecodeError:
        raise UsageError(
            f"{path} is no text: give a program as `spinlock fuzz` shows it."
        ) from None
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
