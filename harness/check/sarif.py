# SPDX-License-Identifier: GPL-2.0-only
"""What `spinlock check` says of a program, as SARIF 2.1.0: for code scanning and editors. Pure.

A result per cause of refusals and place in the source, and one per field that its lock does not
protect. Places are from the object's BTF; what has none is put on the first line of the file.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Dict, Iterator, List, Mapping, Optional, Sequence, Tuple
from urllib.parse import quote

from harness.check import lockset, notes, proof
from harness.check.answer import OBJECT, Answer, Group
from harness.check.classes import BY_NAME, PAGE
from harness.check.examine import Json, Source

SCHEMA = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)
_WARNS, _ACCUSED, _NEWER = "kernel-warning", "accused", "newer-kernels"
# Rules that are neither a class of refusals nor a verdict of the lock analysis: (title, help).
_OTHERS = {
    _WARNS: (
        "the kernel complained",
        "The kernel took the program and printed a warning: report it to the kernel's list.",
    ),
    _ACCUSED: (
        "a field that CPUs changed together is wrong",
        "`--run` found a value that no order of the same runs leaves: find the access without the lock.",
    ),
    _NEWER: (
        "a newer kernel refuses it",
        "By the rule book, not by asking: fetch that kernel, and `--next` asks it.",
    ),
}
_CALM = (lockset.PROTECTED, lockset.ONLY_READ, lockset.UNTOUCHED, lockset.KERNELS)
# What is accused, and what is only said to be uncertain, at its level.
_LOCK_LEVELS = {
    lockset.NOT_PROTECTED: "warning",
    lockset.NEVER: "warning",
    lockset.MIXED: "warning",
    lockset.READ_WITHOUT: "note",
    lockset.ATOMICALLY: "note",
    lockset.UNKNOWN: "note",
}
_LOCK_HELP = f"docs/check.md#what-the-lock-analysis-sees has the verdicts. {lockset.LIMITS}"


def to_sarif(answers: Sequence[Tuple[Path, Answer]], version: str) -> Json:
    """Return the answers as a SARIF log, with a run for each file that was checked.

    `version` is that of the tool. Paths below the current directory become relative to it, which is
    what GitHub expects of a checkout.
    """
    runs = [_run(answer, file, version) for file, answer in answers]
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": runs}


def _run(answer: Answer, file: Path, version: str) -> Json:
    results = [*_refused(answer, file), *_warned(answer, file), *_unlocked(answer, file)]
    results += [*_accused(answer, file), *_coming(answer, file)]
    order = {name: at for at, name in enumerate(dict.fromkeys(r["ruleId"] for r in results))}
    for result in results:
        result["ruleIndex"] = order[result["ruleId"]]
    driver = {"name": "spinlock check", "version": version, "rules": [_rule(n) for n in order]}
    properties = {"kernels": {row.kernel: row.release for row in answer.kernels}}
    return {
        "tool": {"driver": driver},
        "automationDetails": {"id": f"spinlock check/{file}/"},  # runs of one log must differ in it
        "columnKind": "utf16CodeUnits",
        "invocations": [{"executionSuccessful": True}],
        "results": results,
        "properties": properties,
    }


def _rule(name: str) -> Json:
    """Return what a viewer shows of a rule: a class of refusals, or a verdict on a field."""
    if name in BY_NAME:
        of = BY_NAME[name]
        rule = f" The rule: {of.rule} (docs/rules.md)." if of.rule else ""
        title, text, page = of.title, f"{of.advice}{rule}", f"{PAGE}#{name}"
    elif name in _OTHERS:
        title, text = _OTHERS[name]
        page = "docs/check.md"
    else:
        title, page = f"a field with a lock: {name.replace('-', ' ')}", "docs/check.md"
        text = _LOCK_HELP
    return {
        "id": name,
        "shortDescription": {"text": title},
        "help": {"text": f"{text} See {page}.", "markdown": f"{text}\n\nSee `{page}`."},
    }


def _refused(answer: Answer, file: Path) -> Iterator[Json]:
    for group in answer.groups():
        required = any(kernel in answer.required for kernel in group.kernels)
        text = _words(group)
        for where, _, name in group.places or [("", "", group.programs[0])]:
            names = [name] if group.places else group.programs
            yield {
                "ruleId": group.refusal.name,
                "level": "error" if required else "warning",
                "message": {"text": f"{', '.join(names)} is refused on {text}"},
                "locations": [_location(where, file, names)],
                "properties": {"programs": list(names), "kernels": list(group.kernels)},
            }


def _words(group: Group) -> str:
    why = group.refusal
    said = [f"{', '.join(group.kernels)}: {why.of.title}.", why.line.rstrip("."), why.advice]
    if group.claim is not None:
        said.append(f"Other kernels: {group.claim}.")
    return f"{said[0]} The kernel says: {said[1]}. {' '.join(said[2:])}".strip()


def _warned(answer: Answer, file: Path) -> Iterator[Json]:
    for text in notes.warnings(answer):
        yield {
            "ruleId": _WARNS,
            "level": "error",
            "message": {"text": text},
            "locations": [_location("", file, ())],
        }


def _unlocked(answer: Answer, file: Path) -> Iterator[Json]:
    """Yield a result per finding on fields, alike ones together, as the report has them."""
    paths = _paths(answer)
    alike: Dict[Tuple[object, ...], List[lockset.Judged]] = {}
    for each in answer.locks.fields if answer.locks is not None else ():
        if each.verdict not in _CALM:
            alike.setdefault((each.map, *each.alike()), []).append(each)
    for first, *others in alike.values():
        bad = [access for access in first.accesses if not access.tied] or [*first.accesses]
        names = ", ".join(f"{each.map}.{each.field}" for each in (first, *others))
        result: Json = {
            "ruleId": re.sub(r"\W+", "-", first.verdict.lower()),
            "level": _LOCK_LEVELS.get(first.verdict, "note"),
            "message": {"text": f"{names}: {first.said}. {first.advice}".strip()},
            "locations": [_location(_whole(a.where, paths), file, [a.program]) for a in bad[:1]]
            or [_location("", file, ())],
        }
        places = {
            (access.where, access.kind, lockset.how_of(access)): access for access in first.accesses
        }
        result["relatedLocations"] = [
            {
                **_location(_whole(where, paths), file, [access.program]),
                "message": {"text": f"{kind} {how}"},
            }
            for (where, kind, how), access in places.items()
        ]
        yield result


def _accused(answer: Answer, file: Path) -> Iterator[Json]:
    """Yield a result per field that runs have shown to be wrong, where the field is touched."""
    paths = _paths(answer)
    fields = answer.locks.fields if answer.locks is not None else ()
    for kernel, proven in answer.proven.items():
        for each in proven.proofs:
            if each.verdict != proof.ACCUSED or each.loss is None:
                continue
            accesses = [
                access
                for judged in fields
                if (judged.map, judged.field) == (each.map, each.field)
                for access in judged.accesses
            ]
            accesses.sort(key=lambda access: bool(access.tied))  # without the lock first
            places = [_location(_whole(a.where, paths), file, [a.program]) for a in accesses[:1]]
            seen = f"{each.loss.found} where one CPU leaves {each.loss.expected}"
            yield {
                "ruleId": _ACCUSED,
                "level": "error",
                "message": {"text": f"{each.map}.{each.field}: in runs on {kernel}, {seen}."},
                "locations": places or [_location("", file, ())],
            }


def _coming(answer: Answer, file: Path) -> Iterator[Json]:
    for breach in answer.coming.breaches if answer.coming is not None else ():
        yield {
            "ruleId": _NEWER,
            "level": "note",
            "message": {
                "text": f"{breach.what}: {breach.taken} take that, others refuse it ({breach.rule})."
            },
            "locations": [_location("", file, breach.programs)],
        }


def _paths(answer: Answer) -> Dict[str, str]:
    """Return the paths of an object's sources by their last parts, where that is one path only."""
    found: Dict[str, Dict[str, None]] = {}
    functions = answer.source.object.functions if isinstance(answer.source, Source) else {}
    for function in functions.values():
        for path, _ in function.lines.values():
            found.setdefault(path.rsplit("/", 1)[-1], {})[path] = None
    return {name: next(iter(paths)) for name, paths in found.items() if len(paths) == 1}


def _whole(where: str, paths: Mapping[str, str]) -> str:
    """Return "path:line" for "name:line"."""
    name, _, line = where.rpartition(":")
    return f"{paths.get(name, name)}:{line}"


def _location(where: str, file: Path, programs: Sequence[str]) -> Json:
    path, line = _split(where)
    location: Json = {
        "physicalLocation": {
            "artifactLocation": {"uri": _uri(Path(path) if path else file)},
            "region": {"startLine": line or 1},
        }
    }
    named = [{"name": name, "kind": "function"} for name in programs if name != OBJECT]
    return {**location, "logicalLocations": named} if named else location


def _split(where: str) -> Tuple[str, Optional[int]]:
    """Return the path and the line of "path:line"; ("", None) for what is no place in a source."""
    path, _, line = where.rpartition(":")
    return (path, int(line)) if path and line.isdigit() and int(line) else ("", None)


def _uri(path: Path) -> str:
    """Return the URI of a path: relative for what is below the current directory."""
    try:
        return quote(PurePosixPath(path.absolute().relative_to(Path.cwd())).as_posix())
    except ValueError:
        return path.absolute().as_uri()
