# SPDX-License-Identifier: GPL-2.0-only
"""The maps of programs loaded in a guest: elements by key, members of values by name."""

from __future__ import annotations

import base64
import zlib
from typing import Any, Callable, Iterator, List, Protocol, Sequence, Tuple

from harness.guest import calls
from harness.machines.session import CALL_SECONDS
from harness.provision import layout
from harness.provision.build import Source
from harness.provision.layout import Layout, Misfit, Value


class Caller(Protocol):
    """Anything that takes calls to the guest, such as a target's session."""

    def call(self, request: calls.Call[calls.Answer], *, limit: float = ...) -> calls.Answer:
        """Make a call of harness/guest/calls.py. `limit` is in seconds."""


class Map:
    """One map. Keys and values have the types of its definition.

    A key or value is a number, members by name, a sequence for an array, a Value, or bytes.
    Methods that call the guest raise KernelRefusal, AgentError, GuestLost. Misfit is raised for a
    key or value of the wrong type.
    """

    def __init__(self, session: Caller, name: str, types: layout.MapLayout) -> None:
        self._session, self.name, self._types = session, name, types

    @property
    def key(self) -> Layout:
        """The type of the keys."""
        return self._types.key

    @property
    def value(self) -> Layout:
        """The type of the values; in a per-CPU map, of the value of one CPU."""
        return self._types.value

    def __getitem__(self, key: Any) -> Any:
        """Return an element: a number or a Value; in a per-CPU map, a list with one per CPU."""
        return self.lookup(key)

    def __setitem__(self, key: Any, value: Any) -> None:
        """Write an element. Members that are not named become zero."""
        self.update(key, value)

    def lookup(self, key: Any, flags: int = 0, fill: int = 0) -> Any:
        """Return an element as [] does, read with flags and into a buffer filled with `fill`."""
        data = self.content(key, flags, fill)
        if self._types.per_cpu:
            return self.value.decode_each(data)
        return self.value.decode(data)

    def content(self, key: Any, flags: int = 0, fill: int = 0) -> bytes:
        """Return the bytes of an element."""
        wanted = self.key.encode(key).hex()
        return bytes.fromhex(self._session.call(calls.MapLookup(self.name, wanted, flags, fill)))

    def rows(self, key: Any, *paths: str) -> Iterator[Tuple[int, ...]]:
        """Yield a tuple of these members of an element; in a per-CPU map, one tuple per CPU."""
        return self.value.rows(self.content(key), *paths)

    def total(self, key: Any = 0) -> Any:
        """Return the sum of an element of a per-CPU map over all CPUs, per member."""
        return Value.total(self[key])

    def update(self, key: Any, value: Any, flags: int = 0) -> None:
        """Write an element as [] does, with flags."""
        if self._types.per_cpu:
            raise Misfit(
                f"an element of {self.name} has a value of each CPU: reset() makes all zero."
            )
        place, content = self.key.encode(key).hex(), self.value.encode(value).hex()
        self._session.call(calls.MapUpdate(self.name, place, content, flags))

    def reset(self) -> None:
        """Bring the map back to its state at creation."""
        self._session.call(calls.MapReset(self.name))

    def memory(
        self, pieces: Sequence[Tuple[int, int]], seconds: float, *paths: str
    ) -> List[Iterator[Tuple[int, ...]]]:
        """Return members of pieces of a map that is created with BPF_F_MMAPABLE.

        A piece is (first element, number of elements). `seconds` limits the call.
        """
        size = self.value.stride
        wanted = [(first * size, count * size) for first, count in pieces]
        packed = self._session.call(calls.MapMemory(self.name, wanted), limit=seconds)
        unpacked = (zlib.decompress(base64.b64decode(piece)) if piece else b"" for piece in packed)
        return [self.value.rows(piece, *paths) for piece in unpacked]


class Loaded:
    """Programs loaded in a session, with the types of their object."""

    def __init__(self, session: Caller, source: Source, build: Callable[[], bytes]) -> None:
        """`source` is the input of the loader. `build` compiles the same unit with clang."""
        self._session, self.source, self._build = session, source, build

    def call(
        self, request: calls.Call[calls.Answer], *, limit: float = CALL_SECONDS
    ) -> calls.Answer:
        """Make a call of harness/guest/calls.py. Raises as a session does."""
        return self._session.call(request, limit=limit)

    def map(self, name: str, value: str = "") -> Map:
        """Return a map of the programs. `value` names the C type of its values if BTF does not.

        Raises Misnamed, Malformed, CompileError.
        """
        types = layout.types(self._build())
        return Map(self._session, name, types.map(name, value))
