# SPDX-License-Identifier: GPL-2.0-only
"""The C files of a run: their scenarios, in the order in which they run, and their rules."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Iterable, Iterator, List, Mapping, Optional, Sequence, Set, Tuple

from harness.errors import UsageError
from harness.scenarios import annotation, declarations
from harness.scenarios.scenario import (
    Declared,
    Refusal,
    Rule,
    Scenario,
    SourceFile,
    Topic,
    nearest,
)


@dataclass(frozen=True)
class Programs:
    """The C files of one directory."""

    directory: Path
    files: Tuple[SourceFile, ...] = ()
    headers: Tuple[Declared, ...] = ()  # the declarations of each header

    @classmethod
    def read(cls, directory: Path, shared: Optional[Path] = None) -> "Programs":
        """Read every C file of a directory, as in `c_files`, and the declarations of its headers.

        `shared` is another directory. Cases may name refusals that its headers declare. Raises
        UsageError if there is no C file, if one cannot be read, or if an annotation is invalid.
        """
        headers = [_declared(path) for path in headers_of(directory)]
        refusals = declarations.refusals(headers)
        if shared is not None and shared != directory:
            refusals = {
                **declarations.refusals(_declared(h) for h in headers_of(shared)),
                **refusals,
            }
        files = tuple(annotation.read(_text_of(f), f, refusals) for f in c_files(directory))
        if not files:
            raise UsageError(f"There is no C file (*.bpf.c) in {directory}.")
        _check_file_names(files)
        annotation.check_together(files, headers)
        return cls(directory, files, tuple(headers))

    def file(self, name: str) -> SourceFile:
        """Return the C file with that name in any folder. Raises UsageError if there is none."""
        for file in self.files:
            if file.path.name == name:
                return file
        raise UsageError(f"There is no C file {name} in {self.directory}.")

    def rules(self) -> List[Rule]:
        """Return all rules in the order of their declarations."""
        return [rule for file in self.files for rule in file.rules]

    def topics(self) -> List[Topic]:
        """Return all topics in the order of their declarations, those of headers first."""
        return [topic for each in self._declared() for topic in each.topics]

    def refusals(self) -> List[Refusal]:
        """Return all shared refusals in the order of their declarations, those of headers first."""
        return [refusal for each in self._declared() for refusal in each.refusals]

    def _declared(self) -> List[Declared]:
        return [*self.headers, *(file.declared for file in self.files)]

    def rule(self, name: str) -> Rule:
        """Return the declared rule of that name, or else one without text and commits."""
        declared = (rule for rule in self.rules() if rule.name == name)
        return next(declared, Rule(name, "", (), ""))

    def scenarios(self) -> List[Scenario]:
        """Return all scenarios in the order of the files and their lines."""
        return [case for file in self.files for case in file.scenarios]

    def in_order(self) -> Iterator[Scenario]:
        """Yield all scenarios file by file, in the order in which they run."""
        by_name = {case.name: case for case in self.scenarios()}
        for file in self.files:
            for case in order(file.scenarios, by_name):
                if case.file == file.path:  # the others are twins from elsewhere
                    yield case

    def unknown(self, name: str, known: Sequence[str]) -> str:
        """Return an error sentence about an unknown name. `known` are the names to suggest."""
        case = next((case for case in self.scenarios() if case.name == name), None)
        if case is not None:
            return (
                f"The scenario '{name}' can be loaded by {case.loaders[0]} only:"
                f" {case.file.name}:{case.line} says why."
            )
        return (
            f"There is no scenario '{name}'{nearest(name, known)};"
            " `spinlock list` shows them all."
        )


def c_files(directory: Path) -> List[Path]:
    """Return every ``*.bpf.c`` in a directory and its folders, sorted by name."""
    found = {path for pattern in ("*.bpf.c", "*/*.bpf.c") for path in directory.glob(pattern)}
    return sorted(found, key=lambda path: (path.name, path))


def headers_of(directory: Path) -> List[Path]:
    """Return the headers of a directory, sorted by name."""
    return sorted([*directory.glob("*.h"), *directory.glob("include/*.h")])


def _declared(path: Path) -> Declared:
    return declarations.read(_text_of(path), path)


def _check_file_names(files: Sequence[SourceFile]) -> None:
    """Raise UsageError if two files have one name, since tests load files by name."""
    seen: Dict[str, Path] = {}
    for file in files:
        if file.path.name in seen:
            raise UsageError(
                f"{file.path} has the name of {seen[file.path.name]}: a C file is found by its"
                " name, so give it another."
            )
        seen[file.path.name] = file.path


def order(scenarios: Iterable[Scenario], by_name: Mapping[str, Scenario]) -> List[Scenario]:
    """Return scenarios and their twins in the order in which they run.

    They are grouped by unit, and a twin precedes the cases that need it. Otherwise the order is
    kept. So no case waits long for its result.
    """
    units: Dict[Tuple[Path, str], Dict[str, Scenario]] = {}
    chosen = list(scenarios)
    for case in [*chosen, *(by_name[case.twin] for case in chosen if case.twin is not None)]:
        units.setdefault((case.file, case.unit), {})[case.name] = case
    ordered: Dict[str, Scenario] = {}
    visited: Set[Tuple[Path, str]] = set()

    def visit(unit: Tuple[Path, str]) -> None:
        if unit in visited or unit not in units:
            return
        visited.add(unit)
        twins = {case.name: by_name[case.twin] for case in units[unit].values() if case.twin}
        for twin in twins.values():
            visit((twin.file, twin.unit))
        for case in units[unit].values():
            if case.name in twins and twins[case.name].name in units[unit]:
                ordered.setdefault(twins[case.name].name, twins[case.name])
            ordered.setdefault(case.name, case)

    for unit in units:
        visit(unit)
    return list(ordered.values())


def _text_of(path: Path) -> str:
    """Return the text of a C file. Raises UsageError."""
    try:
        if path.exists() and not path.is_file():  # reading a FIFO would block
            raise UsageError(f"{path} is no file: move it away, or give it another name.")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"Cannot read {path} ({error.strerror}).") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise UsageError(
            f"{path}:{line}: this is no UTF-8: save the file in that coding."
        ) from None
