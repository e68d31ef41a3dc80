"""What of an interrupted run still holds when it goes on: the same kernel, tools, sources, options."""

from __future__ import annotations

import functools
import hashlib
import json
from pathlib import Path
from typing import Any, Dict, List, Mapping, Sequence, Tuple

from harness import build, matrix, results
from harness.errors import SetupError, UsageError
from harness.judge import Kind
from harness.results import Result

OPTIONS = "options.json"  # in the directory of a run


def read(directory: Path) -> Tuple[Tuple[Result, ...], Dict[str, Any]]:
    """Return the results and the options of the run in a directory.

    Raises UsageError when there is none, SetupError when it cannot go on there.
    """
    if not directory.is_dir():
        raise UsageError(f"There is no run in {directory} to resume; start without --resume.")
    stored = directory / "results.jsonl"
    before = matrix.read([stored]).results if results.mend(stored) else ()
    try:
        options = json.loads((directory / OPTIONS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        options = {}  # it was killed before it wrote them
    return before, options if isinstance(options, dict) else {}


def write_options(directory: Path, options: Mapping[str, Any]) -> None:
    """Leave a run's options beside its results. Raises SetupError."""
    try:
        (directory / OPTIONS).write_text(json.dumps(options, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise SetupError(
            f"Cannot write below {directory} ({error.strerror}); choose another place by --results."
        ) from None


def other_options(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return the sentence to be said when a run is resumed with other options than it began with."""
    changed = [
        f"{name} {_words(now[name])}, was {_words(before[name])}"
        for name in now
        if name in before and before[name] != now[name]
    ]
    if not changed:
        return ""
    return f"resumed with other options than this run began with: {'; '.join(changed)}."


def _words(value: Any) -> str:
    if isinstance(value, list):
        shown = " ".join(map(str, value)) if len(value) < 13 else f"{len(value)} of them"
        return shown or "not given"
    return "not given" if value in (None, "") else str(value)


@functools.lru_cache(maxsize=None)
def source_digest(file: Path, programs: Path) -> str:
    """Return the digest of all sources that a case of `file` may be made of; "" without the file.

    That is a C file with the headers, or a test with all C files.
    """
    headers = {*programs.glob("*.h"), *build.PROGRAMS.glob("*.h")}
    parts = headers if file.name.endswith(".c") else headers.union(programs.glob("*.c"))
    digest = hashlib.sha256()
    try:
        for part in sorted({file, *parts}):
            digest.update(part.name.encode() + b"\0" + part.read_bytes())
    except OSError:
        return ""
    return digest.hexdigest()[:16]


def sources(file: Path, programs: Path, root: Path) -> Dict[str, str]:
    """Return, for a result's facts, which file it is of and what that was at the time."""
    path = file.absolute()
    name = str(path.relative_to(root)) if root in path.parents else str(path)
    return {"source": name, "source_digest": source_digest(path, programs)}


def outdated(
    before: Sequence[Result], now: Mapping[str, Mapping[str, Any]], programs: Path, root: Path
) -> Dict[str, Tuple[List[Result], List[str]]]:
    """Return, by kernel, the results that no longer hold, and in words what is not as it was.

    `now` is what is known of each kernel before it is booted; the results of others are left alone,
    as they are not run. A fact that an older harness did not store is taken to be the same.
    """
    found: Dict[str, Tuple[List[Result], Dict[str, None]]] = {}
    for result in before:
        name = matrix.column(result)
        if name not in now or not result.facts or result.verdict is Kind.ERROR:
            continue
        said = results.differences(result.facts, now[name])
        file = str(result.facts.get("source", ""))
        if file and result.facts.get("source_digest") != source_digest(root / file, programs):
            said.append(f"{file} has changed")
        if said:
            others, words = found.setdefault(name, ([], {}))
            others.append(result)
            words.update(dict.fromkeys(said))
    return {name: (others, [*words]) for name, (others, words) in found.items()}
