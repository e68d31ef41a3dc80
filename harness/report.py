"""Results for people: the terminal table and what a failing case says of itself."""

from __future__ import annotations

import collections
from typing import Dict, Sequence

from rich.console import Console
from rich.text import Text

from harness.judge import Kind
from harness.results import Result

_COLOURS: Dict[Kind, str] = {
    Kind.PASS: "green",
    Kind.KNOWN: "cyan",
    Kind.SKIP: "bright_black",
    Kind.INCONCLUSIVE: "yellow",
    Kind.FAIL: "bold red",
    Kind.ERROR: "bold magenta",
    Kind.CRASH: "bold white on red",
}


def explain(result: Result) -> str:
    """Return the lines that let a reader understand a verdict and repeat it."""
    lines = [
        f"{result.verdict.value} {result.name} [{result.loader}] on {result.kernel}: {result.reason}",
        f"  rule     {result.rule}",
        f"  source   {result.where}",
    ]
    lines += [f"  {line}" for line in result.evidence]
    log = str(result.observation.get("log") or "").strip()
    if log and result.verdict is Kind.FAIL:
        lines += ["  verifier log, its end:", *(f"    {line}" for line in log.splitlines()[-20:])]
    lines.append(f"  repeat   {result.repeat}")
    return "\n".join(lines)


def summary(results: Sequence[Result]) -> str:
    """Return one line that counts the verdicts, worst first."""
    counts = collections.Counter(result.verdict for result in results)
    parts = [f"{counts[kind]} {kind.value}" for kind in Kind if counts[kind]]
    kernels = sorted({result.kernel for result in results})
    return f"{', '.join(parts) or 'nothing ran'} on {', '.join(kernels) or 'no kernel'}"


def table(results: Sequence[Result], width: int, colour: bool) -> str:
    """Return the verdicts as text: a block per rule, a line per case, a column per loader."""
    loaders = [name for name in ("bcc", "libbpf") if any(r.loader == name for r in results)]
    rules: Dict[str, Dict[str, Dict[str, Result]]] = {}
    for result in results:
        rules.setdefault(result.rule, {}).setdefault(result.name, {})[result.loader] = result
    name_width = max((len(result.name) for result in results), default=0) + 4
    columns = {loader: _column(loader, results) for loader in loaders}
    room = max(20, width - name_width - sum(columns.values()))
    console = Console(
        width=10000,  # lines are cut here, not wrapped there
        force_terminal=colour,
        no_color=not colour,
        highlight=False,
    )
    with console.capture() as capture:
        for rule, cases in rules.items():
            heading = Text(rule.ljust(name_width), style="bold")
            if len(rule) < name_width:
                for loader, size in columns.items():
                    heading.append(loader.ljust(size), style="bright_black")
            console.print(heading)
            for name, by_loader in cases.items():
                worst = min(by_loader.values(), key=lambda r: list(Kind).index(r.verdict))
                line = Text(f"  {name}".ljust(name_width))
                for loader, size in columns.items():
                    seen = by_loader.get(loader)
                    word, style = (
                        (seen.verdict.value, _COLOURS[seen.verdict]) if seen else ("-", "")
                    )
                    line.append(word, style=style)
                    line.append(" " * (size - len(word)))
                reason = worst.reason.replace("\n", " ")
                line.append(reason if len(reason) <= room else reason[: room - 1] + "…")
                console.print(line)
    return capture.get().rstrip()


def _column(loader: str, results: Sequence[Result]) -> int:
    words = [result.verdict.value for result in results if result.loader == loader]
    return max(len(word) for word in (loader, *words)) + 2
