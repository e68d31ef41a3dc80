# SPDX-License-Identifier: GPL-2.0-only
"""The agent with bytecode of the image's Python beside its sources: an emulated guest compiles slowly.

That Python is taken out of the image and runs here, to compile the agent and nothing else. The sources
stay in the agent: tracebacks show them, and a Python of another version passes over the bytecode.
"""

from __future__ import annotations

import os
import zipapp
import zipfile
from pathlib import Path

from harness import paths
from harness.errors import SetupError
from harness.progress import Progress
from harness.provision import build, host_tools
from harness.provision.userland import Image

_PYTHON = "python3.13"  # of the image's Debian
_LIBRARIES = "/usr/lib/x86_64-linux-gnu"
_LOADER = "ld-linux-x86-64.so.2"
_LINKED = (_LOADER, "libc.so.6", "libm.so.6", "libz.so.1", "libexpat.so.1")
_E2FSPROGS = "e2fsprogs"

# Puts a .pyc beside each source. It is an unchecked one, as files of an archive have no times to compare.
# See PEP 552 for the header.
_COMPILE = r"""
import marshal, os, sys
from _frozen_importlib_external import MAGIC_NUMBER
os.chdir(sys.argv[1])
for name in sys.argv[2:]:
    with open(name, "rb") as file:
        source = file.read()
    code = compile(source, name, "exec", dont_inherit=True)
    with open(name + "c", "wb") as file:
        file.write(MAGIC_NUMBER + b"\1\0\0\0" + bytes(8) + marshal.dumps(code))
"""


def agent(image: Image, progress: Progress) -> Path:
    """Return the agent for guests of an image. It is built if its code or the image has changed.

    Where the image's Python does not run on this machine, the agent has sources only, and it is said.
    """
    plain = build.agent()
    result = plain.with_name(f"{plain.stem}-{image.digest[:8]}.pyz")
    if result.exists():
        return result
    try:
        with paths.Scratch(result.parent) as scratch:
            command = _python(image.root, scratch / "python")
            with_bytecode(command, plain, scratch / "agent.pyz")
            (scratch / "agent.pyz").replace(result)
    except (OSError, SetupError) as error:
        progress(f"agent: a guest compiles it, which takes a second more ({error})")
        return plain
    return result


def with_bytecode(python: list[str], plain: Path, result: Path) -> None:
    """Copy an archive of sources; the copy has the bytecode of a Python, too.

    Raises SetupError if it does not run, OSError.
    """
    with paths.Scratch(result.parent) as tree:
        with zipfile.ZipFile(plain) as archive:
            archive.extractall(tree)
            sources = [name for name in archive.namelist() if name.endswith(".py")]
        script = result.with_name("compile.py")
        script.write_text(_COMPILE)
        host_tools.run([*python, "-s", "-S", str(script), str(tree), *sources], "python3")
        zipapp.create_archive(tree, result)


def _python(file_system: Path, target: Path) -> list[str]:
    """Copy Python out of a file system; return the command that runs it. Raises SetupError, OSError."""
    library = target / "lib" / _PYTHON
    library.mkdir(parents=True)
    _dump(file_system, [f"/usr/bin/{_PYTHON}"], target)
    _dump(file_system, [f"/usr/lib/{_PYTHON}/encodings"], library)
    wanted = list(_LINKED)
    while wanted:
        _dump(file_system, [f"{_LIBRARIES}/{name}" for name in wanted], target)
        links = [target / name for name in wanted if (target / name).is_symlink()]
        wanted = [os.readlink(link) for link in links if not link.exists()]
    run = [str(target / _LOADER), "--library-path", str(target), str(target / _PYTHON)]
    return ["env", "-i", f"PYTHONHOME={target}", *run]


def _dump(file_system: Path, files: list[str], target: Path) -> None:
    """Copy files and directories out of a file system. Raises SetupError."""
    command = ["debugfs", "-R", f'rdump {" ".join(files)} "{target}"', str(file_system)]
    host_tools.run(command, _E2FSPROGS)
    for file in files:
        if not os.path.lexists(target / Path(file).name):
            raise SetupError(f"the image has no {file}")
