"""The C files of a run: their scenarios in the order in which they are observed, and their rules."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Iterable, Iterator, List, Mapping, Sequence, Set, Tuple

from harness.errors import UsageError
from harness.scenarios import annotation
from harness.scenarios.scenario import Rule, Scenario, SourceFile, nearest


@dataclass(frozen=True)
class Programs:
    """The C files of one directory."""

    directory: Path
    files: Tuple[SourceFile, ...] = ()

    @classmethod
    def read(cls, directory: Path) -> "Programs":
        """Read every ``*.bpf.c`` of a directory, in order of name.

        Raises UsageError when there is none or one that cannot be read, or for what an annotation
        says that cannot be meant.
        """
        paths = sorted(directory.glob("*.bpf.c"))
        files = tuple(annotation.read(_text_of(path), path) for path in paths)
        if not files:
            raise UsageError(f"There is no C file (*.bpf.c) in {directory}.")
        annotation.check_together(files)
        return cls(directory, files)

    def file(self, name: str) -> SourceFile:
        """Return what a file holds. Raises UsageError."""
        path = self.directory / name
        for file in self.files:
            if file.path == path:
                return file
        raise UsageError(f"There is no C file {path}.")

    def rule(self, name: str) -> Rule:
        """Return a rule as it is declared, or one without words or commits."""
        declared = (rule for file in self.files for rule in file.rules if rule.name == name)
        return next(declared, Rule(name, "", (), ""))

    def scenarios(self) -> List[Scenario]:
        """Return all scenarios as they are written."""
        return [case for file in self.files for case in file.scenarios]

    def in_order(self) -> Iterator[Scenario]:
        """Yield all scenarios file by file, in the order in which they are observed."""
        by_name = {case.name: case for case in self.scenarios()}
        for file in self.files:
            for case in order(file.scenarios, by_name):
                if case.file == file.path:  # the others are twins from elsewhere
                    yield case

    def unknown(self, name: str, known: Sequence[str]) -> str:
        """Return what to say of a name that selects nothing, `known` being those that do."""
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


def order(scenarios: Iterable[Scenario], by_name: Mapping[str, Scenario]) -> List[Scenario]:
    """Return scenarios and their twins as they are best observed: unit by unit, a twin before those
    that need it, else as they come. Whatever order they are asked for in, none waits long then.
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
    """Return what a C file holds. Raises UsageError."""
    try:
        if path.exists() and not path.is_file():  # a FIFO would be waited for
            raise UsageError(f"{path} is no file: move it away, or give it another name.")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"Cannot read {path} ({error.strerror}).") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise UsageError(
            f"{path}:{line}: this is no UTF-8: save the file in that coding."
        ) from None
