# SPDX-License-Identifier: GPL-2.0-only
"""What `spinlock check` says of a program, as text and Markdown.

What is long folds: rows, causes and places beyond a few are counted, unless `everything` is asked for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Dict, List, Sequence, Tuple

from harness.check import coming, notes, run_report
from harness.check.answer import Answer, Group
from harness.check.classes import PAGE
from harness.scenarios.scenario import anchor

MOST_NAMES = 6  # of programs that are told of at once
MOST_ROWS = 12  # of programs in the table, before alike ones are told as one
MOST_ALIKE = 3  # of rows of alike programs in a table that folds
MOST_GROUPS = 8
MOST_PLACES = 3
_ALL = "--all shows all"


def terminal(answer: Answer, everything: bool = False) -> str:
    """Return the report as text."""
    lines = notes.head(answer)
    rows = _table(answer, everything)
    width = max(len(name) for name, _ in rows) + 2
    columns = [
        max(len(row.kernel), *(len(cells[at]) for _, cells in rows)) + 2
        for at, row in enumerate(answer.kernels)
    ]
    heading = ("", tuple(row.kernel for row in answer.kernels))
    lines.append("")
    for name, cells in (heading, *rows):
        shown = "".join(f"{cell:<{column}}" for cell, column in zip(cells, columns))
        lines.append(f"{name:<{width}}{shown}".rstrip())
    lines += ["", *ends] if (ends := notes.ends(answer)) else []
    lines += [f"\n{text}" for text in notes.outputs(answer)] if everything else []
    lines += [f"\n{text}" for text in _turns(answer)]
    shown_groups, more = _groups(answer, everything)
    for group in shown_groups:
        lines += ["", _title(group, everything)]
        last = ""
        for key, text in _said(group, everything):
            lines.append(f"  {key if key != last else '':<8} {text}")
            last = key
    lines += ["", more] if more else []
    lines += [f"\n{text}" for text in notes.warnings(answer)]
    locked = _locked(answer)
    lines += ["", *locked] if locked else []
    lines += run_report.lines(answer)
    newer = _newer(answer)
    lines += ["", *newer] if newer else []
    return "\n".join([*lines, "", answer.conclusion()]) + "\n"


def markdown(answer: Answer, everything: bool = False) -> str:
    """Return the report as Markdown."""
    lines = [f"## {answer.source.name}", "", *notes.head(answer)[1:], ""]
    lines += ["| program | " + " | ".join(row.kernel for row in answer.kernels) + " |"]
    lines += ["|---" * (len(answer.kernels) + 1) + "|"]
    for name, cells in _table(answer, everything):
        linked = [
            cell if cell in ("loads", "WARNS") else f"[{cell}]({PAGE}#{cell})" for cell in cells
        ]
        lines.append(f"| {name} | " + " | ".join(linked) + " |")
    lines += ["", *(f"* {text}" for text in notes.ends(answer))]
    lines += [f"\n{text}" for text in _turns(answer)]
    shown, more = _groups(answer, everything)
    for group in shown:
        names, title = _title(group, everything).split(" on ", 1)
        lines += ["", f"**{names}** on {title}", ""]
        lines += [
            f"* {key}: `{text}`" if key in ("line", "source") else f"* {key}: {text}"
            for key, text in _said(group, everything)
        ]
    lines += ["", more] if more else []
    lines += [f"\n{text}" for text in notes.warnings(answer)]
    locked = _locked(answer)
    lines += ["", "```", *locked, "```"] if locked else []
    runs = run_report.lines(answer)
    lines += ["", "```", *runs[1:], "```"] if runs else []
    newer = _newer(answer)
    lines += ["", "```", *newer, "```"] if newer else []
    return "\n".join([*lines, "", answer.conclusion()]) + "\n"


def _table(answer: Answer, everything: bool) -> List[Tuple[str, Tuple[str, ...]]]:
    """Return (program, a word per kernel); of a long table a few of those that are alike."""
    rows = [(n, tuple(answer.word(row, n) for row in answer.kernels)) for n in answer.programs]
    if everything or len(rows) <= MOST_ROWS:
        return rows
    alike: Dict[Tuple[str, ...], List[str]] = {}
    for name, cells in rows:
        alike.setdefault(cells, []).append(name)
    folded = []
    for cells, names in alike.items():
        shown = names if len(names) <= MOST_ALIKE + 1 else names[:MOST_ALIKE]
        folded += [(name, cells) for name in shown]
        if len(shown) < len(names):
            folded.append((f"and {len(names) - len(shown)} more", cells))
    return folded


def _groups(answer: Answer, everything: bool) -> Tuple[Sequence[Group], str]:
    """Return the causes to be told, and a line on those that are not."""
    groups = answer.groups()
    left = [] if everything else groups[MOST_GROUPS:]
    if len(left) < 2:  # the line would be no shorter
        return groups, ""
    names = dict.fromkeys(name for group in left for name in group.programs)
    said = f"{len(left)} more causes are not shown, of {_few([*names], False)}: {_ALL}"
    return groups[:MOST_GROUPS], said


def _few(names: Sequence[str], everything: bool) -> str:
    most = len(names) if everything else MOST_NAMES
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def _title(group: Group, everything: bool) -> str:
    names = _few(group.programs, everything)
    return f"{names} on {', '.join(group.kernels)}: {group.refusal.of.title}"


def _said(group: Group, everything: bool) -> List[Tuple[str, str]]:
    why = group.refusal
    rule = why.of.rule
    said = [
        ("line", why.line),
        *(("source", text) for text in _places(group, everything)),
        ("change", why.advice),
        ("others", str(group.claim) if group.claim is not None else ""),
        ("reason", f"in the kernel's words: {why.reason}" if why.reason else ""),
        ("suggests", f"in the kernel's words: {why.suggestion}" if why.suggestion else ""),
        ("rule", f"{rule}: docs/rules.md#{anchor(rule)}" if rule else ""),
        ("more", f"{PAGE}#{why.name}"),
    ]
    return [(key, text) for key, text in said if text]


def _places(group: Group, everything: bool) -> List[str]:
    """Say where it happens; in which program, if there are several."""
    of_one = len(set(group.programs)) == 1
    said = [
        f"{_near(where)}  {text}".strip() + ("" if of_one else f"  ({name})")
        for where, text, name in group.places
    ]
    if everything or len(said) <= MOST_PLACES + 1:
        return said
    return [*said[:MOST_PLACES], f"and {len(said) - MOST_PLACES} more places: {_ALL}"]


def _turns(answer: Answer) -> List[str]:
    """Say of which kernels what loads and what does not, where that is not so from one kernel on."""
    lines: Dict[str, List[str]] = {}
    for name in answer.programs:
        turns = answer.turns(name)
        if len(turns) > 2 or turns and turns[0][0] and len(turns) == 2:
            parts = [f"{'loads' if good else 'refused'} on {_range(k)}" for good, k in turns]
            lines.setdefault(", ".join(parts), []).append(name)
    return [f"{_few(names, False)}: {parts}" for parts, names in lines.items()]


def _range(kernels: List[str]) -> str:
    return kernels[0] if len(kernels) == 1 else f"{kernels[0]} to {kernels[-1]}"


def _near(where: str) -> str:
    """Return a path as seen from here, if it is below."""
    here = f"{Path.cwd()}/"
    return where[len(here) :] if where.startswith(here) else where


def _locked(answer: Answer) -> List[str]:
    return answer.locks.lines() if answer.locks is not None else []


def _newer(answer: Answer) -> List[str]:
    return coming.lines(answer.coming, answer.kernels) if answer.coming is not None else []
