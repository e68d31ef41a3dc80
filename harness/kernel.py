"""Where kernels come from, and what is made of them so that they boot fast.

A kernel's directory below the cache holds an uncompressed vmlinux (QEMU enters it through its PVH
note, which skips decompression in the guest), the bzImage for other loaders, a small initramfs and
a squashfs image with all modules and the headers bcc needs. A kernel of the user's own, a bzImage
or a build tree, has neither modules nor headers.
"""

from __future__ import annotations

import difflib
import gzip
import hashlib
import io
import json
import lzma
import os
import re
import shutil
import struct
import subprocess
import tempfile
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Iterable, Mapping, Sequence

import yaml

from harness import debian, paths
from harness.debian import Progress
from harness.errors import SetupError, UsageError

INIT_SOURCE = Path(__file__).parent / "guest" / "init.c"
FORMAT = 5  # raise when a kernel's directory changes in a way `recipe` cannot see

NEEDED_MIB = 1500  # while a kernel is unpacked and packed again

# What init loads before it can mount anything, and what it needs beside for disks and CD-ROMs as
# libvirt attaches them (as far as the kernel has it: cloud kernels before 6.12 have no ahci).
# Dependencies come from modules.dep; built-in modules cost nothing.
AGENT_MODULES = ("virtio_pci", "virtio_blk", "virtio_console", "ext4", "squashfs", "overlay")
# Asked for by ext4 under the name of the algorithm, which modules.dep does not know; newer kernels
# have it built in.
CHECKSUM_MODULES = ("crc32c_generic",)
SYSTEM_MODULES = ("ahci", "ata_piix", "virtio_scsi", "sd_mod", "sr_mod", "isofs")

# Modules that nothing here uses, below kernel/: only whole subsystems of hardware a VM never has.
UNUSED_MODULES = ("drivers/gpu", "drivers/media", "drivers/infiniband", "sound", "drivers/staging")


class UnknownKernel(UsageError):
    """No kernel has that name; the message suggests the nearest ones."""


@dataclass(frozen=True)
class Debian:
    """A kernel of `series` (such as "6.12") and `flavour` in `suites`: the newest, or `version`.

    A version may leave out what Debian adds to it, as 6.12.43 does of 6.12.43+deb12.
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


_CATALOGUE = yaml.safe_load((Path(__file__).parent / "kernels.yaml").read_text())
MINORS: Mapping[str, Any] = _CATALOGUE["minors"]
FLAVOURS: Mapping[str, str] = _CATALOGUE["flavours"]
CHECKED: Mapping[str, str] = {minor: str(row["checked"]) for minor, row in MINORS.items()}
DEFAULT = "6.12"
CLOUD = "cloud"  # the flavour of a name that has none
OWN = "own"  # what all kernels of the user's own are called in the cache
FILES = ("bzimage", "modules.cpio", "modules.squashfs", "vmlinux")  # what the digest covers
KEPT_OWN = 4  # of those, the ones used last; 50 MB each


def names() -> list[str]:
    """Return the names that need no version."""
    others = [flavour for flavour in FLAVOURS if flavour != CLOUD]
    return [*MINORS, *(f"{minor}-{flavour}" for minor in MINORS for flavour in others)]


def all_names() -> list[str]:
    """Return what "all" stands for: the newest of each minor, oldest first."""
    return list(MINORS)


def is_path(name: str) -> bool:
    """Tell whether a name is the path of a kernel of the user's own."""
    return "/" in name or Path(name).is_file()


def expand(chosen: Iterable[str]) -> list[str]:
    """Return names with "all" spelled out, each once."""
    spelled = (n for name in chosen for n in (all_names() if name == "all" else [name]))
    return list(dict.fromkeys(spelled))


def find(name: str) -> Debian | Own:
    """Return what a name or path stands for; whether it exists is for `fetch` to find.

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


def look(name: str) -> None:
    """Say at no cost that there is no such kernel. Raises UnknownKernel, SetupError."""
    row = find(name)
    if isinstance(row, Own):
        image_file(row.path)


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
    return dict(sorted(found.items(), key=lambda item: _sort_key(item[0])))


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
                except debian.Unreachable as error:
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


def available(minor: str, progress: Progress) -> list[str]:
    """Return the versions of a minor that Debian has now, as names `fetch` takes.

    Raises SetupError when the index cannot be read.
    """
    row = MINORS[minor]
    suites = (*row["suites"], *row.get("older", []))
    progress(f"kernel {minor}: reading the package index")
    archive = debian.Archive(paths.cache("apt", "+".join(suites)), suites)
    with paths.lock(archive.lock):
        archive.refresh()
        listed = archive.names(f"linux-image-{minor}")
    flavour = FLAVOURS[CLOUD]
    wanted = image_package(listed, Debian(minor, minor, suites, flavour))
    versions = [name[len("linux-image-") : -len(flavour) - 1] for name in wanted]
    return sorted(versions, key=_sort_key)


def _sort_key(name: str) -> tuple[Any, ...]:
    return tuple(int(part) if part.isdigit() else part for part in re.findall(r"\d+|[a-z]+", name))


def _label(row: Debian | Own) -> str:
    """Return what a kernel's files are called by."""
    return row.name if isinstance(row, Debian) else OWN


def _directory(row: Debian | Own) -> Path:
    if isinstance(row, Debian):
        key = recipe(row)
    else:
        key = hashlib.sha256(_read_image(row.path)).hexdigest()[:12]
    return paths.cache("kernels") / f"{_label(row)}-{key}"


def _check_space(home: Path) -> None:
    free = shutil.disk_usage(home).free >> 20
    if free < NEEDED_MIB:
        raise SetupError(
            f"{home} has {free} MiB free and a kernel needs {NEEDED_MIB} MiB while it is prepared:"
            " free some space or set SPINLOCK_CACHE."
        )


def image_file(path: Path) -> Path:
    """Return the bootable file of a build tree, or the file itself. Raises SetupError."""
    if path.is_dir():
        found = path / "arch" / "x86" / "boot" / "bzImage"
        if not found.exists():
            raise SetupError(
                f"{path} holds no arch/x86/boot/bzImage: give a built kernel tree (`make bzImage`)"
                " or a bzImage."
            )
        return found
    if not path.is_file():
        raise SetupError(f"There is no kernel at {path}: give a bzImage or a build tree.")
    return path


def _read_image(path: Path) -> bytes:
    """Return the bootable file's content. Raises SetupError."""
    file = image_file(path)
    try:
        return file.read_bytes()
    except OSError as error:
        raise SetupError(
            f"The kernel {file} cannot be read ({error.strerror}): give one that can."
        ) from None


def has_pvh_entry(vmlinux: bytes) -> bool:
    """Tell whether an ELF kernel says where QEMU may enter it (Xen's note of type 18)."""
    pattern = rb"\x04\0\0\0[\x04\x08]\0\0\0\x12\0\0\0Xen\0"
    return re.search(pattern, vmlinux) is not None


def release_of(bzimage: bytes) -> str:
    """Return the release that a bzImage's header names, "" if it names none."""
    # Documentation/arch/x86/boot.rst: kernel_version, an offset less 0x200
    (offset,) = struct.unpack_from("<H", bzimage, 0x20E)
    if not offset:
        return ""
    start = offset + 0x200
    return bzimage[start : start + 128].split(b"\0")[0].split(b" ")[0].decode(errors="replace")


def recipe(row: Debian) -> str:
    """Return the digest of everything that decides how a kernel's files are made.

    In which suites it is looked for is not among it: a kernel that is there stays what it is.
    """
    early = [*CHECKSUM_MODULES, *AGENT_MODULES]
    parts = [FORMAT, row.series, row.flavour, row.version, early, SYSTEM_MODULES, UNUSED_MODULES]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def image_package(candidates: Iterable[str], row: Debian) -> list[str]:
    """Return those package names that bring a kernel of `row`, signed ones only."""
    flavour = re.escape(row.flavour)
    if row.version:
        version = re.escape(row.version) + r"(\+deb[\d.]+)?"
    else:
        version = rf"{re.escape(row.series)}([.\-+][^ ]*?)?"
    pattern = re.compile(rf"linux-image-{version}(?<!rt)(?<!cloud)-{flavour}")
    return [
        name
        for name in candidates
        if pattern.fullmatch(name) and re.match(r"linux-image-\d+\.\d+[.\-+]?[\d+]", name)
    ]


def vmlinux(bzimage: bytes, what: str = "The kernel image") -> bytes:
    """Return the uncompressed ELF kernel inside a bzImage.

    Raises SetupError, in which the file is called `what`, when it is no bzImage or damaged.
    """
    if len(bzimage) < 0x250 or bzimage[0x202:0x206] != b"HdrS":
        raise SetupError(f"{what} is not a bzImage: give an x86-64 bzImage.")
    # Documentation/arch/x86/boot.rst: setup_sects, payload_offset, payload_length
    sectors = bzimage[0x1F1] or 4
    offset, length = struct.unpack_from("<II", bzimage, 0x248)
    start = (sectors + 1) * 512 + offset
    payload = bzimage[start : start + length]
    if not payload or len(payload) < length:
        raise SetupError(f"{what} is damaged (it ends too early): get it again.")
    # The kernel appends the uncompressed size, which decompressors would take for a broken frame.
    try:
        if payload[:2] == b"\x1f\x8b":
            return gzip.GzipFile(fileobj=io.BytesIO(payload)).read(_payload_size(payload))
        if payload[:6] == b"\xfd7zXZ\x00":
            return lzma.LZMADecompressor().decompress(payload)
    except (EOFError, OSError, lzma.LZMAError, zlib.error) as error:
        raise SetupError(f"{what} is damaged ({error}): get it again.") from error
    if payload[:4] == b"\x28\xb5\x2f\xfd":
        return _filter(["zstd", "--decompress", "--stdout"], payload[:-4], "zstd", what)
    if payload[:4] == b"\x02\x21\x4c\x18":
        return _filter(["lz4", "-d", "-c"], payload[:-4], "lz4", what)
    raise SetupError(f"{what} has a compression ({payload[:6].hex()}) that is not known here.")


def module_order(
    wanted: Sequence[str], dep: str, builtin: str, *, required: bool = True
) -> list[str]:
    """Return the files of the modules `wanted`, dependencies first, as paths in modules.dep.

    `dep` and `builtin` are the texts of modules.dep and modules.builtin. Raises SetupError when a
    module is in neither, unless not `required`.
    """
    needs: dict[str, list[str]] = {}
    for line in dep.splitlines():
        path, _, rest = line.partition(":")
        needs[path] = rest.split()
    by_name = {_module_name(path): path for path in needs}
    inside = {_module_name(path) for path in builtin.split()}
    order: list[str] = []

    def add(path: str) -> None:
        for needed in needs[path]:
            add(needed)
        if path not in order:
            order.append(path)

    for name in wanted:
        if name in inside or (name not in by_name and not required):
            continue
        if name not in by_name:
            raise SetupError(
                f"The kernel has no module {name}: choose one made for virtual machines."
            )
        add(by_name[name])
    return order


def cpio(files: Mapping[str, bytes], executable: Sequence[str] = ()) -> bytes:
    """Return a "newc" cpio archive of regular files, as the kernel unpacks into the initramfs.

    Names are relative; parent directories are added. The result is the same for the same input.
    """
    archive = bytearray()
    directories = sorted({str(up) for name in files for up in Path(name).parents} - {"."})
    entries = [(name, 0o040755, b"") for name in directories]
    for name, data in files.items():
        entries.append((name, 0o100755 if name in executable else 0o100644, data))
    entries.append(("TRAILER!!!", 0, b""))
    for inode, (name, mode, data) in enumerate(entries, start=1):
        label = name.encode() + b"\0"
        fields = (inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(label), 0)
        archive += b"070701" + b"".join(b"%08X" % field for field in fields) + label
        archive += b"\0" * (-len(archive) % 4)
        archive += data
        archive += b"\0" * (-len(archive) % 4)
    archive += b"\0" * (-len(archive) % 512)
    return bytes(archive)


def _module_name(path: str) -> str:
    return Path(path).name.split(".ko")[0].replace("-", "_")


def _payload_size(payload: bytes) -> int:
    size: int = struct.unpack("<I", payload[-4:])[0]
    return size


def _build(row: Debian | Own, final: Path, progress: Progress) -> None:
    home = final.parent
    for leftover in home.glob(f"{_label(row)}.building-*"):
        shutil.rmtree(leftover)
    building = Path(tempfile.mkdtemp(prefix=f"{_label(row)}.building-", dir=home))
    try:
        result = building / "result"
        result.mkdir()
        if isinstance(row, Debian):
            manifest = _build_debian(row, result, building, progress)
        else:
            manifest = _build_own(row, result, progress)
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


def _build_own(row: Own, result: Path, progress: Progress) -> dict[str, Any]:
    progress(f"kernel {row.name}: unpacking")
    image = _read_image(row.path)
    if image[:4] == b"\x7fELF":
        if image[4:5] != b"\x02" or image[18:20] != b"\x3e\0":  # ELFCLASS64, EM_X86_64
            raise SetupError(f"{row.path} is no kernel for x86-64: give an x86-64 bzImage.")
        release, elf = "", image
        # Elf64_Ehdr: e_shoff, and e_shentsize and e_shnum; the sections' table is at the end.
        (sections,), (size, count) = (
            struct.unpack_from("<Q", image.ljust(64), 40),
            struct.unpack_from("<HH", image.ljust(64), 58),
        )
        if len(image) < max(64, sections + size * count):
            raise SetupError(f"{row.path} is damaged (it ends too early): get it again.")
        if not has_pvh_entry(elf):
            raise SetupError(
                f"{row.path} has no PVH entry: give the bzImage, or build with CONFIG_PVH."
            )
    else:
        elf, release = vmlinux(image, str(row.path)), release_of(image)
        (result / "bzimage").write_bytes(image)
    # QEMU boots a bzImage as well, only slower.
    (result / "vmlinux").write_bytes(elf if has_pvh_entry(elf) else image)
    files = {"modules/agent.list": b"", "modules/system.list": b"", "modules/none": b""}
    (result / "modules.cpio").write_bytes(cpio(files))
    return {"release": release, "package_version": "", "headers": "", "command_line": []}


def _build_debian(row: Debian, result: Path, building: Path, progress: Progress) -> dict[str, Any]:
    scratch, tree = building / "scratch", building / "tree"
    got = _download(row, scratch, progress)
    bzimage = _one(scratch, ("boot/vmlinuz-*", "usr/lib/modules/*/vmlinuz"))
    shutil.copyfile(bzimage, result / "bzimage")
    (result / "vmlinux").write_bytes(vmlinux(bzimage.read_bytes()))
    progress(f"kernel {row.name}: modules and headers")
    release = bzimage.parent.name if bzimage.name == "vmlinuz" else bzimage.name[len("vmlinuz-") :]
    _arrange(scratch, tree, release)
    _write_boot_modules(tree / "usr/lib/modules" / release, result)
    squash = ["mksquashfs", str(tree), str(result / "modules.squashfs"), "-comp", "lz4", "-quiet"]
    _run([*squash, "-no-progress", "-all-root", "-no-xattrs"], "squashfs-tools")
    return {
        "release": release,
        "package_version": got.version,
        "headers": got.headers,
        # The packages that came without a checksum hold modules signed with a key in the vmlinuz,
        # which has one: so the kernel itself checks them.
        "command_line": ["module.sig_enforce=1"] if got.unlisted else [],
    }


@dataclass(frozen=True)
class _Download:
    """What was unpacked: the image's package version, which headers, what the index did not list."""

    version: str
    headers: str
    unlisted: tuple[str, ...]


def _download(row: Debian, scratch: Path, progress: Progress) -> _Download:
    """Unpack the kernel's packages below `scratch`."""
    progress(f"kernel {row.name}: reading the package index")
    archive = debian.Archive(paths.cache("apt", "+".join(row.suites)), row.suites)
    with paths.lock(archive.lock):
        archive.refresh()
        image = _choose(archive, row)
        full = image.name[len("linux-image-") :]
        version = re.sub(rf"-{re.escape(row.flavour)}$", "", full)
        # From 6.19 linux-image-… only depends on the packages that hold the image and the modules.
        useful = re.compile(rf"linux-(?:binary|modules|base)-{re.escape(version)}-.*")
        chosen = {image.name: image}
        unlisted: list[str] = []
        waiting = [*image.depends]
        while waiting:
            name = waiting.pop()
            if name in chosen or name in unlisted or not useful.fullmatch(name):
                continue
            if name not in archive.names(name):
                unlisted.append(name)  # the index forgets them before the pool does
                continue
            chosen[name] = archive.packages([name])[0]
            waiting += chosen[name].depends
        if any(name.startswith("linux-binary-") for name in unlisted):
            raise SetupError(f"Debian's index has no {full} image any more: choose another kernel.")
        headers, packages = _headers(archive, version, row.flavour)
        chosen.update(packages)
        progress(f"kernel {row.name}: downloading {full}")
        downloads = archive.directory / "downloads"
        files = archive.download(list(chosen.values()), downloads)
        files += [archive.download_unlisted(name, image.version, downloads) for name in unlisted]
        for deb in files:
            debian.unpack(deb, scratch)
        for deb in files:
            deb.unlink()
    if headers not in ("", "own"):
        modules = _one(scratch, ("usr/lib/modules", "lib/modules"))
        for link in ("build", "source"):
            theirs = modules / f"{headers}-{row.flavour}" / link
            if theirs.is_symlink():
                (modules / f"{version}-{row.flavour}").mkdir(exist_ok=True)
                theirs.rename(modules / f"{version}-{row.flavour}" / link)
    return _Download(image.version, headers, tuple(unlisted))


def _choose(archive: debian.Archive, row: Debian) -> debian.Package:
    """Return the image package that a row means. Raises UnknownKernel, SetupError."""
    found = image_package(archive.names(f"linux-image-{row.series}"), row)
    if not found and row.version:
        every = image_package(archive.names(f"linux-image-{row.series}"), replace(row, version=""))
        have = sorted(
            {name[len("linux-image-") : -len(row.flavour) - 1] for name in every}, key=_sort_key
        )
        near = difflib.get_close_matches(row.version, have, n=3, cutoff=0.4) or have[-3:]
        raise UnknownKernel(
            f"Debian has no {row.flavour} kernel {row.version}: try {' or '.join(near)}."
        )
    if not found:
        raise SetupError(
            f"Debian {row.suites[0]} has no {row.series} {row.flavour} kernel any more: "
            f"choose another kernel than {row.name}."
        )
    if row.version and len(found) > 1:
        have = sorted(name[len("linux-image-") : -len(row.flavour) - 1] for name in found)
        raise UnknownKernel(f"{row.version} is ambiguous: say {' or '.join(have)}.")
    return debian.newest(archive.packages(found))


def _headers(
    archive: debian.Archive, version: str, flavour: str
) -> tuple[str, dict[str, debian.Package]]:
    """Return which headers bcc gets, and their packages: this version's, or else the nearest.

    The index forgets headers before it forgets images. bcc needs only those of the user-space API
    here, for which any will do. kbuild and the compiler packages stay out.
    """
    listed = [
        name
        for name in archive.names("linux-headers-")
        if re.fullmatch(rf"linux-headers-\d+\.\d+\.\d[\w.+~-]*-{flavour}", name)
        and (flavour != "amd64" or not re.search(r"-(cloud|rt)-amd64$", name))
    ]
    versions = [name[len("linux-headers-") : -len(flavour) - 1] for name in listed]
    for found in sorted(versions, key=lambda v: (v != version, _distance(v, version))):
        name = f"linux-headers-{found}-{flavour}"
        packages = {name: archive.packages([name])[0]}
        common = [
            d for d in packages[name].depends if re.fullmatch(r"linux-headers-.*-common.*", d)
        ]
        if all(need in archive.names(need) for need in common):
            packages.update({need: archive.packages([need])[0] for need in common})
            return "own" if found == version else found, packages
    return "", {}


def _distance(left: str, right: str) -> int:
    """Return how far apart two kernel versions are, minors counting most."""

    def place(version: str) -> int:
        major, minor, patch, *_ = [*map(int, re.findall(r"\d+", version)), 0, 0, 0]
        return (major * 100 + minor) * 1000 + patch

    return abs(place(left) - place(right))


def _arrange(scratch: Path, tree: Path, release: str) -> None:
    """Move modules and headers to where the guest wants them."""
    target = tree / "usr/lib/modules" / release
    target.parent.mkdir(parents=True)
    for place in ("usr/lib/modules", "lib/modules"):
        source = scratch / place / release
        if source.is_dir():
            shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True)
    for config in scratch.glob(f"boot/config-{release}"):
        shutil.copy(config, target / "config")  # where newer packages have it anyway
    for unused in UNUSED_MODULES:
        shutil.rmtree(target / "kernel" / unused, ignore_errors=True)
    (target / "vmlinuz").unlink(missing_ok=True)
    # Uncompressed modules load faster in an emulated guest; the squashfs compresses them anyway.
    for suffix, tool in ((".xz", "xz"), (".zst", "zstd"), (".gz", "gzip")):
        packed = [str(path) for path in target.rglob(f"*.ko{suffix}")]
        if packed:
            remove = ["--rm"] if tool == "zstd" else []
            _run([tool, "-d", "-q", *remove, *packed], tool)
    sources = scratch / "usr/src"
    if sources.is_dir():
        shutil.copytree(sources, tree / "usr/src", symlinks=True)
    else:
        (tree / "usr/src").mkdir()
    # depmod looks below lib/ or usr/lib/ depending on how kmod was built.
    (tree / "lib").symlink_to("usr/lib")
    _run(["depmod", "-b", str(tree), release], "kmod")


def _write_boot_modules(modules: Path, result: Path) -> None:
    dep = (modules / "modules.dep").read_text()
    builtin = (modules / "modules.builtin").read_text()
    early = module_order(CHECKSUM_MODULES, dep, builtin, required=False)
    early += [path for path in module_order(AGENT_MODULES, dep, builtin) if path not in early]
    late = [
        path
        for path in module_order(SYSTEM_MODULES, dep, builtin, required=False)
        if path not in early
    ]
    files: dict[str, bytes] = {}
    for name, order in (("agent", early), ("system", late)):
        listed = [f"modules/{Path(path).name}" for path in order]
        files[f"modules/{name}.list"] = "".join(f"/{path}\n" for path in listed).encode()
        for path, place in zip(order, listed):
            files[place] = (modules / path).read_bytes()
    (result / "modules.cpio").write_bytes(cpio(files))


def _write_initrd(directory: Path, progress: Progress) -> None:
    """Compile init and join it to the modules; kept apart so that a changed init is cheap."""
    progress("kernel: compiling init")
    with tempfile.TemporaryDirectory(
        prefix=f"{directory.name.rpartition('-')[0]}.building-", dir=directory.parent
    ) as name:
        program = Path(name) / "init"
        _run(
            ["clang", "-static", "-Os", "-s", "-Wall", "-o", str(program), str(INIT_SOURCE)],
            "clang and libc6-dev",
        )
        archive = cpio({"init": program.read_bytes()}, executable=["init"])
        whole = Path(name) / "initrd"
        whole.write_bytes((directory / "modules.cpio").read_bytes() + archive)
        for stale in directory.glob("initrd-*.cpio"):
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


def _one(directory: Path, patterns: Sequence[str]) -> Path:
    for pattern in patterns:
        found = sorted(directory.glob(pattern))
        if found:
            return found[0]
    raise SetupError(f"The kernel's packages have no {patterns[0]}: choose another kernel.")


def _filter(command: list[str], data: bytes, package: str, what: str) -> bytes:
    try:
        return _run(command, package, data)
    except _ToolFailed:
        raise SetupError(
            f"{what} is damaged ({command[0]} cannot decompress it): get it again."
        ) from None


class _ToolFailed(SetupError):
    """A tool is there and does not like what it was given."""


def _run(command: list[str], package: str, data: bytes | None = None) -> bytes:
    environment = {**os.environ, "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin"}
    try:
        done = subprocess.run(
            command, input=data or b"", capture_output=True, check=False, env=environment
        )
    except (FileNotFoundError, PermissionError) as error:  # the latter for an unreadable PATH
        raise SetupError(f"{command[0]} is missing: install {package}.") from error
    if done.returncode != 0:
        last = (done.stderr.decode(errors="replace").strip().splitlines() or ["no message"])[-1]
        if "No space left on device" in last:
            raise SetupError("The disk is full: free some space or set SPINLOCK_CACHE.")
        raise _ToolFailed(f"{command[0]} failed while preparing a kernel: {last}.")
    return done.stdout
