# SPDX-License-Identifier: GPL-2.0-only
"""What running programs has shown, as text and JSON. Pure."""

from __future__ import annotations

from typing import Dict, List, Optional, Sequence, Tuple

from harness.check.answer import Answer
from harness.check.proof import (
    ACCUSED,
    MATTERS,
    NO_POWER,
    UNCHANGED,
    UNKNOWN,
    Json,
    Least,
    Loss,
    Proof,
)
from harness.check.prove import Proven

LIMITS = (
    "Found in runs, of these inputs on this kernel: what was not reached is not judged, and no power"
    " means that the lock was never needed, not that it is right."
)
_WIDEST = 32


def lines(answer: Answer) -> List[str]:
    """Say what running the programs has shown, in lines of text; none if nothing was run."""
    said = []
    for kernel, proven in answer.proven.items():
        said += ["", f"does the lock matter? (run on {kernel}, {proven.cpus} CPUs)"]
        said += _of_kernel(proven)
    return said


def _of_kernel(proven: Proven) -> List[str]:
    said = []
    alike: Dict[Tuple[str, ...], List[Proof]] = {}
    for each in proven.proofs:
        if each.verdict != UNCHANGED:
            alike.setdefault((each.map, *_sentence(each)), []).append(each)
    labels = [f"{group[0].map}.{', '.join(p.field for p in group)}" for group in alike.values()]
    width = min(max([len(label) for label in labels] or [0]), _WIDEST)
    for label, (key, _) in zip(labels, alike.items()):
        said.append(f"  {label:<{width}}  {key[1]}")
        said += [f"    {more}" for more in key[2:]]
    left = [f"{p.map}.{p.field}" for p in proven.proofs if p.verdict == UNCHANGED]
    if left:
        said.append(f"  not changed in these runs: {', '.join(left)}")
    for ran in proven.ran:
        given = f" ({', '.join(ran.packets)})" if any(ran.packets) else ""
        said.append(
            f"  ran {' and '.join(ran.programs)}{given}: {ran.runs:,} times in {ran.seconds:.2f} s"
        )
    said += [f"  not run: {name}: {why}" for name, why in proven.left_out.items()]
    said += [f"  {note}" for note in proven.notes]
    if proven.complaint:
        said.append(f"  the kernel complained: {proven.complaint}")
    return [*said, f"  {LIMITS}"]


def _sentence(each: Proof) -> Sequence[str]:
    """Return a verdict, and below it the evidence."""
    if each.verdict == UNKNOWN:
        seen = [f"seen: {_words(each.loss)}"] if each.loss is not None else []
        return [f"unknown, because {each.because}", *seen]
    if each.verdict == ACCUSED and each.loss is not None:
        seen = [f"all at once: {_words(each.loss)}"]
        if each.least is not None:
            work = f"{each.least.runs} runs on {each.least.cpus} CPUs"
            seen.append(f"the least that was seen: {work}: {_words(each.least.loss)}")
        return [ACCUSED, *seen]
    if each.verdict == MATTERS and each.twin is not None:
        return [MATTERS, f"without it: {_words(each.twin)}"]
    if each.verdict == NO_POWER:
        return ["no power: right with the lock, and without it as well"]
    return [each.verdict]


def _words(loss: Loss) -> str:
    if loss.lost is not None:
        lost = f"{loss.lost:,} runs are" if loss.lost != 1 else "1 run is"
        return f"{loss.found} where one CPU leaves {loss.expected}: {lost} lost"
    return f"{loss.found} where one CPU leaves {loss.expected}, in every order of the same runs"


def to_json(answer: Answer, kernel: str) -> Optional[Json]:
    """Return what running the programs on a kernel has shown; None if nothing was run."""
    proven = answer.proven.get(kernel)
    if proven is None:
        return None
    return {
        "cpus": proven.cpus,
        "fields": [
            {
                "map": each.map,
                "field": each.field,
                "verdict": each.verdict,
                "because": each.because or None,
                "loss": each.loss.to_json() if each.loss is not None else None,
                "twin_loss": each.twin.to_json() if each.twin is not None else None,
                "least": _least(each.least) if each.least is not None else None,
            }
            for each in proven.proofs
        ],
        "ran": [
            {
                "programs": list(ran.programs),
                "packets": list(ran.packets),
                "runs": ran.runs,
                "seconds": ran.seconds,
            }
            for ran in proven.ran
        ],
        "not_run": dict(proven.left_out),
        "notes": list(proven.notes),
        "complaint": proven.complaint or None,
        "limits": LIMITS,
    }


def _least(least: Least) -> Json:
    return {"cpus": least.cpus, "runs": least.runs, "loss": least.loss.to_json()}
