# SPDX-License-Identifier: GPL-2.0-only
"""Which kernels take what this one refuses, by the rule book: the scenarios of bpf_progs/. Pure.

Nothing here names a version: a refusal is matched with the scenario that does the same, and its
clauses, its known bugs and its needs say the versions.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Collection, Dict, List, Mapping, Optional, Sequence, Tuple

from packaging.version import Version

from harness.provision.build import PROGRAMS
from harness.scenarios.programs import Programs
from harness.scenarios.scenario import Scenario
from harness.scenarios.versions import covers, releases


@dataclass(frozen=True)
class Span:
    """Kernels from a version on, up to but not with another; "" is without end on that side."""

    first: str
    before: str

    def covers(self, release: Version) -> bool:
        """Tell whether a kernel is among them."""
        return (not self.first or release >= Version(self.first)) and (
            not self.before or release < Version(self.before)
        )

    def __str__(self) -> str:
        end = f"before v{self.before}"
        if self.before.count(".") == 3:  # what follows the last of a stable series that has it
            end = f"up to v{self.before.rpartition('.')[0]}"
        if self.first and self.before:
            return f"v{self.first} and later {end}"
        return f"v{self.first} and later" if self.first else end


@dataclass(frozen=True)
class Claim:
    """What the rule book says of other kernels."""

    spans: Tuple[Span, ...]  # the kernels that take it, or have it; never the one that refused
    has: str = ""  # what those kernels have, if it says no more than that
    bug: str = ""  # the commit on record for a bug of the kernel, if that is why it was refused

    def covers(self, release: Version) -> bool:
        """Tell whether it says something of a kernel."""
        return any(span.covers(release) for span in self.spans)

    def first_after(self, release: Version) -> str:
        """Return the next version from which on it holds, "" if there is none."""
        later = [s.first for s in self.spans if s.first and Version(s.first) > release]
        return min(later, key=Version, default="")

    def __str__(self) -> str:
        kernels = "; ".join(str(span) for span in self.spans)
        text = f"{kernels}: {f'have {self.has}' if self.has else 'take it as it is'}"
        if len(self.spans) == 1 and not self.spans[0].before:
            verb = f"has {self.has}" if self.has else "takes it as it is"
            text = f"v{self.spans[0].first} {verb}"
        return f"{text}; here it is a bug of the kernel on record: {self.bug}" if self.bug else text


@dataclass(frozen=True)
class Example:
    """A scenario that is refused for the same reason as a program may be."""

    scenario: str
    of: str  # the class of the refusal
    text: str = ""  # a regular expression for its telling line, or the instruction's text
    trait: str = ""  # what else must be so: one of the traits in circumstances.py


# The particular stands before the general.
EXAMPLES: Tuple[Example, ...] = (
    Example("static_subprog_under_lock", "call-under-lock", r"call pc", "plain static"),
    Example("open_coded_loop_under_lock", "call-under-lock", r"call bpf_iter_num_"),
    Example("stash_object_under_lock", "call-under-lock", r"call bpf_kptr_xchg"),
    Example("arena_alloc_under_lock", "call-under-lock", r"call bpf_arena_alloc_pages"),
    Example("arena_free_under_lock", "call-under-lock", r"call bpf_arena_free_pages"),
    Example("arena_reserve_under_lock", "call-under-lock", r"call bpf_arena_reserve_pages"),
    Example("print_text_under_lock", "call-under-lock", r"call bpf_stream_vprintk"),
    Example("static_subprog_locks_caller_unlocks", "missing-unlock", "", "in static"),
    Example("for_each_callback_locks_and_unlocks", "unlock-without-lock", "", "for_each"),
    Example("timer_callback_locks_and_unlocks", "unlock-without-lock", "", "timer"),
    Example("fentry_locks", "program-type", r"unknown func bpf_spin_", "tracing"),
    Example("lsm_locks", "program-type", r"unknown func bpf_spin_", "lsm"),
    Example("res_lock_in_kprobe", "program-type", r"tracing progs", "res lock only"),
    Example("syscall_program_locks", "sleepable"),
    Example("lock_in_array_of_maps", "inner-map"),
    Example("lock_in_global_struct", "lock-place", "", "global nested"),
    Example("global_lock_loaded_twice", "lock-place", "", "global"),
    Example("global_lock_loaded_twice", "different-lock", "", "global"),
    Example("lock_in_inner_struct", "lock-place", "", "nested"),
    Example("load_acquire_beside_lock", "instruction", "", "acquire"),
    Example("fetch_and_add_beside_lock", "instruction", "", "fetch"),
    Example("lock_and_inner_lock", "two-locks", "", "one above"),
    Example("lock_beside_bitfields", "btf-refused", r"bitfield"),
)


def claim(
    of: str, texts: Sequence[str], traits: Collection[str], release: Version
) -> Optional[Claim]:
    """Return what the rule book says of a refusal on other kernels; None if it says nothing.

    `of` is its class, `texts` are its telling line and instruction, `traits` what is known of it.
    """
    for example in EXAMPLES:
        fits = not example.text or any(re.search(example.text, text) for text in texts)
        if example.of == of and fits and (not example.trait or example.trait in traits):
            scenario = _book()[example.scenario]
            return _other_kernels(scenario, release)
    return None


_HELPER = "BPF_FUNC_"  # in front of a helper's name, in enum bpf_func_id

# The function in which a kernel warns -> a scenario with the bug on record.
SPLATS = (
    ("btf_parse_fields", "lock_and_inner_lock"),
    ("bpf_obj_free_fields", "list_under_res_lock"),
)


def is_of_object(complaint: str) -> bool:
    """Tell whether a kernel complains of types or maps, whatever program was loaded last."""
    return any(function in complaint for function, _ in SPLATS)


def known_bug(complaint: str, release: Version) -> str:
    """Return the commit on record for a bug by which a kernel complains, "" if there is none."""
    for function, scenario in SPLATS:
        if function in complaint:
            return bug_of(scenario, release)
    return ""


def takes(scenario: str, release: Version) -> bool:
    """Tell whether a kernel takes a scenario's program."""
    return any(span.covers(release) for span in taken(_book()[scenario]))


def spans(scenario: str) -> Tuple[Span, ...]:
    """Return the kernels that take a scenario's program."""
    return taken(_book()[scenario])


def ends(scenario: str, release: Version) -> bool:
    """Tell whether a kernel takes a scenario's program and a later one does not."""
    return any(span.before and span.covers(release) for span in spans(scenario))


def rule_of(scenario: str) -> str:
    """Return the name of a scenario's rule."""
    return _book()[scenario].rule


def bug_of(scenario: str, release: Version) -> str:
    """Return the commit on record for what a kernel does wrong in a scenario, "" if it does not."""
    bugs = _book()[scenario].known_bugs
    return next((bug.commit for bug in bugs if covers(bug.kernels, release)), "")


def has(name: str, release: Version) -> Optional[Claim]:
    """Return which kernels have a name of the kernel's own, such as a function."""
    since = _needs().get(name)
    if since is None or release >= Version(since):
        return None
    shown = f"bpf_{name[len(_HELPER) :]}()" if name.startswith(_HELPER) else name
    return Claim((Span(since, ""),), shown)


def _other_kernels(scenario: Scenario, release: Version) -> Optional[Claim]:
    spans = taken(scenario)
    if not spans or any(span.covers(release) for span in spans):
        return None  # the rule book says that this very kernel takes it: not the same thing
    bug = ""
    expected = scenario.expectation(release)
    if expected is not None and expected.accepted:
        bug = next((b.commit for b in scenario.known_bugs if covers(b.kernels, release)), "")
    return Claim(spans, bug=bug)


@lru_cache(maxsize=None)
def taken(scenario: Scenario) -> Tuple[Span, ...]:
    """Return the kernels that take a scenario's program, as they must or by a bug on record."""
    ranges = [e.kernels for e in scenario.expectations] + [b.kernels for b in scenario.known_bugs]
    spans: List[Span] = []
    first: Optional[str] = None
    exists = max((Version(need.since) for need in scenario.needs), default=Version("0"))
    for release in sorted(set(releases(*ranges))):
        takes = release >= exists and _takes(scenario, release)
        if takes and first is None:
            first = str(release)
        elif not takes and first is not None:
            spans.append(Span(first if spans or first != _OLDEST else "", str(release)))
            first = None
    if first is not None:
        spans.append(Span(first if spans or first != _OLDEST else "", ""))
    return tuple(spans)


_OLDEST = str(min(releases()))


def _takes(scenario: Scenario, release: Version) -> bool:
    expected = scenario.expectation(release)
    broken = any(covers(bug.kernels, release) for bug in scenario.known_bugs)
    return expected is not None and expected.accepted != broken


@lru_cache(maxsize=None)
def _book() -> Mapping[str, Scenario]:
    return {case.name: case for case in Programs.read(PROGRAMS).scenarios()}


@lru_cache(maxsize=None)
def _needs() -> Mapping[str, str]:
    """Return the version that brought each name that a scenario needs."""
    found: Dict[str, str] = {}
    for case in _book().values():
        for need in case.needs:
            found[need.name] = need.since
    return found
