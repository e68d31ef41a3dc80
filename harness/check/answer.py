# SPDX-License-Identifier: GPL-2.0-only
"""What kernels answered to a file, and what of it belongs together. Pure.

The reports (report.py, report_json.py, sarif.py) are views of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Dict, List, Mapping, Optional, Tuple, Union

from harness.check import bcc_source, lockset, since
from harness.check.coming import Coming
from harness.check.examine import OnKernel, Source
from harness.check.own_loader import Loader
from harness.check.prove import Proven
from harness.check.refusal import Refusal
from harness.provision import elf

OBJECT = "the object"  # a group's name for what is refused before any program is looked at
_SO = "; so: "  # between a cause and the symptom by which it was seen


@dataclass(frozen=True)
class Group:
    """A refusal for one cause: the programs and kernels that share it, and the places."""

    programs: Tuple[str, ...]  # in the order of the file; OBJECT for the whole object
    kernels: Tuple[str, ...]
    refusal: Refusal  # the first of them; its line is the cause that all of them share
    places: Tuple[Tuple[str, str, str], ...]  # each different (file:line, source text, program)
    claim: Optional[since.Claim] = None  # what the rule book says of other kernels


@dataclass(frozen=True)
class Answer:
    """What kernels said to a file, and what was found in it."""

    source: Union[Source, bcc_source.Text, Loader]
    programs: Tuple[str, ...]
    kernels: Tuple[OnKernel, ...]  # in the order in which they were asked
    locks: Optional[lockset.Findings]  # None: there is no object in which to find them
    required: Tuple[str, ...] = ()  # kernels that must take everything
    proven: Mapping[str, Proven] = field(default_factory=dict)  # by kernel, where programs were run
    coming: Optional[Coming] = None  # what is known of newer kernels; None: it was not asked

    @property
    def good(self) -> bool:
        """Tell whether every required kernel takes everything, and no run accuses it."""
        loads = all(row.good for row in self.kernels if row.kernel in self.required)
        return loads and all(proven.good for proven in self.proven.values())

    @property
    def maps(self) -> Mapping[str, elf.Map]:
        """The maps that the object itself declares."""
        return self.source.object.maps if isinstance(self.source, Source) else {}

    @property
    def smallest(self) -> Optional[OnKernel]:
        """The first of the kernels, in their order, on which everything loads."""
        return next((row for row in self.kernels if row.good), None)

    def groups(self) -> Tuple[Group, ...]:
        """Return each cause of refusals once, with the kernels, programs and places that share it."""
        found: Dict[Tuple[str, ...], List[Tuple[str, Refusal]]] = {}
        kernels_of: Dict[Tuple[str, ...], Tuple[str, ...]] = {}
        for name in ("", *self.programs):
            for why, kernels in self._refusals(name):
                words = (why.name, _cause(why), why.advice, why.reason, why.suggestion)
                key = (*words, str(bool(name)), *kernels)
                found.setdefault(key, []).append((name, why))
                kernels_of[key] = kernels
        return tuple(self._group(alike, kernels_of[key]) for key, alike in found.items())

    def _group(self, alike: List[Tuple[str, Refusal]], kernels: Tuple[str, ...]) -> Group:
        names, whys = [name or OBJECT for name, _ in alike], [why for _, why in alike]
        first = whys[0]
        if any(why.line != first.line for why in whys):
            first = replace(first, line=_cause(first))
        claims = [self.claim(name, why) for name, why in alike]
        claim = claims[0] if all(each == claims[0] for each in claims) else None
        places: Dict[Tuple[str, str], str] = {}
        for name, why in alike:
            if why.where or why.source:
                places.setdefault((why.where, why.source), name)
        shown = tuple((where, text, name) for (where, text), name in places.items())
        return Group(tuple(names), kernels, first, shown, claim)

    def _refusals(self, name: str) -> List[Tuple[Refusal, Tuple[str, ...]]]:
        """Return why a program ("": the object) is refused, with the kernels that share a reason."""
        alike: Dict[Tuple[str, str, str], Tuple[Refusal, List[str]]] = {}
        for row in self.kernels:
            why = row.problem if not name else None
            if name and name in row.programs:
                why = row.programs[name].refusal
            if why is not None:
                key = (why.name, why.where, why.advice)
                first, kernels = alike.setdefault(key, (why, []))
                kernels.append(row.kernel)
                if why.reason and not first.reason:  # in the words of a later kernel
                    told = replace(first, reason=why.reason, suggestion=why.suggestion)
                    alike[key] = told, kernels
        return [(why, tuple(kernels)) for why, kernels in alike.values()]

    def claim(self, name: str, why: Refusal) -> Optional[since.Claim]:
        """Return what the rule book says of other kernels, unless one of this run contradicts it."""
        claim = why.claim
        for row in self.kernels if claim is not None else ():
            seen = row.programs.get(name)
            again = seen.refusal if seen is not None else None
            if claim is None or again is None or not claim.covers(row.version):
                continue
            same_place = bool(why.where) and again.where == why.where and not claim.has
            if again.name == why.name or same_place:
                return None
        return claim

    def turns(self, name: str) -> List[Tuple[bool, List[str]]]:
        """Return (loads or not, kernels in order of version) as often as the answer changes."""
        found: List[Tuple[bool, List[str]]] = []
        for row in sorted(self.kernels, key=lambda row: row.version):
            if row.problem is None and name in row.programs:
                loads = row.programs[name].refusal is None
                if not found or found[-1][0] != loads:
                    found.append((loads, []))
                found[-1][1].append(row.kernel)
        return found

    def word(self, row: OnKernel, name: str) -> str:
        """Return what a kernel said to a program, in a word."""
        if row.problem is not None:
            return row.problem.name
        seen = row.programs[name]
        if seen.refusal is not None:
            return seen.refusal.name
        return "WARNS" if seen.warning else "loads"

    def conclusion(self) -> str:
        """Return the last line: from which kernel on it works."""
        count = f"{len(self.kernels)} kernel{'s' * (len(self.kernels) != 1)} checked"
        first = self.smallest
        if first is None:
            return f"No kernel takes everything ({count})."
        later = self.kernels[self.kernels.index(first) :]
        bad = [row.kernel for row in later if not row.good]
        if bad:
            return f"Everything loads on {first.kernel}, but not on {', '.join(bad)} ({count})."
        return f"Everything loads on {first.kernel}{' and later' * (len(later) > 1)} ({count})."


def _cause(why: Refusal) -> str:
    return why.line.partition(_SO)[0]
