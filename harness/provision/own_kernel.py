# SPDX-License-Identifier: GPL-2.0-only
"""The user's own kernels: a bzImage or vmlinux file, or a build tree with one."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

from harness.errors import SetupError
from harness.progress import Progress
from harness.provision import bzimage, initramfs
from harness.provision.catalogue import Own


def image_file(path: Path) -> Path:
    """Return the bootable file of a build tree, or the file itself. Raises SetupError."""
    if os.path.isdir(path):
        found = path / "arch" / "x86" / "boot" / "bzImage"
        if not os.path.isfile(found):
            raise SetupError(
                f"{path} holds no arch/x86/boot/bzImage: give a built kernel tree (`make bzImage`)"
                " or a bzImage."
            )
        return found
    if not os.path.isfile(path):
        raise SetupError(f"There is no kernel at {path}: give a bzImage or a build tree.")
    return path


def read(path: Path) -> bytes:
    """Return the contents of the bootable file. Raises SetupError."""
    file = image_file(path)
    try:
        return file.read_bytes()
    except OSError as error:
        raise SetupError(
            f"The kernel {file} cannot be read ({error.strerror}): give one that can."
        ) from None


def prepare(row: Own, result: Path, progress: Progress) -> dict[str, Any]:
    """Write a kernel's files into `result`. Return its part of the manifest. Raises SetupError."""
    progress(f"kernel {row.name}: unpacking")
    image = read(row.path)
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
        if not bzimage.has_pvh_entry(elf):
            raise SetupError(
                f"{row.path} has no PVH entry: give the bzImage, or build with CONFIG_PVH."
            )
    else:
        elf, release = bzimage.vmlinux(image, str(row.path)), bzimage.release_of(image)
        (result / "bzimage").write_bytes(image)
    # QEMU boots a bzImage as well, only slower.
    (result / "vmlinux").write_bytes(elf if bzimage.has_pvh_entry(elf) else image)
    files = {"modules/agent.list": b"", "modules/system.list": b"", "modules/none": b""}
    (result / "modules.cpio").write_bytes(initramfs.cpio(files))
    return {"release": release, "package_version": "", "headers": "", "command_line": []}
