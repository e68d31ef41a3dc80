# SPDX-License-Identifier: GPL-2.0-only
"""Builds a C file for a loader: an ELF object for libbpf, flat text for bcc. Builds the agent.

Results are cached by a digest of all inputs.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shutil
import subprocess
import zipapp
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Dict, List, Optional, Sequence

import harness
from harness import paths
from harness.errors import SetupError
from harness.guest import calls

COMPILE_SECONDS = 120.0
OLDEST_CLANG = 11  # older ones lack -mcpu=v3 or complete BTF
PROGRAMS = paths.root() / "bpf_progs"
DRIVEN = PROGRAMS / "driven"  # programs of the run-time tests
_INCLUDED = (PROGRAMS, PROGRAMS / "include")

# Kernels since v5.1, the first with the lock, support -mcpu=v3 (32-bit registers and jumps).
_CFLAGS = ("-g", "-O2", "-target", "bpf", "-mcpu=v3", "-Wall", "-Werror")


class CompileError(Exception):
    """A C file does not compile. The message is the compiler's."""


@dataclass(frozen=True)
class Source:
    """One unit of a C file, ready for a loader in the guest."""

    file: str
    unit: str
    loader: str
    content: bytes
    seconds: float  # compile time on the host; 0 when cached

    @property
    def digest(self) -> str:
        """A digest of the loader's input."""
        return hashlib.sha256(self.content).hexdigest()[:16]

    def request(self) -> calls.Source:
        """Return the source as a part of a call to the agent."""
        if self.loader == "bcc":
            return calls.Source("bcc", text=self.content.decode())
        return calls.Source("libbpf", object=base64.b64encode(self.content).decode())


@lru_cache(maxsize=None)
def clang() -> Path:
    """Return the path of clang. Raises SetupError if there is none that is new enough."""
    found = shutil.which(os.environ.get("CLANG", "clang"))
    if found is None:
        raise SetupError(
            "There is no clang on this machine; run `make setup` (or install 'clang')."
        )
    match = re.search(r"version (\d+)", clang_version(found))
    if match and int(match.group(1)) < OLDEST_CLANG:
        raise SetupError(
            f"{found} is clang {match.group(1)}, too old for BPF; clang {OLDEST_CLANG} or newer is"
            " needed: install one and point the variable CLANG at it."
        )
    return Path(found)


def compiler() -> str:
    """Return the version line of the compiler of objects. Raises SetupError if there is none."""
    return clang_version(str(clang()))


@lru_cache(maxsize=None)
def clang_version(command: str) -> str:
    """Return the first line of `clang --version`."""
    done = subprocess.run([command, "--version"], capture_output=True, text=True, check=False)
    return done.stdout.splitlines()[0] if done.stdout else "unknown"


def source(
    file: Path, unit: str, loader: str, include: Path, defines: Optional[Dict[str, str]] = None
) -> Source:
    """Build one unit of a C file for a loader, or take it from the cache.

    `include` holds the uapi and libbpf headers of the guest's image, so that every host compiles
    the same text. Raises CompileError with the compiler's message, SetupError without a compiler.
    """
    options = [f"-I{place}" for place in (file.parent, *_INCLUDED)]
    options += [f"-DUNIT_{unit}=1"] if unit else []
    options += [f"-D{name}={value}" for name, value in (defines or {}).items()]
    if loader == "bcc":
        # Only spinlock.h is expanded; line markers stay, so that bcc's messages name the C file.
        command = [str(clang()), "-E", "-nostdinc", "-DLOADER_BCC", *options, str(file)]
    else:
        command = [
            str(clang()),
            *_CFLAGS,
            "-nostdlibinc",
            f"-isystem{include}",
            *options,
            "-c",
            str(file),
        ]
    cached = paths.cache("build") / f"{_key(command, file)}.{'c' if loader == 'bcc' else 'o'}"
    if cached.exists():
        return Source(file.name, unit, loader, cached.read_bytes(), 0.0)
    with paths.Scratch(cached.parent) as directory:
        output = directory / "output"
        seconds = _compile(command, output)
        output.replace(cached)  # atomic: a killed run leaves no half object behind
    return Source(file.name, unit, loader, cached.read_bytes(), seconds)


def headers(directory: Path) -> List[Path]:
    """Return the headers that C files in a directory can include: its own and the shared ones."""
    return sorted({header for place in (directory, *_INCLUDED) for header in place.glob("*.h")})


def compile_object(
    file: Path, include: Path, directories: Sequence[Path] = (), defines: Sequence[str] = ()
) -> bytes:
    """Compile a C file of the user and return the object. Warnings are no errors.

    Raises CompileError, SetupError without a compiler, OSError if the file cannot be read.
    """
    file.read_bytes()
    command = [str(clang()), "-g", "-O2", "-target", "bpf", "-mcpu=v3", "-nostdlibinc"]
    command += ["-D__TARGET_ARCH_x86", *(f"-D{define}" for define in defines)]
    command += [f"-I{place}" for place in (file.parent, *directories, *_INCLUDED)]
    command += [f"-isystem{include}", "-c", str(file)]
    with paths.Scratch() as directory:
        output = directory / "output"
        _compile(command, output)
        return output.read_bytes()


def _key(command: List[str], file: Path) -> str:
    digest = hashlib.sha256(repr([clang_version(command[0]), command]).encode())
    digest.update(file.read_bytes())
    for header in headers(file.parent):
        digest.update(header.read_bytes())
    return digest.hexdigest()[:32]


def _compile(command: List[str], output: Path) -> float:
    """Run the compiler and return its time in seconds. Raises CompileError."""
    started = os.times().elapsed
    try:
        done = subprocess.run(
            [*command, "-o", str(output)],
            capture_output=True,
            text=True,
            check=False,
            timeout=COMPILE_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise CompileError(f"clang did not end within {COMPILE_SECONDS:.0f} s.") from None
    if done.returncode != 0:
        raise CompileError(done.stderr.strip())
    return round(os.times().elapsed - started, 3)


def agent() -> Path:
    """Return the guest's agent as a zipapp. It is built if its code has changed."""
    guest = Path(harness.__file__).resolve().parent / "guest"
    files = {file.relative_to(guest): file for file in sorted(guest.rglob("*.py"))}
    digest = hashlib.sha256()
    for place, file in files.items():
        digest.update(str(place).encode() + file.read_bytes())
    result = paths.cache("agent") / f"agent-{digest.hexdigest()[:16]}.pyz"
    if result.exists():
        return result
    with paths.Scratch(result.parent) as directory:
        tree = directory / "tree"
        for place, file in files.items():
            copy = tree / "harness" / "guest" / place
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, copy)
        (tree / "harness" / "__init__.py").write_text("")
        (tree / "__main__.py").write_text(
            "import sys\nfrom harness.guest.__main__ import main\nsys.exit(main(sys.argv[1:]))\n"
        )
        built = directory / "agent.pyz"
        zipapp.create_archive(tree, built)
        built.replace(result)
    return result
