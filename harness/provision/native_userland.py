# SPDX-License-Identifier: GPL-2.0-only
"""The guest's userland as a directory of this machine, in which bcc runs without being emulated.

It is taken out of the image as it is, and has the kernel's headers where the guest has them. There is
one tree per image, and one per kernel, whose files are those of the image's. Nothing is mounted, and
no tree needs root.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

import harness
from harness import paths
from harness.errors import SetupError
from harness.progress import Progress
from harness.provision import build, host_tools
from harness.provision.kernel_store import Kernel
from harness.provision.userland import Image

SHIM_SOURCE = Path(harness.__file__).parent / "guest" / "bpf_shim.c"
_OURS = "spinlock"  # a directory of each tree
_TAKEN = ("bin", "lib", "lib64")  # of the image's /usr
_LINKS = {"bin": "usr/bin", "lib": "usr/lib", "lib64": "usr/lib64"}
_EMPTY = ("dev", "etc", "proc", "sys", _OURS)
_SPACE_BYTES = 1 << 30  # free space that two trees need
_SET_ID = stat.S_ISUID | stat.S_ISGID
# What debugfs says of nothing: its version, and that files belong to the ordinary user that it runs as.
_HARMLESS = re.compile(r"debugfs \d|.*while changing ownership of ")


@dataclass(frozen=True)
class Tree:
    """A root directory for bcc; `agent` and `shim` are paths in it."""

    root: Path
    agent: str
    shim: str

    @property
    def symbols(self) -> Path:
        """Where the guest's /proc/kallsyms is, once a guest was asked for it."""
        return self.root / "proc" / "kallsyms"


def ensure(image: Image, kernel: Kernel, progress: Progress) -> Tree:
    """Return the tree of a kernel, made when it is missing. Raises SetupError."""
    assert kernel.modules is not None
    home = paths.cache("native")
    base = home / f"image-{image.digest[:16]}"
    with paths.lock(home / "lock"):
        try:
            root = home / f"{kernel.name}-{_key(image, kernel.modules)}"
            if not root.exists():
                progress(f"bcc: taking its files for kernel {kernel.name} out of the image")
                if not base.exists():
                    _take_userland(image, base)
                _join(base, kernel.name, kernel.modules, root)
            return Tree(root, _place(root, build.agent()), _place(root, shim(root.parent)))
        except OSError as error:
            raise SetupError(f"bcc's files could not be written below {home}: {error}.") from error


def _key(image: Image, modules: Path) -> str:
    """Return what names a tree. The kernel's own digest is also that of this harness's init."""
    facts = modules.stat()
    parts = (image.digest, modules.parent.name, facts.st_size, facts.st_mtime_ns)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:20]


def _take_userland(image: Image, base: Path) -> None:
    """Copy the image's userland into a directory; what was taken of older images goes."""
    free = shutil.disk_usage(base.parent).free
    if free < _SPACE_BYTES:
        raise SetupError(f"{base.parent} has {free >> 20} MiB free, of {_SPACE_BYTES >> 20} MiB.")
    with paths.Scratch(base.parent) as scratch:
        usr = scratch / "tree" / "usr"
        usr.mkdir(parents=True)
        for name in _TAKEN:
            _dump(image.root, f"/usr/{name}", usr)
        _drop_set_id(usr)
        for stale in base.parent.iterdir():
            if stale.is_dir() and stale != scratch:
                shutil.rmtree(stale)
        (scratch / "tree").rename(base)


def _dump(file_system: Path, directory: str, target: Path) -> None:
    """Copy a directory out of a file system. debugfs tells of failures in words only."""
    command = ["debugfs", "-R", f'rdump {directory} "{target}"', str(file_system)]
    said = host_tools.complaints(command, "e2fsprogs")
    errors = [line for line in said if not _HARMLESS.match(line)]
    if errors:
        raise SetupError(f"debugfs could not copy {directory} out of the image: {errors[0]}.")


def _drop_set_id(directory: Path) -> None:
    """Let no program there run as anybody else."""
    for path in directory.rglob("*"):
        mode = path.lstat().st_mode
        if stat.S_ISREG(mode) and mode & _SET_ID:
            path.chmod(stat.S_IMODE(mode) & ~_SET_ID)


def _join(base: Path, name: str, modules: Path, root: Path) -> None:
    """Make the tree of a kernel from the image's, by links, and its headers."""
    with paths.Scratch(root.parent) as scratch:
        tree = scratch / "tree"
        shutil.copytree(base, tree, symlinks=True, copy_function=os.link)
        headers = ("usr/src", "usr/lib/modules/*/build", "usr/lib/modules/*/source")
        unpack = ["unsquashfs", "-quiet", "-no-progress", "-no-xattrs", "-force"]
        target = ["-dest", str(tree), str(modules)]
        host_tools.run([*unpack, *target, *headers], "squashfs-tools")
        for link, place in _LINKS.items():
            (tree / link).symlink_to(place)
        for directory in _EMPTY:
            (tree / directory).mkdir()
        for stale in root.parent.glob(f"{name}-{'?' * 20}"):
            shutil.rmtree(stale)
        tree.rename(root)


def shim(home: Path) -> Path:
    """Return what stands between bcc and this machine's kernel, compiled when it has changed."""
    digest = hashlib.sha256(SHIM_SOURCE.read_bytes()).hexdigest()[:16]
    shim = home / f"shim-{digest}.so"
    if not shim.exists():
        with paths.Scratch(home) as scratch:
            made = scratch / "shim.so"
            flags = ["-shared", "-fPIC", "-O2", "-Wall", "-nostdlib"]
            command = [str(build.clang()), *flags, "-o", str(made), str(SHIM_SOURCE)]
            host_tools.run(command, "clang and libc6-dev")
            made.rename(shim)
    return shim


def _place(root: Path, file: Path) -> str:
    """Put a file into a tree, unless it is there; return its path in it."""
    place = root / _OURS / file.name
    if not place.exists():
        write(place, file.read_bytes())
    return f"/{_OURS}/{file.name}"


def write(place: Path, content: bytes) -> None:
    """Write a file of a tree, which is there with all that is in it or not at all. Raises OSError."""
    with paths.Scratch(place.parent) as scratch:
        made = scratch / "made"
        made.write_bytes(content)
        made.chmod(0o644)
        made.rename(place)
