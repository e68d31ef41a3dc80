# SPDX-License-Identifier: GPL-2.0-only
"""Debian's kernels: turns packages into the files that a guest boots."""

from __future__ import annotations

import difflib
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Iterable, Sequence

from harness import paths
from harness.errors import SetupError
from harness.progress import Progress
from harness.provision import bzimage, debian_packages, host_tools, initramfs
from harness.provision.catalogue import CLOUD, FLAVOURS, MINORS, Debian, UnknownKernel, sort_key

# The modules that init loads before it can mount file systems, and those for libvirt's disks and
# CD-ROMs. The latter are optional: cloud kernels before 6.12 have no ahci. Dependencies come from
# modules.dep. Built-in modules are left out.
AGENT_MODULES = ("virtio_pci", "virtio_blk", "virtio_console", "ext4", "squashfs", "overlay")
# ext4 requests this by the name of its algorithm, so it is not in modules.dep. Newer kernels have
# it built in.
CHECKSUM_MODULES = ("crc32c_generic",)
SYSTEM_MODULES = ("ahci", "ata_piix", "virtio_scsi", "sd_mod", "sr_mod", "isofs")

# Directories of unused modules below kernel/: whole subsystems of hardware that a VM lacks.
UNUSED_MODULES = ("drivers/gpu", "drivers/media", "drivers/infiniband", "sound", "drivers/staging")


def ingredients(row: Debian) -> list[Any]:
    """Return the inputs that decide how a kernel's files are made.

    The suites are not among them, since a kernel that is already there stays the same.
    """
    early = [*CHECKSUM_MODULES, *AGENT_MODULES]
    return [row.series, row.flavour, row.version, early, SYSTEM_MODULES, UNUSED_MODULES]


def available(minor: str, progress: Progress) -> list[str]:
    """Return the versions of a minor that Debian has now, as names of kernels.

    Raises SetupError if the index cannot be read.
    """
    row = MINORS[minor]
    suites = (*row["suites"], *row.get("older", []))
    progress(f"kernel {minor}: reading the package index")
    archive = debian_packages.Archive(paths.cache("apt", "+".join(suites)), suites)
    with paths.lock(archive.lock):
        archive.refresh()
        listed = archive.names(f"linux-image-{minor}")
    flavour = FLAVOURS[CLOUD]
    wanted = image_package(listed, Debian(minor, minor, suites, flavour))
    versions = [name[len("linux-image-") : -len(flavour) - 1] for name in wanted]
    return sorted(versions, key=sort_key)


def image_package(candidates: Iterable[str], row: Debian) -> list[str]:
    """Return the names of the signed packages that contain a kernel of `row`."""
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


def prepare(row: Debian, result: Path, building: Path, progress: Progress) -> dict[str, Any]:
    """Download a kernel and write its files into `result`. Return its part of the manifest.

    `building` is a directory for temporary files. Raises UnknownKernel, SetupError.
    """
    scratch, tree = building / "scratch", building / "tree"
    got = _download(row, scratch, progress)
    image = _one(scratch, ("boot/vmlinuz-*", "usr/lib/modules/*/vmlinuz"))
    shutil.copyfile(image, result / "bzimage")
    (result / "vmlinux").write_bytes(bzimage.vmlinux(image.read_bytes()))
    progress(f"kernel {row.name}: modules and headers")
    release = image.parent.name if image.name == "vmlinuz" else image.name[len("vmlinuz-") :]
    _arrange(scratch, tree, release)
    _write_boot_modules(tree / "usr/lib/modules" / release, result)
    squash = ["mksquashfs", str(tree), str(result / "modules.squashfs"), "-comp", "lz4", "-quiet"]
    host_tools.run([*squash, "-no-progress", "-all-root", "-no-xattrs"], "squashfs-tools")
    return {
        "release": release,
        "package_version": got.version,
        "headers": got.headers,
        # Unlisted packages have no checksum. But their modules are signed with a key in the
        # vmlinuz, which has a checksum. So the kernel itself checks them.
        "command_line": ["module.sig_enforce=1"] if got.unlisted else [],
    }


@dataclass(frozen=True)
class _Download:
    """Unpacked packages: version of the image, version of the headers, names not in the index."""

    version: str
    headers: str
    unlisted: tuple[str, ...]


def _download(row: Debian, scratch: Path, progress: Progress) -> _Download:
    """Unpack the kernel's packages below `scratch`."""
    progress(f"kernel {row.name}: reading the package index")
    archive = debian_packages.Archive(paths.cache("apt", "+".join(row.suites)), row.suites)
    with paths.lock(archive.lock):
        archive.refresh()
        image = _choose(archive, row)
        full = image.name[len("linux-image-") :]
        version = re.sub(rf"-{re.escape(row.flavour)}$", "", full)
        # Since 6.19 linux-image-… only depends on the packages with the image and the modules.
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
            debian_packages.unpack(deb, scratch)
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


def _choose(archive: debian_packages.Archive, row: Debian) -> debian_packages.Package:
    """Return the image package of a row. Raises UnknownKernel, SetupError."""
    found = image_package(archive.names(f"linux-image-{row.series}"), row)
    if not found and row.version:
        every = image_package(archive.names(f"linux-image-{row.series}"), replace(row, version=""))
        have = sorted(
            {name[len("linux-image-") : -len(row.flavour) - 1] for name in every}, key=sort_key
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
    return debian_packages.newest(archive.packages(found))


def _headers(
    archive: debian_packages.Archive, version: str, flavour: str
) -> tuple[str, dict[str, debian_packages.Package]]:
    """Return the version of the headers for bcc, and their packages.

    It is the same version or the nearest one, since Debian's index drops headers before images. bcc
    needs only user-space API headers here, so any version works. kbuild and compiler packages are
    left out.
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
    """Return the distance of two kernel versions. Minors count most."""

    def place(version: str) -> int:
        major, minor, patch, *_ = [*map(int, re.findall(r"\d+", version)), 0, 0, 0]
        return (major * 100 + minor) * 1000 + patch

    return abs(place(left) - place(right))


def _arrange(scratch: Path, tree: Path, release: str) -> None:
    """Move modules and headers to their places in the guest."""
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
            host_tools.run([tool, "-d", "-q", *remove, *packed], tool)
    sources = scratch / "usr/src"
    if sources.is_dir():
        shutil.copytree(sources, tree / "usr/src", symlinks=True)
    else:
        (tree / "usr/src").mkdir()
    # depmod looks below lib/ or usr/lib/ depending on how kmod was built.
    (tree / "lib").symlink_to("usr/lib")
    host_tools.run(["depmod", "-b", str(tree), release], "kmod")


def _write_boot_modules(modules: Path, result: Path) -> None:
    dep = (modules / "modules.dep").read_text()
    builtin = (modules / "modules.builtin").read_text()
    early = initramfs.module_order(CHECKSUM_MODULES, dep, builtin, required=False)
    early += [
        path for path in initramfs.module_order(AGENT_MODULES, dep, builtin) if path not in early
    ]
    late = [
        path
        for path in initramfs.module_order(SYSTEM_MODULES, dep, builtin, required=False)
        if path not in early
    ]
    files: dict[str, bytes] = {}
    for name, order in (("agent", early), ("system", late)):
        listed = [f"modules/{Path(path).name}" for path in order]
        files[f"modules/{name}.list"] = "".join(f"/{path}\n" for path in listed).encode()
        for path, place in zip(order, listed):
            files[place] = (modules / path).read_bytes()
    (result / "modules.cpio").write_bytes(initramfs.cpio(files))


def _one(directory: Path, patterns: Sequence[str]) -> Path:
    for pattern in patterns:
        found = sorted(directory.glob(pattern))
        if found:
            return found[0]
    raise SetupError(f"The kernel's packages have no {patterns[0]}: choose another kernel.")
