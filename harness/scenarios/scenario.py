# SPDX-License-Identifier: GPL-2.0-only
"""Scenarios: a program, and what must happen to it on which kernels. Pure."""

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
    """A range of kernels that is known to break the rule, and the commit that mends it."""

    commit: str
    kernels: str


@dataclass(frozen=True)
class Need:
    """A name that the kernel's own BTF must hold, the first version whose kernels have it, and the
    option of the configuration without which they do not."""

    name: str
    since: str
    option: str = ""


@dataclass(frozen=True)
class Rule:
    """A row of the rule table: what a comment that begins with "Rule:" says of it."""

    name: str
    text: str
    commits: Tuple[str, ...]  # those that made or changed it, as in `commits`; the first made it
    where: str  # file:line
    topic: str = ""

    @property
    def since(self) -> str:
        """The kernel version that brought it, as in "5.1"."""
        found = re.search(r"\(in v(\d+\.\d+)", self.commits[0]) if self.commits else None
        return found[1] if found else ""


@dataclass(frozen=True)
class Topic:
    """A chapter of the rule book: what a comment that begins with "Topic:" says of it."""

    name: str
    text: str
    where: str  # file:line


@dataclass(frozen=True)
class Expectation:
    """One clause: what must happen on the kernels of a range."""

    kernels: str  # a version range such as ">=6.9"; "" is every kernel
    accepted: bool
    stage: str = "prog_load"  # where a refused program must be refused
    errno: Optional[str] = None
    messages: Tuple[str, ...] = ()  # in this order in the verifier log
    absent: Tuple[str, ...] = ()  # nowhere in the verifier log
    retval: Optional[int] = None  # of one BPF_PROG_TEST_RUN

    def covers(self, release: Version) -> bool:
        """Tell whether the clause speaks about this kernel."""
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
    """How kernels refuse what several cases do: what a comment that begins with "Refusal:" says."""

    name: str
    clauses: Tuple[Expectation, ...]  # one for every kernel
    text: str  # why, in words
    commits: Tuple[str, ...]  # those that changed it, as in `commits`
    where: str  # file:line


@dataclass(frozen=True)
class Program:
    """One function with a SEC() of its own."""

    name: str
    section: str
    line: int
    unit: str  # "" is the file's common object, else the name in #if UNIT(name)


@dataclass(frozen=True)
class Scenario:
    """One program with what must happen to it."""

    name: str
    file: Path
    line: int
    section: str
    unit: str
    expectations: Tuple[Expectation, ...]
    rule: str
    description: str = ""
    comment: str = ""  # the C comment above it: why, and the commits
    twin: Optional[str] = None
    loaders: Tuple[str, ...] = LOADERS
    user: str = "root"  # or "nobody", or capabilities as in "cap_bpf+cap_perfmon"
    user_stage: str = "prog_load"  # where root leaves off and the user goes on
    known_bugs: Tuple[KnownBug, ...] = ()
    needs: Tuple[Need, ...] = ()
    refusals: Tuple[str, ...] = ()  # the names of those that it shares with other cases

    def expectation(self, release: Version) -> Optional[Expectation]:
        """Return the one clause that speaks about this kernel, or None."""
        for expectation in self.expectations:
            if expectation.covers(release):
                return expectation
        return None


@dataclass(frozen=True)
class Declared:
    """What the comments of a C file or header declare."""

    rules: Tuple[Rule, ...] = ()
    topics: Tuple[Topic, ...] = ()
    refusals: Tuple[Refusal, ...] = ()


@dataclass(frozen=True)
class SourceFile:
    """What one C file holds."""

    path: Path
    programs: Tuple[Program, ...]
    scenarios: Tuple[Scenario, ...]
    declared: Declared = Declared()

    @property
    def rules(self) -> Tuple[Rule, ...]:
        """The rules that it declares."""
        return self.declared.rules


def commits(comment: str) -> Tuple[str, ...]:
    """Return the kernel commits that a comment cites, as it cites them, without "commit"."""
    cited = re.findall(r'commit ([0-9a-f]{12} \("[^"]+"\) \(in v[\d.]+[^)]*\))', comment)
    return tuple(dict.fromkeys(cited))


def nearest(word: str, known: Iterable[str]) -> str:
    """Return " (did you mean 'x'?)" for the closest known word, or ""."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean '{close[0]}'?)" if close else ""


def compile_message(text: str) -> "re.Pattern[str]":
    """Turn an expected message, literal but for {{regular expressions}}, into a pattern."""
    parts = re.split(r"\{\{(.*?)\}\}", text)
    return re.compile("".join(p if i % 2 else re.escape(p) for i, p in enumerate(parts)))


def anchor(heading: str) -> str:
    """Return the anchor that Markdown gives to a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
