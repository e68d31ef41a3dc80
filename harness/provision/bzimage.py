# SPDX-License-Identifier: GPL-2.0-only
"""Reads a bzImage: the kernel in it, its release, and whether it has a PVH entry."""

from __future__ import annotations

import gzip
import io
import lzma
import re
import struct
import zlib

from harness.errors import SetupError
from harness.provision import host_tools


def has_pvh_entry(vmlinux: bytes) -> bool:
    """Tell whether an ELF kernel has a PVH entry for QEMU (Xen's note of type 18)."""
    pattern = rb"\x04\0\0\0[\x04\x08]\0\0\0\x12\0\0\0Xen\0"
    return re.search(pattern, vmlinux) is not None


def release_of(bzimage: bytes) -> str:
    """Return the release in a bzImage's header; "" if it has none."""
    # Documentation/arch/x86/boot.rst: kernel_version, an offset less 0x200
    (offset,) = struct.unpack_from("<H", bzimage, 0x20E)
    if not offset:
        return ""
    start = offset + 0x200
    return bzimage[start : start + 128].split(b"\0")[0].split(b" ")[0].decode(errors="replace")


def vmlinux(bzimage: bytes, what: str = "The kernel image") -> bytes:
    """Return the uncompressed ELF kernel inside a bzImage.

    Raises SetupError if it is no bzImage or damaged. `what` is the name of the file in the error.
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
    # The kernel appends the uncompressed size. Decompressors would reject it as a broken frame.
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


def _payload_size(payload: bytes) -> int:
    size: int = struct.unpack("<I", payload[-4:])[0]
    return size


def _filter(command: list[str], data: bytes, package: str, what: str) -> bytes:
    try:
        return host_tools.run(command, package, data)
    except host_tools.ToolFailed:
        raise SetupError(
            f"{what} is damaged ({command[0]} cannot decompress it): get it again."
        ) from None
