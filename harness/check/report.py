# SPDX-License-Identifier: GPL-2.0-only
"""What `spinlock check` says of a program, as text, Markdown and JSON."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Dict, List, Mapping, Optional, Sequence, Tuple, Union

from harness.check import bcc_source, lockset, since
from harness.check.classes import PAGE
from harness.check.examine import Json, OnKernel, Source
from harness.check.linked import Linked
from harness.check.refusal import WITHOUT_LOCKS, Refusal
from harness.provision import elf
from harness.scenarios.scenario import anchor

MOST_NAMES = 6  # of programs that are told of at once


@dataclass(frozen=True)
class Report:
    """What is to be said of an object."""

    source: Union[Source, bcc_source.Text]
    programs: Tuple[str, ...]
    kernels: Tuple[OnKernel, ...]
    locks: Optional[lockset.Findings]  # None: there is no object in which to find them

    @property
    def maps(self) -> Mapping[str, elf.Map]:
        """The maps that the object itself declares."""
        return self.source.object.maps if isinstance(self.source, Source) else {}

    @property
    def smallest(self) -> Optional[OnKernel]:
        """The first of the kernels, in their order, on which everything loads."""
        return next((row for row in self.kernels if row.good), None)

    def groups(self) -> List[Tuple[str, Refusal, List[str]]]:
        """Return (programs, refusal, kernels), alike refusals of kernels and of programs together."""
        found: Dict[Tuple[str, ...], Tuple[List[str], Refusal, List[str]]] = {}
        for name in ("", *self.programs):
            for why, kernels in self._refusals(name):
                key = (why.name, why.line, why.where, why.advice, *kernels)
                if not name or not why.where:  # what is told of no place may be told of several
                    found.setdefault(key, ([], why, kernels))[0].append(name or "the object")
                else:
                    found[(name, *key)] = ([name], why, kernels)
        return [(_few(names), why, kernels) for names, why, kernels in found.values()]

    def _refusals(self, name: str) -> List[Tuple[Refusal, List[str]]]:
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
        return [*alike.values()]

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

    def cell(self, row: OnKernel, name: str) -> str:
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


def _few(names: Sequence[str]) -> str:
    rest = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f" and {rest} more" if rest > 0 else "")


def exit_code(report: Report, required: Sequence[str]) -> int:
    """Return 1 if a kernel that is required refuses something, 0 else."""
    return int(any(not row.good for row in report.kernels if row.kernel in required))


def terminal(report: Report) -> str:
    """Return the report as text."""
    lines = _head(report)
    width = max(len(name) for name in report.programs) + 2
    columns = [
        max(len(row.kernel), *(len(report.cell(row, name)) for name in report.programs)) + 2
        for row in report.kernels
    ]
    cells = zip(report.kernels, columns)
    lines += ["", " " * width + "".join(f"{r.kernel:<{c}}" for r, c in cells).rstrip()]
    for name in report.programs:
        shown = (f"{report.cell(r, name):<{c}}" for r, c in zip(report.kernels, columns))
        lines.append(f"{name:<{width}}" + "".join(shown).rstrip())
    lines += [f"\n{text}" for text in _turns(report)]
    for name, why, kernels in report.groups():
        lines += ["", f"{name} on {', '.join(kernels)}: {why.of.title}"]
        lines += [f"  {key:<8} {text}" for key, text in _said(report, name, why) if text]
    lines += [f"\n{text}" for text in _warnings(report)]
    locked = _locked(report)
    lines += ["", *locked] if locked else []
    lines += [*_runs(report)]
    return "\n".join([*lines, "", report.conclusion()]) + "\n"


def markdown(report: Report) -> str:
    """Return the report as Markdown."""
    lines = [f"## {report.source.name}", "", *_head(report)[1:], ""]
    lines += ["| program | " + " | ".join(row.kernel for row in report.kernels) + " |"]
    lines += ["|---" * (len(report.kernels) + 1) + "|"]
    for name in report.programs:
        cells = [
            cell if cell in ("loads", "WARNS") else f"[{cell}]({PAGE}#{cell})"
            for cell in (report.cell(row, name) for row in report.kernels)
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += [f"\n{text}" for text in _turns(report)]
    for name, why, kernels in report.groups():
        lines += ["", f"**{name}** on {', '.join(kernels)}: {why.of.title}", ""]
        lines += [
            f"* {key}: `{text}`" if key in ("line", "source") else f"* {key}: {text}"
            for key, text in _said(report, name, why)
            if text
        ]
    lines += [f"\n{text}" for text in _warnings(report)]
    locked = _locked(report)
    lines += ["", "```", *locked, "```"] if locked else []
    lines += _runs(report)
    return "\n".join([*lines, "", report.conclusion()]) + "\n"


def to_json(report: Report) -> Json:
    """Return the report as one object; "format" changes when the meaning of a member does."""
    first = report.smallest
    return {
        "format": 1,
        "file": report.source.name,
        "programs": list(report.programs),
        "smallest_kernel": first.kernel if first else None,
        "kernels": [
            {
                "name": row.kernel,
                "release": row.release,
                "loads": row.good,
                "problem": _refusal_json(report, row, "", row.problem),
                "assumed_sizes": list(row.assumed),
                "shrunk": list(row.shrunk),
                "warning": row.warning or None,
                "btf_refused": dict(row.btf_refused),
                "btf_causes": list(row.causes),
                "programs": {
                    name: {
                        "loads": seen.refusal is None,
                        "refusal": _refusal_json(report, row, name, seen.refusal),
                        "warning": seen.warning or None,
                        "log": seen.log,
                        "seconds": seen.seconds,
                        "run": _run_json(report, seen.run),
                    }
                    for name, seen in row.programs.items()
                },
            }
            for row in report.kernels
        ],
        "lockset": report.locks.to_json() if report.locks is not None else None,
    }


def _refusal_json(
    report: Report, row: OnKernel, name: str, why: Optional[Refusal]
) -> Optional[Json]:
    if why is None:
        return None
    claim = report.claim(name, why)
    return {
        "class": why.name,
        "title": why.of.title,
        "errno": why.errno or None,
        "line": why.line,
        "where": why.where or None,
        "source": why.source or None,
        "instruction": why.insn,
        "rule": why.of.rule or None,
        "since": claim.first_after(row.version) or None if claim is not None else None,
        "other_kernels": str(claim) if claim is not None else None,
        "reason": why.reason or None,
        "suggestion": why.suggestion or None,
        "advice": why.advice,
        "page": f"{PAGE}#{why.name}",
    }


def _run_json(report: Report, run: Json) -> Optional[Json]:
    if not run:
        return None
    shown = {key: value for key, value in run.items() if key != "looks"}
    return {**shown, "lock_seen_held": _held(report, run)}


def _locked(report: Report) -> List[str]:
    return report.locks.lines() if report.locks is not None else []


def _head(report: Report) -> List[str]:
    count = len(report.programs)
    programs = f"{report.source.name}: {count} program{'s' * (count != 1)}"
    if isinstance(report.source, bcc_source.Text):
        kinds = [f"{name} as {report.source.sections[name]}" for name in report.programs]
        return [f"{programs}, through bcc: {', '.join(kinds)}"]
    maps = report.maps
    locks = [f"{m.name}.{lock.name}" for m in maps.values() for lock in m.locks]
    locks += [
        f"{m.name}.{lock.name}" for outer in maps.values() if (m := outer.inner) for lock in m.locks
    ]
    lines = [f"{programs}, locks: {', '.join(locks) if locks else 'none in a map'}"]
    if report.source.object.problem:
        lines.append(f"note: {report.source.object.problem} Source lines may be missing.")
    assumed = sorted({name for row in report.kernels for name in row.assumed})
    if assumed:
        lines.append(f"note: no size in the object, 1024 entries assumed: {', '.join(assumed)}")
    shrunk = sorted({name for row in report.kernels for name in row.shrunk})
    if shrunk:
        lines.append(
            f"note: too large for a guest, loaded with fewer entries here: {', '.join(shrunk)}"
        )
    return lines + _without_btf(report) + _locks_unseen(report)


def _locks_unseen(report: Report) -> List[str]:
    """Say where programs load that use a map of which the kernel sees one lock of several."""
    lines = []
    for name, declared in report.maps.items():
        if len(declared.locks) < 2:
            continue
        bugs: Dict[str, List[str]] = {}
        for row in report.kernels:
            if any(row.programs[p].refusal is None for p in _users(report, name, row)):
                scenario = "lock_and_inner_lock"
                if all("." in lock.name for lock in declared.locks):
                    scenario = "two_inner_locks"
                bugs.setdefault(since.bug_of(scenario, row.version), []).append(row.kernel)
        for bug, kernels in bugs.items():
            found = f" (a bug of the kernel on record: {bug})" if bug else ""
            lines.append(
                f"note: {', '.join(kernels)}: map {name!r} has {len(declared.locks)} locks in a value:"
                f" the kernel knows one at most, and copies the others like data{found}"
            )
    return lines


def _users(report: Report, name: str, row: OnKernel) -> List[str]:
    """Return the programs on a kernel that name a map."""
    assert isinstance(report.source, Source)
    functions = report.source.object.functions
    known = [each for each in row.programs if each in functions]
    return [each for each in known if name in Linked(functions, each).maps()]


def _without_btf(report: Report) -> List[str]:
    """Say where something loads because libbpf went on without BTF that the kernel refuses.

    Of a map only if there is a lock in it, which nobody knows of then.
    """
    alike: Dict[Tuple[str, str, Tuple[str, ...]], List[str]] = {}
    for row in report.kernels:
        if any(seen.refusal is None for seen in row.programs.values()):
            for name, errno in row.btf_refused.items():
                if not name or (name in report.maps and report.maps[name].locks):
                    causes = row.causes if not name else ()
                    alike.setdefault((name, errno, causes), []).append(row.kernel)
    return [
        f"note: {', '.join(kernels)}: the kernel refuses the BTF of"
        f" {f'map {name!r}' if name else 'the object'} ({errno})"
        f"{' for ' + '; '.join(causes) if causes else ''}, and libbpf goes on without it:"
        f" {'its lock is unknown' if name else 'no lock, list or tree is known'} there"
        f"{_of_type(report, name)}"
        for (name, errno, causes), kernels in alike.items()
    ]


def _turns(report: Report) -> List[str]:
    """Say of which kernels what loads and what does not, where that is not so from one kernel on."""
    lines = []
    for name in report.programs:
        turns = report.turns(name)
        if len(turns) > 2 or turns and turns[0][0] and len(turns) == 2:
            parts = [f"{'loads' if good else 'refused'} on {_range(k)}" for good, k in turns]
            lines.append(f"{name}: {', '.join(parts)}")
    return lines


def _range(kernels: List[str]) -> str:
    return kernels[0] if len(kernels) == 1 else f"{kernels[0]} to {kernels[-1]}"


def _of_type(report: Report, name: str) -> str:
    """Say of a map that no kernel lets hold a lock what other loaders make of it."""
    if not name or report.maps[name].type not in WITHOUT_LOCKS:
        return ""
    return (
        "; a map of its type holds no lock, and loaders that do not try again without BTF"
        " (cilium/ebpf, bcc since v6.2) refuse it"
    )


def _said(report: Report, name: str, why: Refusal) -> List[Tuple[str, str]]:
    rule = why.of.rule
    claim = report.claim(name, why)
    where = f"{_near(why.where)}  {why.source}".strip()
    return [
        ("line", why.line),
        ("source", where),
        ("change", why.advice),
        ("others", str(claim) if claim is not None else ""),
        ("reason", f"in the kernel's words: {why.reason}" if why.reason else ""),
        ("suggests", f"in the kernel's words: {why.suggestion}" if why.suggestion else ""),
        ("rule", f"{rule}: docs/rules.md#{anchor(rule)}" if rule else ""),
        ("more", f"{PAGE}#{why.name}"),
    ]


def _near(where: str) -> str:
    """Return a path as seen from here, if it is below."""
    here = f"{Path.cwd()}/"
    return where[len(here) :] if where.startswith(here) else where


def _warnings(report: Report) -> List[str]:
    lines = []
    for row in report.kernels:
        if row.warning:
            lines.append(
                f"the object's BTF or maps on {row.kernel}: the kernel complained:"
                f" {row.warning}{_on_record(row.warning, row)}"
            )
        lines += [
            f"{name} on {row.kernel}: the kernel complained:"
            f" {seen.warning}{_on_record(seen.warning, row)}"
            for name, seen in row.programs.items()
            if seen.warning
        ]
    return lines


def _on_record(complaint: str, row: OnKernel) -> str:
    commit = since.known_bug(complaint, row.version)
    return f" (a bug of the kernel on record: {commit})" if commit else ""


def _runs(report: Report) -> List[str]:
    lines = []
    for row in report.kernels:
        for name, seen in row.programs.items():
            if "problem" in seen.run:
                lines.append(f"  {name} on {row.kernel}: not run: {seen.run['problem']}")
            elif seen.run:
                lines.append(f"  {name} on {row.kernel}: {_speed(report, seen.run)}")
    return ["", "run on all CPUs at once:", *lines] if lines else []


def _speed(report: Report, run: Json) -> str:
    one = sum(run["one_cpu"]["runs"]) / max(run["one_cpu"]["seconds"], 0.001)
    every = sum(run["all_cpus"]["runs"]) / max(run["all_cpus"]["seconds"], 0.001)
    text = (
        f"{every:.0f} runs/s on {run['cpus']} CPUs, {one:.0f} on one,"
        f" together for {run['all_cpus']['together']} s"
    )
    for name, (held, looks) in _held(report, run).items():
        text += f"; lock of {name} seen held in {held} of {looks} looks"
    return text


def _held(report: Report, run: Json) -> Dict[str, Tuple[int, int]]:
    """Return how often a look at a map showed a lock word that was not 0."""
    held: Dict[str, Tuple[int, int]] = {}
    for name, looks in run.get("looks", {}).items():
        declared = report.maps.get(name)
        if declared is None or len(declared.locks) != 1 or "." in declared.locks[0].name:
            continue
        place = [f for f in declared.fields if "." not in f.name].index(declared.locks[0])
        if len([f for f in declared.fields if "." not in f.name]) != len(declared.fields):
            continue  # its text has braces within braces
        words = [_lock_words(text, place) for text in looks]
        seen = [found for found in words if found]  # an empty hash shows nothing
        if seen:
            held[name] = (sum(any(found) for found in seen), len(seen))
    return held


def _lock_words(text: str, place: int) -> List[int]:
    """Return the lock words in the text of a map's file, whose elements read "0: {{1,},17,}"."""
    found = []
    for line in text.splitlines():
        _, _, value = line.partition(": {")
        depth, index, word = 0, 0, ""
        for letter in value:
            if letter == "}" and depth == 0:
                break
            depth += (letter in "{[") - (letter in "}]")
            if letter == "," and depth == 0:
                index += 1
            elif index == place and letter.isdigit():
                word += letter
        if word:
            found.append(int(word))
    return found
