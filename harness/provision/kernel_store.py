# SPDX-License-Identifier: GPL-2.0-only
"""Kernels ready to boot: in the cache, made when they are missing, checked when they are there.

A kernel's directory below the cache holds an uncompressed vmlinux (QEMU enters it through its PVH
note, which skips decompression in the guest), the bzImage for other loaders, a small initramfs and
a squashfs image with all modules and the headers bcc needs. A kernel of the user's own, a bzImage
or a build tree, has neither modules nor headers.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Iterable

import harness
from harness import paths
from harness.errors import SetupError
from harness.progress import Progress
from harness.provision import debian_kernel, debian_packages, host_tools, initramfs, own_kernel
from harness.provision.catalogue import Debian, Own, UnknownKernel, find, sort_key

INIT_SOURCE = Path(harness.__file__).parent / "guest" / "init.c"
FORMAT = 5  # raise when a kernel's directory changes in a way `recipe` cannot see
FILES = ("bzimage", "modules.cpio", "modules.squashfs", "vmlinux")  # what the digest covers
NEEDED_MIB = 1500  # while a kernel is unpacked and packed again
OWN = "own"  # what all kernels of the user's own are called in the cache
KEPT_OWN = 4  # of those, the ones used last; 50 MB each
KEPT_INITRDS = 4  # per kernel: one for each version of init.c in use


@dataclass(frozen=True)
class Kernel:
    """A kernel ready to boot; `digest` covers all its files.

    `modules` is a read-only squashfs image with usr/lib/modules/RELEASE and, if there are
    `headers`, usr/src; None for a kernel that has all it needs built in. `headers` says which ones
    bcc gets: "own", the version they were borrowed from, or "" for none. `initrd` is an
    uncompressed cpio archive: further archives may be appended to it. `command_line` holds words
    that this kernel must be booted with.
    """

    name: str
    release: str
    package_version: str
    vmlinux: Path
    bzimage: Path
    initrd: Path
    modules: Path | None
    headers: str
    digest: str
    command_line: tuple[str, ...] = ()


def look(name: str) -> None:
    """Say at no cost that there is no such kernel. Raises UnknownKernel, SetupError."""
    row = find(name)
    if isinstance(row, Own):
        own_kernel.image_file(row.path)


def cached(name: str) -> Kernel | None:
    """Return the kernel if it is built and current, else None. Raises UnknownKernel, SetupError."""
    return _cached(find(name))


def _cached(row: Debian | Own, *, current: bool = True) -> Kernel | None:
    """Return the kernel if it is built; unless it may be out of date, with this harness's init."""
    return _in_directory(_directory(row), row.name, current=current)


def _in_directory(directory: Path, name: str, *, current: bool = True) -> Kernel | None:
    try:
        manifest = json.loads((directory / "kernel.json").read_text())
        release, version = manifest["release"], manifest["package_version"]
        headers, digest = manifest["headers"], manifest["digest"]
        command_line = tuple(manifest["command_line"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        raise _damaged(directory) from None
    initrd = directory / f"initrd-{_init_digest()}.cpio"
    if current and not initrd.exists():
        return None
    modules = directory / "modules.squashfs"
    return Kernel(
        name=name,
        release=release,
        package_version=version,
        vmlinux=directory / "vmlinux",
        bzimage=directory / "bzimage",
        initrd=initrd,
        modules=modules if modules.exists() else None,
        headers=headers,
        digest=hashlib.sha256((digest + _init_digest()).encode()).hexdigest(),
        command_line=command_line,
    )


def _damaged(directory: Path) -> SetupError:
    label = directory.name.rpartition("-")[0]
    return SetupError(
        f"The kernel in {directory} is damaged: `spinlock kernels remove {label}`, and it is made"
        " anew when it is next asked for."
    )


def _check_intact(directory: Path) -> None:
    """Raise SetupError when a kernel's files are not those that were made.

    They are read only when one was touched since they were last found to be right.
    """
    seen = directory / "checked.json"
    files = [directory / name for name in FILES if (directory / name).exists()]
    stamps = {path.name: [path.stat().st_size, path.stat().st_mtime_ns] for path in files}
    try:
        if json.loads(seen.read_text()) == stamps:
            return
    except (OSError, ValueError):
        pass  # made by an older harness, or never checked
    digest = json.loads((directory / "kernel.json").read_text())["digest"]
    try:
        right = _digest(files) == digest
    except OSError:
        right = False
    if not right:
        raise _damaged(directory)
    try:
        seen.write_text(json.dumps(stamps))
    except OSError:
        pass  # the disk is full: it is read again next time


def fetched() -> dict[str, Kernel]:
    """Return the kernels that are there, by name; a user's own are not among them."""
    found = {}
    for path in sorted(paths.cache("kernels").glob("*/kernel.json")):
        name = path.parent.name.rpartition("-")[0]
        try:
            kernel = _cached(find(name), current=False)
        except UnknownKernel:
            continue
        if kernel is not None:
            found[name] = kernel
    return dict(sorted(found.items(), key=lambda item: sort_key(item[0])))


def size_mib(kernel: Kernel) -> int:
    """Return what a kernel takes in the cache, without saved guests."""
    files = kernel.vmlinux.parent.iterdir()
    return sum(path.stat().st_blocks for path in files) * 512 >> 20


def remove(name: str) -> bool:
    """Remove a kernel from the cache, saved guests included; say whether there was one.

    OWN stands for all of the user's own. Raises UnknownKernel.
    """
    if name != OWN and isinstance(find(name), Own):
        raise UnknownKernel(f"Kernels of your own go together: `spinlock kernels remove {OWN}`.")
    home = paths.cache("kernels")
    with paths.lock(home / f"{name}.lock"):
        found = list(home.glob(f"{name}-????????????"))
        for path in (*found, *paths.cache("guests").glob(f"{name}-{'?' * 20}")):
            shutil.rmtree(path, ignore_errors=True)
    return bool(found)


def fetch(name: str, progress: Progress, *, update: bool = False) -> Kernel:
    """Return the kernel, downloading and preparing it when it is missing, stale or to be updated.

    What is there needs no network. Raises UnknownKernel, or SetupError when it cannot be had.
    """
    row = find(name)
    home = paths.cache("kernels")
    with paths.lock(home / f"{_label(row)}.lock"):
        found = _cached(row)
        final = _directory(row)
        if found is not None and not update:
            _check_intact(final)
            os.utime(final)
            return found
        try:
            if update or not (final / "kernel.json").exists():
                try:
                    _check_space(home)
                    _build(row, final, progress)
                except debian_packages.Unreachable as error:
                    stale = None if update else _stale(row)
                    if stale is None:
                        raise
                    progress(f"kernel {name}: the one fetched earlier is used, for: {error}")
                    final = stale
            if _in_directory(final, name) is None:
                _write_initrd(final, progress)
        except OSError as error:
            raise SetupError(
                f"Kernel {name} could not be written below {home} ({error}): "
                "free some space or set SPINLOCK_CACHE."
            ) from error
        found = _in_directory(final, name)
    assert found is not None
    return found


def _stale(row: Debian | Own) -> Path | None:
    """Return where a kernel of that name lies which an older harness made in the same format."""
    if isinstance(row, Own):
        return None
    for path in paths.cache("kernels").glob(f"{row.name}-{'?' * 12}/kernel.json"):
        try:
            if json.loads(path.read_text())["format"] == FORMAT:
                return path.parent
        except (ValueError, KeyError):
            continue
    return None


def _label(row: Debian | Own) -> str:
    """Return what a kernel's files are called by."""
    return row.name if isinstance(row, Debian) else OWN


def _directory(row: Debian | Own) -> Path:
    if isinstance(row, Debian):
        key = recipe(row)
    else:
        key = hashlib.sha256(own_kernel.read(row.path)).hexdigest()[:12]
    return paths.cache("kernels") / f"{_label(row)}-{key}"


def _check_space(home: Path) -> None:
    free = shutil.disk_usage(home).free >> 20
    if free < NEEDED_MIB:
        raise SetupError(
            f"{home} has {free} MiB free and a kernel needs {NEEDED_MIB} MiB while it is prepared:"
            " free some space or set SPINLOCK_CACHE."
        )


def recipe(row: Debian) -> str:
    """Return the digest of everything that decides how a kernel's files are made."""
    parts = [FORMAT, *debian_kernel.ingredients(row)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def _build(row: Debian | Own, final: Path, progress: Progress) -> None:
    home = final.parent
    for leftover in home.glob(f"{_label(row)}.building-*"):
        shutil.rmtree(leftover)
    building = Path(tempfile.mkdtemp(prefix=f"{_label(row)}.building-", dir=home))
    try:
        result = building / "result"
        result.mkdir()
        if isinstance(row, Debian):
            manifest = debian_kernel.prepare(row, result, building, progress)
        else:
            manifest = own_kernel.prepare(row, result, progress)
        manifest["format"] = FORMAT
        manifest["digest"] = _digest(sorted(result.iterdir()))
        (result / "kernel.json").write_text(json.dumps(manifest, indent=1))
        shutil.rmtree(final, ignore_errors=True)
        result.rename(final)
        older = [path for path in home.glob(f"{_label(row)}-{'?' * 12}") if path != final]
        older.sort(key=lambda path: path.stat().st_mtime, reverse=True)
        for stale in older[0 if isinstance(row, Debian) else KEPT_OWN - 1 :]:
            shutil.rmtree(stale)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _write_initrd(directory: Path, progress: Progress) -> None:
    """Compile init and join it to the modules; kept apart so that a changed init is cheap."""
    progress("kernel: compiling init")
    with tempfile.TemporaryDirectory(
        prefix=f"{directory.name.rpartition('-')[0]}.building-", dir=directory.parent
    ) as name:
        program = Path(name) / "init"
        host_tools.run(
            ["clang", "-static", "-Os", "-s", "-Wall", "-o", str(program), str(INIT_SOURCE)],
            "clang and libc6-dev",
        )
        archive = initramfs.cpio({"init": program.read_bytes()}, executable=["init"])
        whole = Path(name) / "initrd"
        whole.write_bytes((directory / "modules.cpio").read_bytes() + archive)
        # Another checkout may be using its own.
        there = sorted(directory.glob("initrd-*.cpio"), key=lambda path: path.stat().st_mtime)
        for stale in there[: 1 - KEPT_INITRDS]:
            stale.unlink()
        whole.rename(directory / f"initrd-{_init_digest()}.cpio")


def _init_digest() -> str:
    return hashlib.sha256(INIT_SOURCE.read_bytes()).hexdigest()[:12]


def _digest(files: Iterable[Path]) -> str:
    total = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            for block in iter(lambda: file.read(1 << 20), b""):
                total.update(block)
    return total.hexdigest()
