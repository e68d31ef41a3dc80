# SPDX-License-Identifier: GPL-2.0-only
"""Results for people: tables for the terminal, Markdown, and explanations of failed cases."""

from __future__ import annotations

import collections
from typing import Dict, List, Optional, Sequence, Tuple

from rich.console import Console
from rich.text import Text

from harness.judging import splat
from harness.judging.verdict import Kind, Observation
from harness.judging.wording import telling_line
from harness.results import matrix
from harness.results.drift import Drift, What
from harness.results.expected_failures import Known
from harness.results.matrix import Matrix
from harness.results.result import Result

COLOURS: Dict[Kind, str] = {
    Kind.PASS: "green",
    Kind.KNOWN: "cyan",
    Kind.SKIP: "bright_black",
    Kind.INCONCLUSIVE: "yellow",
    Kind.FAIL: "bold red",
    Kind.ERROR: "bold magenta",
    Kind.CRASH: "bold white on red",
}
# Short enough for eleven columns of kernels beside the names in 120 characters.
_WORDS: Dict[Kind, str] = {
    Kind.PASS: "ok",
    Kind.KNOWN: "known",
    Kind.SKIP: "-",
    Kind.INCONCLUSIVE: "incon",
    Kind.FAIL: "FAIL",
    Kind.ERROR: "ERROR",
    Kind.CRASH: "CRASH",
}
LOG_WIDTH = 160  # columns of output that does not go to a terminal
_LEGEND = (
    "- is SKIP, incon INCONCLUSIVE, known a bug of that kernel on record; two words: bcc, libbpf"
)
_CELL = 7
_HEAD = 12  # characters of a column's heading
_EVIDENCE = 12  # lines of evidence without -v: a kernel backtrace is long
_SHOWN = 40  # lines on cases that did not pass, below the matrix of a run


def explain(result: Result, whole: bool = False) -> str:
    """Explain a verdict: its evidence, its source and the command that repeats it.

    `whole` adds the whole verifier log. Otherwise its line with the reason is shown.
    """
    lines = [
        f"{result.verdict.value} {result.name} [{result.loader}] on"
        f" {result.kernel or matrix.column(result)}: {result.reason}",
        f"  rule     {result.rule}",
        f"  source   {result.where or 'unknown'}",
        *([f"  lock     CPUs took it by {result.lock_path}"] if result.lock_path else []),
    ]
    # A single clause that applies here says no more than the lines of evidence.
    if len(result.expected) > 1 or not all(clause.applies for clause in result.expected):
        for clause in result.expected:
            mark = "here ->" if clause.applies else ""
            lines.append(f"  {mark:<8} {clause.kernels or 'all kernels'}: {clause.what}")
    lines += [f"  known    {kernels}, see commit {commit}" for commit, kernels in result.known_bugs]
    shown = result.evidence if whole else result.evidence[:_EVIDENCE]
    lines += [f"  {line}" for line in shown]
    if len(shown) < len(result.evidence):
        lines.append(f"  … {len(result.evidence) - len(shown)} more lines; -v shows them")
    seen = result.observation or Observation()
    log = seen.log.strip()
    telling = telling_line(log)
    if whole and log:
        lines += ["  verifier log:", *(f"    {line}" for line in log.splitlines())]
    elif telling and not any(telling in line for line in result.evidence):
        lines.append(f'  log      "{telling}"')
    elif not log and seen.detail and result.verdict is Kind.FAIL:
        lines.append(f"  loader   {seen.detail.splitlines()[0]}")
    lines.append(f"  repeat   {result.repeat}")
    return "\n".join(lines)


def unable(error: BaseException) -> str:
    """Return the error that kept a case from running, with the end of the console, if any."""
    console = str(getattr(error, "console", "")).splitlines()
    found = splat.find(console)
    shown = console[found.position :][:_EVIDENCE] if found else console[-_EVIDENCE:]
    return "\n".join([str(error), *(f"  {line}" for line in shown)])


def summary(results: Sequence[Result]) -> str:
    """Return one line with the number of results per verdict, the worst first."""
    counts = collections.Counter(result.verdict for result in results)
    kernels = sorted({result.kernel for result in results if result.kernel})
    where = ", ".join(kernels) if len(kernels) < 4 else f"{len(kernels)} kernels"
    return f"{counted(counts) or 'nothing ran'} on {where or 'no kernel'}"


def counted(counts: Dict[Kind, int]) -> str:
    """Return verdicts with their numbers, the worst first."""
    return ", ".join(f"{counts[kind]} {kind.value}" for kind in Kind if counts.get(kind))


def table(results: Sequence[Result], width: int, colour: bool) -> str:
    """Return the table at the end of a run, the worst first.

    For one kernel it lists each case with its reason; for several it is a matrix. Of many cases, a
    rule whose cases all hold has one line.
    """
    pivot = Matrix(_worst_first(results))
    if len(pivot.columns) == 1:
        return _cases(pivot, width, colour)
    lines = [terminal(pivot, width, colour)]
    # Failures were explained during the run, above. These lines help to find them.
    notable = pivot.notable()
    if notable:
        lines.append("")
        lines += [_one_line(result, on, width) for result, on in notable[:_SHOWN]]
        if len(notable) > _SHOWN:
            lines.append(f"… and {len(notable) - _SHOWN} more")
    return "\n".join([*lines, "", *totals(pivot)])


def _worst_first(results: Sequence[Result]) -> List[Result]:
    """Return results so that rules with worse verdicts come first, and in a rule worse cases."""
    kinds = [kind for kind in Kind if kind is not Kind.SKIP] + [Kind.SKIP]
    rules: Dict[str, int] = {}
    cases: Dict[Tuple[str, str], int] = {}
    for result in results:
        case, bad = (result.rule, result.name), kinds.index(result.verdict)
        rules[result.rule] = min(bad, rules.get(result.rule, bad))
        cases[case] = min(bad, cases.get(case, bad))
    place = {rule: number for number, rule in enumerate(rules)}
    return sorted(results, key=lambda r: (rules[r.rule], place[r.rule], cases[r.rule, r.name]))


def _one_line(result: Result, kernels: Sequence[str], width: int) -> str:
    words = (
        f"{result.verdict.value:<6} {result.name} [{result.loader}] on {', '.join(kernels)}:"
        f" {result.reason}"
    )
    return cut(words.replace("\n", " "), width)


def cut(words: str, width: int) -> str:
    """Return words as far as they have room."""
    return words if len(words) <= width else words[: width - 1] + "…"


def _head(kernel: str) -> str:
    """Return the heading of a kernel's column. A long path is cut at its start."""
    if "/" in kernel and len(kernel) > _HEAD:
        return f"…{kernel[1 - _HEAD :]}"
    return cut(kernel, _HEAD)


def _cases(pivot: Matrix, width: int, colour: bool) -> str:
    """Return the verdicts on one kernel: a block per rule, a row per case, a column per loader."""
    kernel = pivot.columns[0]
    names = [result.name for result in pivot.results]
    few = len(set(names)) <= _SHOWN
    name_width = max(len(name) for name in names) + 4
    columns = {loader: _column(loader, pivot.results) for loader in pivot.loaders}
    room = max(20, width - name_width - sum(columns.values()))
    lines: List[Text] = []
    for rule, cases in pivot.rules.items():
        of_rule = pivot.cell(cases, kernel)
        if not few and all(seen.verdict in (Kind.PASS, Kind.SKIP) for seen in of_rule):
            line = Text(cut(rule, name_width - 2).ljust(name_width), style="bold")
            said = counted(collections.Counter(seen.verdict for seen in of_rule))
            lines.append(_by_loader(line, of_rule, columns, said))
            continue
        heading = Text(rule.ljust(name_width), style="bold")
        if len(rule) < name_width:
            for loader, size in columns.items():
                heading.append(loader.ljust(size), style="bright_black")
        lines.append(heading)
        for name in cases:
            line = Text(f"  {name}".ljust(name_width))
            seen = pivot.cell([name], kernel)
            worst = matrix.worst(seen)
            said = cut(worst.reason.replace("\n", " ") if worst else "", room)
            lines.append(_by_loader(line, seen, columns, said))
    return _render(lines, colour)


def _by_loader(line: Text, results: Sequence[Result], columns: Dict[str, int], said: str) -> Text:
    """Return a line with the worst verdict through each loader, and what is said of it."""
    for loader, size in columns.items():
        worst = matrix.worst(result for result in results if result.loader == loader)
        word = worst.verdict.value if worst else "-"
        line.append(word, style=COLOURS[worst.verdict] if worst else "")
        line.append(" " * (size - len(word)))
    line.append(said, style="not bold")
    return line


def _column(loader: str, results: Sequence[Result]) -> int:
    words = [result.verdict.value for result in results if result.loader == loader]
    return max(len(word) for word in (loader, *words)) + 2


def _render(lines: Sequence[Text], colour: bool) -> str:
    console = Console(
        width=10000,  # lines are already cut to size: no wrapping
        force_terminal=colour,
        no_color=not colour,
        highlight=False,
    )
    with console.capture() as capture:
        for line in lines:
            line.rstrip()
            console.print(line)
    return capture.get().rstrip()


# -- the matrix -----------------------------------------------------------------------------------


def terminal(pivot: Matrix, width: int, colour: bool, every_case: bool = False) -> str:
    """Return the matrix of rules x kernels as text.

    A rule shows the worst of its cases. Below it are its cases other than PASS and SKIP, or all if
    `every_case`. Eleven kernels fit into 120 columns.
    """
    heads = [_head(name) for name in pivot.columns]
    size = max([_CELL, *(len(head) + 1 for head in heads)])
    rows = _rows(pivot, every_case)
    longest = max(len(f"  {case}" if case else rule) for rule, case, _ in rows)
    name_width = min(longest + 1, max(24, width - size * len(pivot.columns)))
    header = Text(" " * name_width)
    for head in heads:
        header.append(head.ljust(size), style="bold")
    lines = [header]
    for rule, case, cases in rows:
        name = f"  {case}" if case else rule
        line = Text(cut(name, name_width - 1).ljust(name_width), style="" if case else "bold")
        for kernel in pivot.columns:
            line.append_text(_cell(pivot.cell(cases, kernel), size, bool(case)))
        lines.append(line)
    lines.append(Text(cut(_LEGEND, width), style="bright_black"))
    return _render(lines, colour)


def _rows(pivot: Matrix, every_case: bool) -> List[Tuple[str, str, List[str]]]:
    """Return the rows of the matrix as (rule, case or "", the cases of the row)."""
    bad = {result.name for result, _ in pivot.notable()}
    rows: List[Tuple[str, str, List[str]]] = []
    for rule, cases in pivot.rules.items():
        rows.append((rule, "", cases))
        rows += [(rule, case, [case]) for case in cases if every_case or case in bad]
    return rows


def _cell(results: Sequence[Result], size: int, by_loader: bool) -> Text:
    """Return the word for the worst verdict, or one word per loader if they differ."""
    said = matrix.worst(results)
    if said is None:
        return Text(" " * size)
    kinds = [result.verdict for result in results]
    if by_loader and len(set(kinds)) > 1:
        cell = Text()
        for kind in kinds:
            cell.append(_WORDS[kind][:2] + " ", style=COLOURS[kind])
    else:
        cell = Text(_WORDS[said.verdict], style=COLOURS[said.verdict])
    cell.append(" " * (size - len(cell)), style="default")
    return cell


def totals(pivot: Matrix) -> List[str]:
    """Return a line per kernel with the number of results per verdict."""
    return [f"{name:<8} {counted(pivot.counts(name))}" for name in pivot.columns]


def changes(drift: Drift, width: int = 0) -> str:
    """Return the changes from a baseline by kind, the worst first."""
    lines = [_compared(drift)]
    for what in What:
        found = drift.of(what)
        if found:
            lines.append(f"{len(found)} {what.value}:")
            lines += [f"  {cut(str(c), width - 2) if width else c}" for c in found[:_SHOWN]]
        if len(found) > _SHOWN:
            lines.append(f"  … and {len(found) - _SHOWN} more; --json has all")
    return "\n".join(lines)


def _compared(drift: Drift) -> str:
    speeds = ", ".join(f"{name} x {ratio}" for name, ratio in drift.speeds.items())
    words = f"{drift.compared} results compared with the baseline"
    return f"{words}; time: {speeds}" if speeds else words


# -- Markdown -------------------------------------------------------------------------------------


def markdown(pivot: Matrix, drift: Optional[Drift] = None, known: Optional[Known] = None) -> str:
    """Return a summary for a mail, in Markdown.

    It has the changes, counts per kernel, the cases that did not pass, and the matrix folded away.
    """
    kinds = [kind for kind in Kind if any(r.verdict is kind for r in pivot.results)]
    lines = [
        f"**bpf_spin_lock**: {len(pivot.rules)} rules,"
        f" {sum(map(len, pivot.rules.values()))} cases, {' and '.join(pivot.loaders)},"
        f" {len(pivot.columns)} kernels",
        "",
        *(_markdown_drift(drift) if drift is not None else ()),
        *([*(f"* {_plain(line)}" for line in known.lines()), ""] if known is not None else ()),
        "| kernel | release | " + " | ".join(kind.value for kind in reversed(kinds)) + " |",
        "|---|---|" + "---:|" * len(kinds),
    ]
    for kernel in pivot.columns:
        counts = pivot.counts(kernel)
        numbers = " | ".join(str(counts.get(kind, "")) for kind in reversed(kinds))
        lines.append(f"| {kernel} | {pivot.release(kernel)} | {numbers} |")
    notable = pivot.notable()
    lines += ["", "Neither PASS nor SKIP:" if notable else "Everything is PASS or SKIP.", ""]
    for result, kernels in notable:
        lines.append(
            f"* **{result.verdict.value}** `{result.name}` ({result.loader}) on"
            f" {', '.join(kernels)}: {_plain(result.reason)}"
        )
    lines += ["", "<details><summary>Rules × kernels</summary>", ""]
    lines.append("| | " + " | ".join(pivot.columns) + " |")
    lines.append("|---" * (len(pivot.columns) + 1) + "|")
    for rule, case, cases in _rows(pivot, True):
        name = f"`{case}`" if case else f"**{_plain(rule)}**"
        cells = [_words(pivot.cell(cases, kernel), bool(case)) for kernel in pivot.columns]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", "</details>"]) + "\n"


def _markdown_drift(drift: Drift) -> List[str]:
    lines = [f"{_plain(_compared(drift))}{'' if drift.changes else ': nothing changed'}.", ""]
    for what in What:
        found = drift.of(what)
        if found:
            lines += [f"**{len(found)} {what.value}**", ""]
            lines += [f"* {_plain(str(change))}" for change in found[:_SHOWN]]
            lines += [f"* … and {len(found) - _SHOWN} more"] if len(found) > _SHOWN else []
            lines.append("")
    return lines


def _words(results: Sequence[Result], by_loader: bool) -> str:
    said = matrix.worst(results)
    if said is None:
        return ""
    kinds = list(dict.fromkeys(result.verdict for result in results))
    return "/".join(_WORDS[kind] for kind in (kinds if by_loader else [said.verdict]))


def _plain(words: str) -> str:
    """Return text on one line, with Markdown's special characters escaped."""
    escaped = "".join(f"\\{char}" if char in "\\`*_[]<>|" else char for char in words)
    return " ".join(escaped.split())
