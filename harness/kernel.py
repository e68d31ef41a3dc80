"""Where kernels come from, and what is made of them so that they boot fast.

A kernel's directory below the cache holds an uncompressed vmlinux (QEMU enters it through its PVH
note, which skips decompression in the guest), the bzImage for other loaders, a small initramfs and
a squashfs image with all modules and the headers bcc needs.
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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Iterable, Mapping, Sequence

from filelock import FileLock

from harness import debian, paths
from harness.debian import Progress
from harness.errors import SetupError, UsageError

INIT_SOURCE = Path(__file__).parent / "guest" / "init.c"
FORMAT = 4  # raise when a kernel's directory changes in a way `recipe` cannot see

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
    """The newest Debian kernel of `series` (such as "6.12") and `flavour` in `suites`."""

    name: str
    series: str
    suites: tuple[str, ...]
    flavour: str = "cloud-amd64"


@dataclass(frozen=True)
class Kernel:
    """A kernel ready to boot; `digest` covers all its files.

    `modules` is a read-only squashfs image with usr/lib/modules/RELEASE and, if `headers`,
    usr/src. `initrd` is an uncompressed cpio archive: further archives may be appended to it.
    """

    name: str
    release: str
    package_version: str
    vmlinux: Path
    bzimage: Path
    initrd: Path
    modules: Path
    headers: bool
    digest: str


_BULLSEYE = ("bullseye-security",)
_BOOKWORM = ("bookworm", "bookworm-security")
_TRIXIE = ("trixie", "trixie-security")
_BACKPORTS = ("trixie-backports",)

KERNELS: Mapping[str, Debian] = {
    row.name: row
    for row in (
        Debian("5.10", "5.10", _BULLSEYE),
        Debian("6.1", "6.1", _BOOKWORM),
        Debian("6.12", "6.12", _TRIXIE),
        *(
            Debian(series, series, _BACKPORTS)
            for series in ("6.16", "6.17", "6.18", "6.19", "7.0", "7.1", "7.2", "7.3")
        ),
        Debian("6.12-full", "6.12", _TRIXIE, "amd64"),
        Debian("6.12-rt", "6.12", _TRIXIE, "rt-amd64"),
        Debian("7.3-rt", "7.3", _BACKPORTS, "rt-amd64"),
    )
}
DEFAULT = "6.12"


def names() -> list[str]:
    """Return the names `fetch` understands."""
    return list(KERNELS)


def all_names() -> list[str]:
    """Return what "all" stands for: the newest of each minor, oldest first."""
    return [row.name for row in KERNELS.values() if row.name == row.series]


def find(name: str) -> Debian:
    """Return the row called `name`, or raise UnknownKernel."""
    try:
        return KERNELS[name]
    except KeyError:
        near = difflib.get_close_matches(name, KERNELS, n=3, cutoff=0.4) or names()
        raise UnknownKernel(f"No kernel is called {name!r}: try {' or '.join(near)}.") from None


def cached(name: str) -> Kernel | None:
    """Return the kernel if it is built and current, else None. Raises UnknownKernel."""
    row = find(name)
    directory = paths.cache("kernels") / f"{name}-{recipe(row)}"
    try:
        manifest = json.loads((directory / "kernel.json").read_text())
    except FileNotFoundError:
        return None
    initrd = directory / f"initrd-{_init_digest()}.cpio"
    if not initrd.exists():
        return None
    return Kernel(
        name=name,
        release=manifest["release"],
        package_version=manifest["package_version"],
        vmlinux=directory / "vmlinux",
        bzimage=directory / "bzimage",
        initrd=initrd,
        modules=directory / "modules.squashfs",
        headers=manifest["headers"],
        digest=hashlib.sha256((manifest["digest"] + _init_digest()).encode()).hexdigest(),
    )


def fetch(name: str, progress: Progress) -> Kernel:
    """Return the kernel, downloading and preparing it when it is missing or stale.

    Raises UnknownKernel, or SetupError when it cannot be had.
    """
    row = find(name)
    home = paths.cache("kernels")
    with FileLock(str(home / f"{name}.lock")):
        found = cached(name)
        if found is not None:
            return found
        final = home / f"{name}-{recipe(row)}"
        try:
            if not (final / "kernel.json").exists():
                _build(row, final, progress)
            _write_initrd(final, progress)
        except OSError as error:
            raise SetupError(
                f"Kernel {name} could not be written below {home} ({error}): "
                "free some space or set SPINLOCK_CACHE."
            ) from error
        found = cached(name)
    assert found is not None
    return found


def recipe(row: Debian) -> str:
    """Return the digest of everything that decides how a kernel's files are made."""
    early = [*CHECKSUM_MODULES, *AGENT_MODULES]
    parts = [FORMAT, asdict(row), early, SYSTEM_MODULES, UNUSED_MODULES]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def image_package(candidates: Iterable[str], row: Debian) -> list[str]:
    """Return those package names that bring a kernel of `row`, signed ones only."""
    series, flavour = re.escape(row.series), re.escape(row.flavour)
    pattern = re.compile(rf"linux-image-{series}[.\-+][^ ]*?(?<!rt)(?<!cloud)-{flavour}")
    return [name for name in candidates if pattern.fullmatch(name)]


def vmlinux(bzimage: bytes) -> bytes:
    """Return the uncompressed ELF kernel inside a bzImage.

    Raises SetupError when the file is no bzImage or its compression is not known.
    """
    if len(bzimage) < 0x250 or bzimage[0x202:0x206] != b"HdrS":
        raise SetupError("The kernel image is not a bzImage: give an x86-64 bzImage.")
    # Documentation/arch/x86/boot.rst: setup_sects, payload_offset, payload_length
    sectors = bzimage[0x1F1] or 4
    offset, length = struct.unpack_from("<II", bzimage, 0x248)
    start = (sectors + 1) * 512 + offset
    payload = bzimage[start : start + length]
    # The kernel appends the uncompressed size, which decompressors would take for a broken frame.
    try:
        if payload[:2] == b"\x1f\x8b":
            return gzip.GzipFile(fileobj=io.BytesIO(payload)).read(_payload_size(payload))
        if payload[:6] == b"\xfd7zXZ\x00":
            return lzma.LZMADecompressor().decompress(payload)
    except (EOFError, OSError, lzma.LZMAError, zlib.error) as error:
        raise SetupError(f"The kernel image is damaged ({error}): get it again.") from error
    if payload[:4] == b"\x28\xb5\x2f\xfd":
        return _filter(["zstd", "--decompress", "--stdout"], payload[:-4], "zstd")
    if payload[:4] == b"\x02\x21\x4c\x18":
        return _filter(["lz4", "-d", "-c"], payload[:-4], "lz4")
    raise SetupError(f"The kernel image's compression ({payload[:6].hex()}) is not known.")


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


def _build(row: Debian, final: Path, progress: Progress) -> None:
    home = final.parent
    for leftover in home.glob(f"{row.name}.building-*"):
        shutil.rmtree(leftover)
    building = Path(tempfile.mkdtemp(prefix=f"{row.name}.building-", dir=home))
    try:
        result, scratch = building / "result", building / "scratch"
        result.mkdir()
        version = _download(row, scratch, progress)
        bzimage = _one(scratch, ("boot/vmlinuz-*", "usr/lib/modules/*/vmlinuz"))
        shutil.copyfile(bzimage, result / "bzimage")
        (result / "vmlinux").write_bytes(vmlinux(bzimage.read_bytes()))
        progress(f"kernel {row.name}: modules and headers")
        release = _one(scratch, ("usr/lib/modules/*", "lib/modules/*")).name
        tree = building / "tree"
        headers = _arrange(scratch, tree, release)
        _write_boot_modules(tree / "usr/lib/modules" / release, result)
        _run(
            [
                "mksquashfs",
                str(tree),
                str(result / "modules.squashfs"),
                "-comp",
                "lz4",
                "-quiet",
                "-no-progress",
                "-all-root",
                "-no-xattrs",
            ],
            "squashfs-tools",
        )
        manifest = {
            "release": release,
            "package_version": version,
            "headers": headers,
            "digest": _digest(sorted(result.iterdir())),
        }
        (result / "kernel.json").write_text(json.dumps(manifest, indent=1))
        shutil.rmtree(final, ignore_errors=True)
        result.rename(final)
        for stale in home.glob(f"{row.name}-????????????"):
            if stale != final:
                shutil.rmtree(stale)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _download(row: Debian, scratch: Path, progress: Progress) -> str:
    """Unpack the kernel's packages below `scratch` and return the image's package version."""
    progress(f"kernel {row.name}: reading the package index")
    archive = debian.Archive(paths.cache("apt", row.suites[0]), row.suites)
    with FileLock(str(archive.directory) + ".lock"):
        archive.refresh()
        listed = archive.names(f"linux-image-{row.series}")
        found = archive.packages(image_package(listed, row))
        if not found:
            raise SetupError(
                f"Debian {row.suites[0]} has no {row.series} {row.flavour} kernel any more: "
                f"choose another kernel than {row.name}."
            )
        image = debian.newest(found)
        full = image.name[len("linux-image-") :]
        version = re.sub(rf"-{re.escape(row.flavour)}$", "", full)
        # From 6.19 linux-image-… only depends on the packages that hold the image and the modules.
        # bcc reads headers only: kbuild and the compiler packages stay out.
        useful = re.compile(rf"linux-(?:binary|modules|base|headers)-{re.escape(version)}-.*")
        chosen = {image.name: image}
        missing = []
        waiting = [*image.depends, f"linux-headers-{full}"]
        while waiting:
            name = waiting.pop()
            if name in chosen or not useful.fullmatch(name):
                continue
            if name not in archive.names(name):
                missing.append(name)
                continue
            chosen[name] = archive.packages([name])[0]
            waiting += chosen[name].depends
        # The index forgets headers before it forgets images, and then nothing can verify them.
        if any(name.startswith("linux-headers-") for name in missing):
            chosen = {name: item for name, item in chosen.items() if "-headers-" not in name}
        progress(f"kernel {row.name}: downloading {full}")
        for deb in archive.download(list(chosen.values()), scratch):
            debian.unpack(deb, scratch)
            deb.unlink()
    return image.version


def _arrange(scratch: Path, tree: Path, release: str) -> bool:
    """Move modules and headers to where the guest wants them; say whether there are headers."""
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
    headers = sources.is_dir()
    if headers:
        shutil.copytree(sources, tree / "usr/src", symlinks=True)
    else:
        (tree / "usr/src").mkdir()
    # depmod looks below lib/ or usr/lib/ depending on how kmod was built.
    (tree / "lib").symlink_to("usr/lib")
    _run(["depmod", "-b", str(tree), release], "kmod")
    return headers


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
    with tempfile.TemporaryDirectory(dir=directory.parent) as name:
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


def _filter(command: list[str], data: bytes, package: str) -> bytes:
    return _run(command, package, data)


def _run(command: list[str], package: str, data: bytes | None = None) -> bytes:
    environment = {**os.environ, "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin"}
    try:
        done = subprocess.run(
            command, input=data or b"", capture_output=True, check=False, env=environment
        )
    except FileNotFoundError as error:
        raise SetupError(f"{command[0]} is missing: install {package}.") from error
    if done.returncode != 0:
        last = (done.stderr.decode(errors="replace").strip().splitlines() or ["no message"])[-1]
        raise SetupError(f"{command[0]} failed while preparing a kernel: {last}.")
    return done.stdout
