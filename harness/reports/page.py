# SPDX-License-Identifier: GPL-2.0-only
"""The matrix as one self-contained HTML page: no network, no server, no second file."""

from __future__ import annotations

import datetime
import json
import re
from typing import Any, Dict, List, Optional, Sequence

import jinja2

from harness.judging.verdict import Kind, Observation
from harness.judging.wording import in_words, telling_line
from harness.reports.rulebook import LINK
from harness.results import matrix
from harness.results.drift import Drift, What
from harness.results.expected_failures import Known
from harness.results.matrix import Matrix
from harness.results.result import Result

# Each cell has a letter, so the page can be read without colours.
LETTERS: Dict[Kind, str] = {
    Kind.PASS: "✓",
    Kind.KNOWN: "K",
    Kind.SKIP: "–",
    Kind.INCONCLUSIVE: "?",
    Kind.FAIL: "F",
    Kind.ERROR: "E",
    Kind.CRASH: "C",
}
# The number of last lines of a log that the page keeps, since it has thousands of logs. For a PASS
# the last lines are enough. The results file has the whole log.
_LOG_LINES = {Kind.PASS: 12}
_LOG_LINES_ELSE = 120
_LINE = 400
_KERNEL_LOG_LINES = 60

_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.PackageLoader("harness.reports"),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
)


def html(pivot: Matrix, drift: Optional[Drift] = None, known: Optional[Known] = None) -> str:
    """Return the page. It shows `drift` from a baseline and `known` failures, if given."""
    pool = _Pool()
    numbers = {matrix.key(result): number for number, result in enumerate(pivot.results)}
    data: Dict[str, Any] = {
        "link": LINK,
        "fields": list(_cell(pivot.results[0])) if pivot.results else [],
        "cells": [[pool.add(v) for v in _cell(r).values()] for r in pivot.results],
        "pool": pool.values,
    }
    template = _ENVIRONMENT.get_template("report.html.j2")
    return template.render(
        columns=pivot.columns,
        releases={kernel: pivot.release(kernel) for kernel in pivot.columns},
        counts={kernel: pivot.counts(kernel) for kernel in pivot.columns},
        loaders=pivot.loaders,
        kinds=[kind for kind in Kind if any(r.verdict is kind for r in pivot.results)],
        letters=LETTERS,
        rules=[_rule(pivot, rule, cases, numbers) for rule, cases in pivot.rules.items()],
        total=len(pivot.results),
        cases=sum(map(len, pivot.rules.values())),
        changes=(
            [
                (what.value, [str(change) for change in drift.of(what)])
                for what in What
                if drift.of(what)
            ]
            if drift is not None
            else None
        ),
        known=known.lines() if known is not None else [],
        made=f"{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d %H:%M} UTC",
        data=_script(data),
    )


def _rule(
    pivot: Matrix, rule: str, cases: Sequence[str], numbers: Dict[matrix.Key, int]
) -> Dict[str, Any]:
    """Return the row of a rule and the rows of its cases.

    A cell has, per loader, a verdict and the number of its details.
    """

    def row(of: Sequence[str]) -> List[Dict[str, Any]]:
        cells = []
        for kernel in pivot.columns:
            for loader in pivot.loaders:
                found = [pivot.cells.get((case, kernel, loader)) for case in of]
                seen = [result for result in found if result is not None]
                said = matrix.worst(seen)
                cells.append(
                    {
                        "kind": said.verdict if said else None,
                        "number": numbers[matrix.key(said)] if said else None,
                        "count": sum(r.verdict is said.verdict for r in seen) if said else 0,
                        "kernel": kernel,
                        "loader": loader,
                    }
                )
        return cells

    return {
        "name": rule,
        "text": next((r.rule_text for r in pivot.results if r.rule == rule and r.rule_text), ""),
        "cells": row(cases),
        "cases": [{"name": case, "cells": row([case])} for case in cases],
    }


class _Pool:
    """A pool of values that many cells share. Each value is stored once."""

    def __init__(self) -> None:
        self.values: List[Any] = []
        self._numbers: Dict[str, int] = {}

    def add(self, value: Any) -> Optional[int]:
        """Add a value if it is new and return its number; None for an empty value."""
        if value in (None, "", [], {}, ()):
            return None
        text = json.dumps(value)
        if text not in self._numbers:
            self._numbers[text] = len(self.values)
            self.values.append(value)
        return self._numbers[text]


def _cell(result: Result) -> Dict[str, Any]:
    """Return the details of a result that the page's drawer shows."""
    seen = result.observation or Observation()
    limit = _LOG_LINES.get(result.verdict, _LOG_LINES_ELSE)
    log = seen.log
    release = matrix.version(result)
    return {
        "name": result.name,
        "kernel": matrix.column(result),
        "loader": result.loader,
        "verdict": result.verdict.value,
        "reason": _end(result.reason, 40),
        "rule": result.rule,
        "rule_text": result.rule_text,
        "where": result.where,
        "about": result.description,
        "comment": result.comment,
        "commits": list(result.commits),
        "expected": [[clause.kernels or "all kernels", clause.what] for clause in result.expected],
        "applies": [number for number, c in enumerate(result.expected) if c.applies],
        "bugs": [
            [commit, kernels, matrix.covers(kernels, release)]
            for commit, kernels in result.known_bugs
        ],
        "timeline": (seen.measurements or {}).get("timeline") or [],
        "evidence": [line[:_LINE] for line in result.evidence[:60]],
        "seen": in_words(result.observation, text=False) if result.observation else "",
        "log": _end(log, limit),
        "telling": telling_line(log),
        "kernel_log": _kernel_log(result),
        "detail": _end(seen.detail, 8),
        "repeat": result.repeat,
        "facts": _facts(result),
    }


def _kernel_log(result: Result) -> str:
    """Return the kernel log of a result, if it was part of the verdict."""
    if result.verdict not in (Kind.CRASH, Kind.KNOWN, Kind.ERROR):
        return ""
    if result.observation is None:
        return ""
    lines = [*(result.observation.kernel_log or ()), *result.observation.console.splitlines()]
    return "\n".join(line[:_LINE] for line in lines[:_KERNEL_LOG_LINES])


def _end(text: str, limit: int) -> str:
    """Return the last lines of a text, after a line with the number of omitted lines."""
    lines = [line[:_LINE] for line in text.strip("\n").splitlines()]
    left = len(lines) - limit
    return "\n".join([f"… {left} lines before", *lines[-limit:]] if left > 0 else lines)


def _facts(result: Result) -> Dict[str, str]:
    """Return the known facts of the kernel and the tools, by readable names."""
    facts = result.facts
    image = facts.get("image")
    tools = image if isinstance(image, dict) else {}
    rows = {
        "release": facts.get("release") or result.kernel,
        "Debian package": facts.get("kernel_package"),
        "version": facts.get("version"),
        "configuration": facts.get("config_sha256") and f"sha256 {facts['config_sha256']}",
        "accelerator": facts.get("accelerator"),
        "CPUs": facts.get("cpus"),
        "path of the lock": result.lock_path,
        "JIT": facts.get("jit"),
        "libbpf": facts.get("libbpf"),
        "bcc": facts.get("bcc"),
        "tools in the guest": ", ".join(f"{name} {v}" for name, v in tools.items()),
        "command line": facts.get("command_line"),
    }
    return {name: str(value) for name, value in rows.items() if value not in (None, "")}


def _script(data: Any) -> str:
    """Return JSON for a script element, escaped so that it cannot end the element."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return re.sub(r"[<\u2028\u2029]", lambda match: f"\\u{ord(match.group()):04x}", text)
