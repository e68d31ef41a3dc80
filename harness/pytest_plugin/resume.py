# SPDX-License-Identifier: GPL-2.0-only
"""Resumes an interrupted run; keeps results with the same kernel, tools, sources and options."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import Any, Collection, Dict, List, Mapping, Sequence, Set, Tuple

import harness
from harness.errors import SetupError, UsageError
from harness.judging.verdict import Kind
from harness.machines.target import DEFAULT_KERNEL, Target
from harness.provision import build
from harness.results import log, matrix
from harness.results.result import Result
from harness.scenarios.programs import c_files, headers_of

OPTIONS = "options.json"  # in the directory of a run

# The packages that decide verdicts, besides the guest's agent, which has its own digest.
JUDGES = ("explore", "judging", "machines", "running", "scenarios")


def read(directory: Path) -> Tuple[Tuple[Result, ...], Dict[str, Any]]:
    """Return the results and the options of the run in a directory.

    Raises UsageError if there is no run, SetupError if the run cannot write there.
    """
    if not os.path.isdir(directory):
        raise UsageError(f"There is no run in {directory} to resume; start without --resume.")
    file = directory / "results.jsonl"
    before = matrix.read([file]).results if log.mend(file) else ()
    try:
        options = json.loads((directory / OPTIONS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        options = {}  # the run was killed before it wrote them
    return before, options if isinstance(options, dict) else {}


def write_options(directory: Path, options: Mapping[str, Any]) -> None:
    """Write a run's options into the directory of its results. Raises SetupError."""
    try:
        (directory / OPTIONS).write_text(json.dumps(options, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise SetupError(
            f"Cannot write below {directory} ({error.strerror}); choose another place by --results."
        ) from None


def other_options(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return a sentence on options that differ from those of the resumed run; "" if none do."""
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
    """Return a digest of all sources that a case of `file` may depend on; "" if it is missing.

    For a C file these include all headers; for a test, all C files.
    """
    directory = file.parent if file.name.endswith(".c") else programs
    parts = {*build.headers(directory), *headers_of(programs)}
    if not file.name.endswith(".c"):
        parts.update(c_files(programs))
    digest = hashlib.sha256()
    try:
        for part in sorted({file, *parts}):
            digest.update(part.name.encode() + b"\0" + part.read_bytes())
    except OSError:
        return ""
    return digest.hexdigest()[:16]


@functools.lru_cache(maxsize=None)
def judges_digest(package: Path = Path(harness.__file__).parent) -> str:
    """Return a digest of the modules that decide verdicts."""
    digest = hashlib.sha256()
    for module in sorted(path for room in JUDGES for path in (package / room).rglob("*.py")):
        digest.update(str(module.relative_to(package)).encode() + b"\0" + module.read_bytes())
    return digest.hexdigest()[:16]


def sources(file: Path, programs: Path, root: Path) -> Dict[str, str]:
    """Return facts for a result: its source file, and the digests of that and of the judges."""
    path = file.absolute()
    name = str(path.relative_to(root)) if root in path.parents else str(path)
    return {
        "source": name,
        "source_digest": source_digest(path, programs),
        "judges_digest": judges_digest(),
    }


_Unit = Tuple[str, str, str, Path]  # file, unit, loader, directory of headers


def build_digests(units: Collection[_Unit], programs: Path) -> Dict[_Unit, str]:
    """Return the digest of each unit as built today; "" if it does not compile.

    Files are those in `programs` and the harness's own. Raises SetupError without a compiler.
    """
    files = {path.name: path for top in (build.PROGRAMS, programs) for path in c_files(top)}

    def digest(wanted: _Unit) -> str:
        file, unit, loader, include = wanted
        try:
            return build.source(files[file], unit, loader, include).digest
        except (KeyError, OSError, build.CompileError):
            return ""

    with ThreadPoolExecutor() as pool:
        return dict(zip(units, pool.map(digest, units)))


def otherwise_made(
    results: Sequence[Result], programs: Path, includes: Mapping[str, Path]
) -> Dict[matrix.Key, str]:
    """Return the results whose object or compiler differs today, with the difference in words.

    `includes` has the directory of headers per kernel. bcc compiles in the guest, so its input text
    is compared instead of an object. A result of an older release may lack these facts: they count
    as unchanged. Raises SetupError without a compiler.
    """
    known = [r for r in results if r.builds and matrix.column(r) in includes]
    if not known:
        return {}
    compiler, found = build.compiler(), {}
    wanted: Dict[_Unit, List[Tuple[Result, str]]] = {}
    for result in known:
        if result.loader != "bcc" and result.compiler != compiler:
            found[matrix.key(result)] = f"compiler {result.compiler}, now {compiler}"
            continue
        for one in result.builds:
            unit = one.file, one.unit, result.loader, includes[matrix.column(result)]
            wanted.setdefault(unit, []).append((result, one.digest))
    for unit, digest in build_digests(wanted, programs).items():
        for result, before in wanted[unit]:
            if digest != before:
                found[matrix.key(result)] = f"what is built of {unit[0]} is another object"
    return found


def outdated(
    before: Sequence[Result],
    now: Mapping[str, Mapping[str, Any]],
    programs: Path,
    root: Path,
    made: Mapping[matrix.Key, str] = MappingProxyType({}),
) -> Dict[str, Tuple[List[Result], List[str]]]:
    """Return, by kernel, the results that are outdated, and the reasons in words.

    `now` has the facts of each kernel that are known before it boots. Results of other kernels are
    kept, since these do not run. `made` is the result of otherwise_made(). A fact that a result of
    an older release lacks counts as unchanged.
    """
    found: Dict[str, Tuple[List[Result], Dict[str, None]]] = {}
    for result in before:
        name = matrix.column(result)
        if name not in now or not result.facts or result.verdict is Kind.ERROR:
            continue
        said = differences(result.facts, now[name])
        file = str(result.facts.get("source", ""))
        if file and result.facts.get("source_digest") != source_digest(root / file, programs):
            said.append(f"{file} has changed")
        if result.facts.get("judges_digest", judges_digest()) != judges_digest():
            said.append("the harness judges by other sources")
        if matrix.key(result) in made:
            said.append(made[matrix.key(result)])
        if said:
            others, words = found.setdefault(name, ([], {}))
            others.append(result)
            words.update(dict.fromkeys(said))
    return {name: (others, [*words]) for name, (others, words) in found.items()}


def key(name: str, column: str, loader: str) -> str:
    """Return the key of a case's stored result."""
    return f"{name} {column} {loader}"


# Facts that should be equal in all results of a run, and their readable names.
_ALIKE = {
    "release": "kernel",
    "kernel_package": "package",
    "kernel_digest": "the kernel's files",
    "config_sha256": "configuration",
    "cpus": "CPUs",
    "append": "--append",
    "command_line": "command line",
    "accelerator": "accelerator",
    "qemu": "QEMU",
    "libbpf": "libbpf",
    "bcc": "bcc",
    "image_digest": "image",
    "agent": "agent",
}


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> List[str]:
    """Return in words the differences between the facts of two results that should be equal.

    A fact that one of them lacks is no difference. Nor are a test's own words on the kernel's
    command line.
    """
    alike = dict(_ALIKE)
    if before.get("also", "") != now.get("also", ""):
        del alike["command_line"]
    return [
        f"{name} {before[key] or 'none'}, now {now[key] or 'none'}"
        for key, name in alike.items()
        if key in before and key in now and before[key] != now[key]
    ]


class Before:
    """The results and options of the run before it was interrupted; empty for a new run."""

    def __init__(
        self, kept: Sequence[Result] = (), options: Mapping[str, Any] = MappingProxyType({})
    ) -> None:
        """Keep the results of that run except ERRORs, which run again."""
        self.results = tuple(result for result in kept if result.verdict is not Kind.ERROR)
        self._options = options
        self._compared: Set[str] = set()  # kernels whose facts were already compared

    def keep_what_holds(
        self, options: Mapping[str, Any], opened: Sequence[Target], programs: Path, root: Path
    ) -> List[str]:
        """Drop the outdated results and return sentences on the changes since the run began.

        Raises SetupError without a compiler.
        """
        changed = other_options(self._options, options)
        said = [changed] if changed else []
        now: Dict[str, Dict[str, Any]] = {}
        includes: Dict[str, Path] = {}
        for target in opened:
            names = {r.column for r in self.results if r.target == target.name}
            names &= {target.kernel} if target.kernel else names
            now.update({name: target.describe() for name in names})
            includes.update({name: target.headers() for name in names})
        made = otherwise_made(self.results, programs, includes)
        for name, (others, words) in outdated(self.results, now, programs, root, made).items():
            some = f"{len(others)} result{'s' if len(others) > 1 else ''}"
            said.append(
                f"{name}: not what it was when this run began ({'; '.join(words)}): {some} from"
                " before must be made again."
            )
            self.results = tuple(result for result in self.results if result not in others)
        return said

    def done(self) -> Set[str]:
        """Return the keys of the cases that need not run again."""
        keys = {key(r.name, r.column, r.loader) for r in self.results}
        # Without --kernel, a target's kernel has no name before it runs.
        return keys | {
            key(r.name, "", r.loader)
            for r in self.results
            if r.target != "qemu" or r.column == DEFAULT_KERNEL
        }

    def differs(self, result: Result) -> str:
        """Return a warning if this kernel's facts changed since the first run, else "".

        Each kernel is compared once.
        """
        before = next((r for r in self.results if r.column == result.column and r.facts), None)
        if before is None or not result.facts or result.column in self._compared:
            return ""
        self._compared.add(result.column)
        changed = differences(before.facts, result.facts)
        if not changed:
            return ""
        return (
            f"{result.column}: not what it was when this run began: {'; '.join(changed)}. The"
            " results from before are kept; run without --resume to have all alike."
        )
