"""The C files of a run: their scenarios in the order in which they are observed, and their rules."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, List, Sequence, Tuple

from harness import scenario, verify
from harness.errors import UsageError
from harness.scenario import Rule, Scenario, SourceFile


@dataclass(frozen=True)
class Programs:
    """The C files of one directory."""

    directory: Path
    files: Tuple[SourceFile, ...] = ()

    @classmethod
    def read(cls, directory: Path) -> "Programs":
        """Read the files of a directory. Raises UsageError."""
        return cls(directory, tuple(scenario.read_directory(directory)))

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
            for case in verify.order(file.scenarios, by_name):
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
            f"There is no scenario '{name}'{scenario.nearest(name, known)};"
            " `spinlock list` shows them all."
        )
