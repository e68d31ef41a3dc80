# SPDX-License-Identifier: GPL-2.0-only
"""`spinlock list`: print every case by rule."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import re
from typing import Any, Dict, List

import pytest
from rich.console import Console

from harness.commands import OK
from harness.commands.run import Keep, pytest_arguments
from harness.errors import UsageError
from harness.pytest_plugin import cases


def declare(sub: argparse.ArgumentParser) -> None:
    """Add the options of `spinlock list`."""
    sub.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace) -> int:
    """Print every case by rule."""
    every = all_cases()
    if options.json:
        print(json.dumps(list(every.values()), indent=1))
        return OK
    console = Console(highlight=False)
    rules: Dict[str, List[Dict[str, Any]]] = {}
    for row in every.values():
        rules.setdefault(row["rule"], []).append(row)
    width = max(len(name) for name in every) + 4
    for rule, rows in rules.items():
        console.print(rule, style="bold")
        for row in rows:
            console.print(
                f"  {row['name']:<{width}}{'+'.join(row['loaders']):<14}{row['where']}",
                soft_wrap=True,
            )
    console.print(f"{len(every)} scenarios, {len(rules)} rules")
    return OK


def all_cases() -> Dict[str, Dict[str, Any]]:
    """Return name -> row of `list --json`. Raises UsageError if the scenarios cannot be read."""
    keep = Keep()
    said = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
        code = pytest.main(
            [*pytest_arguments(), "--collect-only", "--loader", "all"], plugins=[keep]
        )
    if code != pytest.ExitCode.OK:
        why = re.search("^ERROR: (.*)", said.getvalue(), re.MULTILINE)
        unknown = "The scenarios could not be read; `pytest --collect-only tests` says why."
        raise UsageError(why.group(1) if why else unknown)
    rows: Dict[str, Dict[str, Any]] = {}
    for item in keep.items:
        row = {
            "name": cases.name(item),
            "rule": cases.rule(item),
            "description": cases.description(item),
            "where": cases.where(item),
            "loaders": [],
        }
        rows.setdefault(cases.name(item), row)["loaders"].append(cases.loader(item))
    return rows
