# SPDX-License-Identifier: GPL-2.0-only
"""What `spinlock check` says of a program, as JSON; docs/formats.md describes it. Pure."""

from __future__ import annotations

from typing import Optional

from harness.check import coming, run_report
from harness.check.answer import Answer
from harness.check.classes import PAGE
from harness.check.examine import Json, OnKernel
from harness.check.refusal import Refusal


def to_json(answer: Answer) -> Json:
    """Return the answer as one object; "format" changes when the meaning of a member does."""
    first = answer.smallest
    return {
        "format": 1,
        "file": answer.source.name,
        "programs": list(answer.programs),
        "smallest_kernel": first.kernel if first else None,
        "kernels": [
            {
                "name": row.kernel,
                "release": row.release,
                "loads": row.good,
                "problem": _refusal_json(answer, row, "", row.problem),
                "assumed_sizes": list(row.assumed),
                "shrunk": list(row.shrunk),
                "warning": row.warning or None,
                "btf_refused": dict(row.btf_refused),
                "btf_causes": list(row.causes),
                "programs": {
                    name: {
                        "loads": seen.refusal is None,
                        "refusal": _refusal_json(answer, row, name, seen.refusal),
                        "warning": seen.warning or None,
                        "log": seen.log,
                        "told": seen.told or None,
                        "seconds": seen.seconds,
                    }
                    for name, seen in row.programs.items()
                },
                "run": run_report.to_json(answer, row.kernel),
            }
            for row in answer.kernels
        ],
        "next": _next_json(answer),
        "lockset": answer.locks.to_json() if answer.locks is not None else None,
    }


def _next_json(answer: Answer) -> Optional[Json]:
    if answer.coming is None:
        return None
    return {
        "base": answer.coming.base,
        "asked": list(answer.coming.asked),
        "not_asked": list(answer.coming.left),
        "refused": [
            {"program": name, "kernels": list(kernels), "class": of}
            for name, kernels, of in coming.refused(answer.coming, answer.kernels)
        ],
        "by_rule_book": [
            {
                "what": breach.what,
                "programs": list(breach.programs),
                "rule": breach.rule,
                "scenario": breach.scenario,
                "taken_by": breach.taken,
            }
            for breach in answer.coming.breaches
        ],
    }


def _refusal_json(
    answer: Answer, row: OnKernel, name: str, why: Optional[Refusal]
) -> Optional[Json]:
    if why is None:
        return None
    claim = answer.claim(name, why)
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
