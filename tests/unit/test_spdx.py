# SPDX-License-Identifier: GPL-2.0-only
"""Every source file says its license in its first lines, in the form that tools read."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SUFFIXES = {".py", ".sh", ".c", ".h", ".j2", ".cfg", ".toml", ".yaml"}
NAMES = {"Makefile", "Vagrantfile", ".ci/run"}
SAID = "SPDX-License-Identifier: GPL-2.0-only"


def without(root, names):
    """Return the source files among `names` that do not say it; a script's first line is its #!."""
    sources = [name for name in names if Path(name).suffix in SUFFIXES or name in NAMES]
    assert sources
    heads = {name: (root / name).read_text().splitlines()[:2] for name in sources}
    return [name for name, head in heads.items() if not any(SAID in line for line in head)]


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="git alone knows what is tracked")
def test_every_source_file_has_the_line():
    listed = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "-z"], capture_output=True, text=True, check=True
    )
    names = [name for name in listed.stdout.split("\0") if (ROOT / name).is_file()]
    assert without(ROOT, names) == []


def test_a_file_without_it_is_found(tmp_path):
    (tmp_path / "a.py").write_text(f"# {SAID}\n")
    (tmp_path / "b.sh").write_text(f"#!/bin/sh\n# {SAID}\n")
    (tmp_path / "c.py").write_text(f'"""Late."""\n\n# {SAID}\n')
    (tmp_path / "d.c").write_text("// SPDX-License-Identifier: GPL-2.0-or-later\n")
    assert without(tmp_path, ["a.py", "b.sh", "c.py", "d.c", "e.md"]) == ["c.py", "d.c"]


def test_the_license_is_there():
    text = (ROOT / "LICENSE").read_text()
    assert "GNU GENERAL PUBLIC LICENSE" in text and "Version 2, June 1991" in text
