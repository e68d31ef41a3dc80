# SPDX-License-Identifier: GPL-2.0-only
"""Temporary directories: gone with their process, and after a killed one by the next."""

import os
import subprocess
import sys
import time

from harness import paths

OLD = time.time() - 3600


def test_a_directory_goes_with_its_owner(tmp_path):
    with paths.Scratch(tmp_path) as directory:
        (directory / "file").write_text("")
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_removed_and_what_a_live_one_uses_is_not(tmp_path):
    code = (
        "import os, pathlib, sys; from harness import paths;"
        "s = paths.Scratch(pathlib.Path(sys.argv[1])); (s.path / 'console').write_text('');"
        "os.utime(s.path, (0, 0)); os.kill(os.getpid(), 9)"
    )
    live = paths.Scratch(tmp_path)
    os.utime(live.path, (OLD, OLD))
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    young = tmp_path / "spinlock-run-young"
    young.mkdir()
    assert len(list(tmp_path.iterdir())) == 3
    paths._sweep.cache_clear()
    with paths.Scratch(tmp_path) as directory:
        assert set(tmp_path.iterdir()) == {live.path, young, directory}
    live.remove()
    live.remove()
