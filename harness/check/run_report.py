# SPDX-License-Identifier: GPL-2.0-only
"""What came of running a program on all CPUs at once, as text and JSON. Pure."""

from __future__ import annotations

from typing import Dict, List, Optional, Tuple

from harness.check.answer import Answer
from harness.check.examine import Json


def lines(answer: Answer) -> List[str]:
    """Say how each program ran on each kernel, in lines of text; none if nothing was run."""
    told = []
    for row in answer.kernels:
        for name, seen in row.programs.items():
            if "problem" in seen.run:
                told.append(f"  {name} on {row.kernel}: not run: {seen.run['problem']}")
            elif seen.run:
                told.append(f"  {name} on {row.kernel}: {_speed(answer, seen.run)}")
    return ["", "run on all CPUs at once:", *told] if told else []


def to_json(answer: Answer, run: Json) -> Optional[Json]:
    """Return what came of running a program on a kernel; None if it was not run."""
    if not run:
        return None
    shown = {key: value for key, value in run.items() if key != "looks"}
    return {**shown, "lock_seen_held": held(answer, run)}


def _speed(answer: Answer, run: Json) -> str:
    one = sum(run["one_cpu"]["runs"]) / max(run["one_cpu"]["seconds"], 0.001)
    every = sum(run["all_cpus"]["runs"]) / max(run["all_cpus"]["seconds"], 0.001)
    text = (
        f"{every:.0f} runs/s on {run['cpus']} CPUs, {one:.0f} on one,"
        f" together for {run['all_cpus']['together']} s"
    )
    for name, (taken, looks) in held(answer, run).items():
        text += f"; lock of {name} seen held in {taken} of {looks} looks"
    return text


def held(answer: Answer, run: Json) -> Dict[str, Tuple[int, int]]:
    """Return how often a look at a map showed a lock word that was not 0."""
    found: Dict[str, Tuple[int, int]] = {}
    for name, looks in run.get("looks", {}).items():
        declared = answer.maps.get(name)
        if declared is None or len(declared.locks) != 1 or "." in declared.locks[0].name:
            continue
        place = [f for f in declared.fields if "." not in f.name].index(declared.locks[0])
        if len([f for f in declared.fields if "." not in f.name]) != len(declared.fields):
            continue  # its text has braces within braces
        words = [_lock_words(text, place) for text in looks]
        seen = [each for each in words if each]  # an empty hash shows nothing
        if seen:
            found[name] = (sum(any(each) for each in seen), len(seen))
    return found


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
