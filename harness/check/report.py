# SPDX-License-Identifier: GPL-2.0-only
"""What `spinlock check` says of a program, as text, Markdown and JSON."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Mapping, Optional, Sequence, Tuple, Union

from harness.check import bcc_source, lockset, refusal
from harness.check.examine import Json, OnKernel, Source
from harness.check.refusal import Refusal
from harness.provision import elf
from harness.scenarios.scenario import anchor


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
        """Return (program, refusal, kernels), alike refusals of different kernels together."""
        found: List[Tuple[str, Refusal, List[str]]] = []
        for name in ("", *self.programs):
            alike: Dict[Tuple[str, str, str], Tuple[Refusal, List[str]]] = {}
            for row in self.kernels:
                why = row.problem if not name else None
                if name and name in row.programs:
                    why = row.programs[name].refusal
                if why is not None:
                    key = (why.name, why.where, why.advice)
                    alike.setdefault(key, (why, []))[1].append(row.kernel)
            found += [(name or "the object", why, kernels) for why, kernels in alike.values()]
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
    for name, why, kernels in report.groups():
        lines += ["", f"{name} on {', '.join(kernels)}: {why.of.title}"]
        lines += [f"  {key:<8} {text}" for key, text in _said(why) if text]
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
            cell if cell in ("loads", "WARNS") else f"[{cell}]({refusal.PAGE}#{cell})"
            for cell in (report.cell(row, name) for row in report.kernels)
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    for name, why, kernels in report.groups():
        lines += ["", f"**{name}** on {', '.join(kernels)}: {why.of.title}", ""]
        lines += [
            f"* {key}: `{text}`" if key in ("line", "source") else f"* {key}: {text}"
            for key, text in _said(why)
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
                "problem": _refusal_json(row.problem),
                "assumed_sizes": list(row.assumed),
                "btf_refused": dict(row.btf_refused),
                "programs": {
                    name: {
                        "loads": seen.refusal is None,
                        "refusal": _refusal_json(seen.refusal),
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


def _refusal_json(why: Optional[Refusal]) -> Optional[Json]:
    if why is None:
        return None
    return {
        "class": why.name,
        "title": why.of.title,
        "errno": why.errno or None,
        "line": why.line,
        "where": why.where or None,
        "source": why.source or None,
        "instruction": why.insn,
        "rule": why.of.rule or None,
        "since": why.since or None,
        "advice": why.advice,
        "page": f"{refusal.PAGE}#{why.name}",
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
    return lines + _without_btf(report)


def _without_btf(report: Report) -> List[str]:
    """Say where something loads because libbpf went on without BTF that the kernel refuses.

    Of a map only if there is a lock in it, which nobody knows of then.
    """
    alike: Dict[Tuple[str, str], List[str]] = {}
    for row in report.kernels:
        if any(seen.refusal is None for seen in row.programs.values()):
            for name, errno in row.btf_refused.items():
                if not name or (name in report.maps and report.maps[name].locks):
                    alike.setdefault((name, errno), []).append(row.kernel)
    return [
        f"note: {', '.join(kernels)}: the kernel refuses the BTF of"
        f" {f'map {name!r}' if name else 'the object'} ({errno}), and libbpf goes on without it:"
        f" {'its lock is unknown' if name else 'no lock, list or tree is known'} there"
        for (name, errno), kernels in alike.items()
    ]


def _said(why: Refusal) -> List[Tuple[str, str]]:
    rule = why.of.rule
    where = f"{_near(why.where)}  {why.source}".strip()
    return [
        ("line", why.line),
        ("source", where),
        ("change", why.advice),
        ("since", f"v{why.since} takes it as it is" if why.since else ""),
        ("rule", f"{rule}: docs/rules.md#{anchor(rule)}" if rule else ""),
        ("more", f"{refusal.PAGE}#{why.name}"),
    ]


def _near(where: str) -> str:
    """Return a path as seen from here, if it is below."""
    here = f"{Path.cwd()}/"
    return where[len(here) :] if where.startswith(here) else where


def _warnings(report: Report) -> List[str]:
    return [
        f"{name} on {row.kernel}: the kernel complained: {seen.warning}"
        for row in report.kernels
        for name, seen in row.programs.items()
        if seen.warning
    ]


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
