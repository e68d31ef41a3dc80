# SPDX-License-Identifier: GPL-2.0-only
"""No function of the harness, or of what tests the lock, has many parameters."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MOST = 7  # and the object itself


def too_many(text):
    """Return the functions of a module's text that have more, as "name (number)"."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            args = node.args
            named = [arg.arg for arg in (*args.posonlyargs, *args.args, *args.kwonlyargs)]
            count = len([name for name in named if name not in ("self", "cls")])
            count += (args.vararg is not None) + (args.kwarg is not None)
            if count > MOST:
                found.append(f"{getattr(node, 'name', 'lambda')} ({count})")
    return found


@pytest.mark.parametrize("place", ["harness", "tests/lock"])
def test_no_function_has_many_parameters(place):
    files = sorted((ROOT / place).rglob("*.py"))
    assert files
    found = {str(file.relative_to(ROOT)): too_many(file.read_text("utf-8")) for file in files}
    assert {file: functions for file, functions in found.items() if functions} == {}


def test_all_kinds_of_parameters_count():
    names = "self, a, b, c, /, d, *e, f, g, **h"
    assert too_many(f"def many({names}): pass\nasync def few({names[:-5]}): pass") == ["many (8)"]
