# SPDX-License-Identifier: GPL-2.0-only
"""A map by its fd."""

from __future__ import annotations

import ctypes as ct
import errno
import mmap
from typing import Any, Iterator, List, Optional, Tuple

from harness.guest import bindings, system, uapi

PER_CPU = (
    uapi.BPF_MAP_TYPE_PERCPU_HASH,
    uapi.BPF_MAP_TYPE_PERCPU_ARRAY,
    uapi.BPF_MAP_TYPE_LRU_PERCPU_HASH,
    uapi.BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE,
)
_MANY = 1 << 12  # elements


class Map:
    """A map by its fd: element access with every flag, values as the kernel copies them."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        info = bindings.MapInfo()
        size = bindings.U32(ct.sizeof(info))
        bindings.check(bindings.bpf_obj_get_info_by_fd(fd, ct.byref(info), ct.byref(size)))
        self.type: int = info.type
        self.key_size: int = info.key_size
        self.entries: int = info.max_entries
        self.flags: int = info.map_flags
        self.value_size: int = info.value_size
        if self.type in PER_CPU:
            self.value_size = (info.value_size + 7) // 8 * 8 * system.possible_cpus()

    def update(self, key: bytes, value: bytes, flags: int = 0) -> None:
        """Write one element."""
        bindings.check(bindings.bpf_map_update_elem(self.fd, key, value, flags))

    def lookup(self, key: bytes, flags: int = 0, fill: int = 0) -> bytes:
        """Read one element into a buffer that was filled with the byte `fill`."""
        return self._read(bindings.bpf_map_lookup_elem_flags, key, flags, fill)

    def lookup_and_delete(self, key: bytes, flags: int = 0, fill: int = 0) -> bytes:
        """Read and remove one element."""
        return self._read(bindings.bpf_map_lookup_and_delete_elem_flags, key, flags, fill)

    def _read(self, function: Any, key: bytes, flags: int, fill: int) -> bytes:
        buffer = ct.create_string_buffer(bytes([fill]) * self.value_size, self.value_size)
        bindings.check(function(self.fd, key, buffer, flags))
        return buffer.raw

    def delete(self, key: bytes, flags: int = 0) -> None:
        """Remove one element."""
        bindings.check(bindings.bpf_map_delete_elem_flags(self.fd, key, flags))

    def freeze(self) -> None:
        """Let user space write to it no more."""
        bindings.check(bindings.bpf_map_freeze(self.fd))

    def keys(self) -> Iterator[bytes]:
        """Yield the keys."""
        key: Optional[bytes] = None
        while True:
            buffer = ct.create_string_buffer(self.key_size)
            result = bindings.bpf_map_get_next_key(self.fd, key, buffer)
            if result == -errno.ENOENT:
                return
            bindings.check(result)
            key = buffer.raw
            yield key

    def read_batch(self, name: str, flags: int = 0, fill: int = 0) -> List[Tuple[bytes, bytes]]:
        """Read all elements by "lookup_batch" or "lookup_and_delete_batch"."""
        count = bindings.U32(self.entries)
        keys = ct.create_string_buffer(self.key_size * self.entries)
        size = self.value_size * self.entries
        values = ct.create_string_buffer(bytes([fill]) * size, size)
        cursor = ct.create_string_buffer(max(self.key_size, 8))
        opts = bindings.BatchOpts(sz=ct.sizeof(bindings.BatchOpts), elem_flags=flags)
        function = bindings.BATCH_READS[name]
        result = function(
            self.fd,
            None,
            cursor,
            keys,
            values,
            ct.byref(count),
            ct.cast(ct.byref(opts), bindings.VOIDP),
        )
        if result != -errno.ENOENT:  # ENOENT: the end of the map was reached
            bindings.check(result)
        return [
            (
                keys.raw[i * self.key_size : (i + 1) * self.key_size],
                values.raw[i * self.value_size : (i + 1) * self.value_size],
            )
            for i in range(count.value)
        ]

    def update_batch(self, elements: List[Tuple[bytes, bytes]], flags: int = 0) -> None:
        """Write elements by one call."""
        count = bindings.U32(len(elements))
        opts = bindings.BatchOpts(sz=ct.sizeof(bindings.BatchOpts), elem_flags=flags)
        keys, values = b"".join(k for k, _ in elements), b"".join(v for _, v in elements)
        bindings.check(
            bindings.bpf_map_update_batch(self.fd, keys, values, ct.byref(count), ct.byref(opts))
        )

    def delete_batch(self, keys: List[bytes], flags: int = 0) -> None:
        """Remove elements by one call."""
        count = bindings.U32(len(keys))
        opts = bindings.BatchOpts(sz=ct.sizeof(bindings.BatchOpts), elem_flags=flags)
        bindings.check(
            bindings.bpf_map_delete_batch(self.fd, b"".join(keys), ct.byref(count), ct.byref(opts))
        )

    def total(self, key: bytes = b"\0\0\0\0") -> int:
        """Return the sum, over all CPUs, of the first eight bytes of a per-CPU array's element."""
        value = self.lookup(key)
        size = self.value_size // system.possible_cpus()
        return sum(
            int.from_bytes(value[at : at + 8], "little") for at in range(0, self.value_size, size)
        )

    def reset(self) -> None:
        """Bring a hash or an array back to its state at creation."""
        if self.flags & uapi.BPF_F_MMAPABLE and self.entries >= _MANY:  # one by one takes minutes
            size = self.entries * ((self.value_size + 7) // 8 * 8)
            with mmap.mmap(self.fd, size) as memory:
                memory.write(bytes(size))
            return
        for key in list(self.keys()):
            try:
                self.delete(key)
            except OSError as error:
                if error.errno == errno.ENOENT:  # an array of programs names its empty slots, too
                    continue
                if error.errno != errno.EINVAL:  # elements of an array cannot be deleted
                    raise
                self.update(key, bytes(self.value_size))
