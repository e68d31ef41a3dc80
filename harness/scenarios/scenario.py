# SPDX-License-Identifier: GPL-2.0-only
"""Scenarios: programs with their expected outcome per range of kernels. Pure."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Iterable, Optional, Tuple

from packaging.version import Version

from harness.scenarios.versions import covers

LOADERS = ("bcc", "libbpf")


@dataclass(frozen=True)
class KnownBug:
    """A kernel bug on record: the affected range of kernels, and the commit of the fix."""

    commit: str
    kernels: str


@dataclass(frozen=True)
class Need:
    """A name that the kernel's own BTF must have.

    Kernels have it since version `since`, if they are built with all of `options`.
    """

    name: str
    since: str
    options: Tuple[str, ...] = ()


@dataclass(frozen=True)
class Rule:
    """A rule, declared by a comment that begins with "Rule:"."""

    name: str
    text: str
    commits: Tuple[str, ...]  # see commits(); the first made the rule, the others changed it
    where: str  # file:line
    topic: str = ""

    @property
    def since(self) -> str:
        """The kernel version that introduced the rule, such as "5.1"; "" if unknown."""
        found = re.search(r"\(in v(\d+\.\d+)", self.commits[0]) if self.commits else None
        return found[1] if found else ""


@dataclass(frozen=True)
class Topic:
    """A chapter of the rule book, declared by a comment that begins with "Topic:"."""

    name: str
    text: str
    where: str  # file:line


@dataclass(frozen=True)
class Expectation:
    """One clause: the expected outcome on a range of kernels."""

    kernels: str  # a version range such as ">=6.9"; "": every kernel
    accepted: bool
    stage: str = "prog_load"  # the stage that must refuse the program, if not accepted
    errno: Optional[str] = None
    messages: Tuple[str, ...] = ()  # must be in the verifier log, in this order
    absent: Tuple[str, ...] = ()  # must not be in the verifier log
    retval: Optional[int] = None  # of one BPF_PROG_TEST_RUN

    def covers(self, release: Version) -> bool:
        """Tell whether the clause applies to this kernel."""
        return covers(self.kernels, release)

    def __str__(self) -> str:
        if self.accepted:
            return "loads" if self.retval is None else f"loads, returns {self.retval}"
        words = [f"refused at {self.stage}", *([self.errno] if self.errno else [])]
        words += [f'"{message}"' for message in self.messages]
        words += [f'no "{message}"' for message in self.absent]
        return ", ".join(words)


@dataclass(frozen=True)
class Refusal:
    """A refusal that several cases share, declared by a comment that begins with "Refusal:"."""

    name: str
    clauses: Tuple[Expectation, ...]  # exactly one applies to each kernel
    text: str  # the reason, in words
    commits: Tuple[str, ...]  # those that changed it; see commits()
    where: str  # file:line


@dataclass(frozen=True)
class Program:
    """One function with a SEC() of its own."""

    name: str
    section: str
    line: int
    unit: str  # the name in #if UNIT(name); "": the object that all programs of the file share


@dataclass(frozen=True)
class Scenario:
    """One program with its expected outcomes."""

    name: str
    file: Path
    line: int
    section: str
    unit: str
    expectations: Tuple[Expectation, ...]
    rule: str
    description: str = ""
    comment: str = ""  # the C comment above it, with the reason and the commits
    twin: Optional[str] = None
    loaders: Tuple[str, ...] = LOADERS
    user: str = "root"  # or "nobody", or capabilities as in "cap_bpf+cap_perfmon"
    user_stage: str = "prog_load"  # the first stage that runs as `user`, not as root
    known_bugs: Tuple[KnownBug, ...] = ()
    needs: Tuple[Need, ...] = ()
    refusals: Tuple[str, ...] = ()  # the names of its shared refusals

    def expectation(self, release: Version) -> Optional[Expectation]:
        """Return the clause that applies to this kernel, or None."""
        for expectation in self.expectations:
            if expectation.covers(release):
                return expectation
        return None


@dataclass(frozen=True)
class Declared:
    """The declarations in the comments of a C file or header."""

    rules: Tuple[Rule, ...] = ()
    topics: Tuple[Topic, ...] = ()
    refusals: Tuple[Refusal, ...] = ()


@dataclass(frozen=True)
class SourceFile:
    """The contents of one C file."""

    path: Path
    programs: Tuple[Program, ...]
    scenarios: Tuple[Scenario, ...]
    declared: Declared = Declared()

    @property
    def rules(self) -> Tuple[Rule, ...]:
        """The rules that the file declares."""
        return self.declared.rules


def commits(comment: str) -> Tuple[str, ...]:
    """Return the kernel commits that a comment cites: '<id> ("<subject>") (in v<version>)'."""
    cited = re.findall(r'commit ([0-9a-f]{12} \("[^"]+"\) \(in v[\d.]+[^)]*\))', comment)
    return tuple(dict.fromkeys(cited))


def nearest(word: str, known: Iterable[str]) -> str:
    """Return " (did you mean 'x'?)" for the closest known word; "" if none is close."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean '{close[0]}'?)" if close else ""


def compile_message(text: str) -> "re.Pattern[str]":
    """Compile an expected message, which is literal except for {{regular expressions}}."""
    parts = re.split(r"\{\{(.*?)\}\}", text)
    return re.compile("".join(p if i % 2 else re.escape(p) for i, p in enumerate(parts)))


def anchor(heading: str) -> str:
    """Return the anchor of a heading in Markdown."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
