# SPDX-License-Identifier: GPL-2.0-only
"""The names of kernels and their meaning."""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterable, Mapping

import yaml

from harness.errors import UsageError

_CATALOGUE = yaml.safe_load((Path(__file__).parent / "kernels.yaml").read_text())
MINORS: Mapping[str, Any] = _CATALOGUE["minors"]
FLAVOURS: Mapping[str, str] = _CATALOGUE["flavours"]
CHECKED: Mapping[str, str] = {minor: str(row["checked"]) for minor, row in MINORS.items()}
DEFAULT = "6.12"
CLOUD = "cloud"  # the flavour of a name without a flavour


class UnknownKernel(UsageError):
    """No kernel has that name. The message suggests similar names."""


@dataclass(frozen=True)
class Debian:
    """A kernel of `series` (such as "6.12") and `flavour` in `suites`: the newest, or `version`.

    A version may omit Debian's suffix: 6.12.43 stands for 6.12.43+deb12.
    """

    name: str
    series: str
    suites: tuple[str, ...]
    flavour: str = "cloud-amd64"
    version: str = ""


@dataclass(frozen=True)
class Own:
    """A kernel of the user's: a bzImage or vmlinux file, or the build tree that holds it."""

    name: str  # the path as the user gave it
    path: Path


def names() -> list[str]:
    """Return the names without a version."""
    others = [flavour for flavour in FLAVOURS if flavour != CLOUD]
    return [*MINORS, *(f"{minor}-{flavour}" for minor in MINORS for flavour in others)]


def all_names() -> list[str]:
    """Return the names that "all" stands for: the newest of each minor, oldest first."""
    return list(MINORS)


def is_path(name: str) -> bool:
    """Tell whether a name is the path of a kernel of the user's own."""
    return "/" in name or os.path.isfile(name)  # isfile() accepts any text


def expand(chosen: Iterable[str]) -> list[str]:
    """Replace "all" by its names, and drop duplicates."""
    spelled = (n for name in chosen for n in (all_names() if name == "all" else [name]))
    return list(dict.fromkeys(spelled))


def find(name: str) -> Debian | Own:
    """Return the kernel that a name or path stands for. `fetch` finds out whether it exists.

    Raises UnknownKernel.
    """
    if is_path(name):
        return Own(name, Path(name).absolute())
    match = re.fullmatch(r"(\d+\.\d+)([\w.+~]*(?:-\d+)?)(?:-([a-z]+\d*))?", name)
    minor, rest, flavour = match.groups() if match else ("", "", None)
    if minor not in MINORS or (flavour or CLOUD) not in FLAVOURS:
        near = difflib.get_close_matches(name, names(), n=3, cutoff=0.4) or all_names()
        raise UnknownKernel(
            f"No kernel is called {name!r}: try {' or '.join(near)}, a version of one of them, or the"
            " path of a bzImage or a build tree."
        )
    row = MINORS[minor]
    suites = [*row["suites"], *(row.get("older", []) if rest else [])]
    full = FLAVOURS[flavour or CLOUD]
    return Debian(name, minor, tuple(suites), full, minor + rest if rest else "")


def sort_key(name: str) -> tuple[Any, ...]:
    """Return a sort key for the versions in names of kernels and packages."""
    return tuple(int(part) if part.isdigit() else part for part in re.findall(r"\d+|[a-z]+", name))
