# SPDX-License-Identifier: GPL-2.0-only
"""Makes the guest's initramfs: cpio archives, and modules in dependency order. Pure."""

from __future__ import annotations

from pathlib import Path
from typing import Mapping, Sequence

from harness.errors import SetupError


def module_order(
    wanted: Sequence[str], dep: str, builtin: str, *, required: bool = True
) -> list[str]:
    """Return the files of the modules `wanted`, dependencies first, as paths in modules.dep.

    `dep` and `builtin` are the texts of modules.dep and modules.builtin. Raises SetupError if a
    `required` module is in neither.
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

    Names are relative. Parent directories are added. Equal input gives equal output.
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
