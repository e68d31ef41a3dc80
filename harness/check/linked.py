# SPDX-License-Identifier: GPL-2.0-only
"""A program as libbpf hands it to the kernel: with the functions that it calls behind it. Pure."""

from __future__ import annotations

from typing import Iterator, List, Mapping, Optional, Set, Tuple

from harness.provision import elf

_CALL = 0x85
_HELPER = 0  # a call's source register, as against a function's or a kernel function's
_LOCK, _UNLOCK = 93, 94  # helpers
_UNDER_LOCK = ("bpf_list_", "bpf_rbtree_")  # kernel functions that every kernel takes there


class Linked:
    """A program and, in libbpf's order, each function that it calls or whose address it takes.

    The verifier's log counts the instructions of all of them together.
    """

    def __init__(self, functions: Mapping[str, elf.Function], main: str) -> None:
        self._functions = functions
        self.main = functions[main]
        self.parts: List[elf.Function] = []
        self._append(main)

    def _append(self, name: str) -> None:
        waiting = [name]
        seen: Set[str] = set()
        while waiting:  # the one that was found last comes first, as by recursion
            current = waiting.pop()
            if current in seen or current not in self._functions:
                continue
            seen.add(current)
            self.parts.append(self._functions[current])
            waiting += reversed(self.callees(current))

    def callees(self, name: str) -> List[str]:
        """Return the functions that a function names, in the order of its instructions."""
        targets = self._functions[name].targets if name in self._functions else {}
        named = [t.name for _, t in sorted(targets.items()) if t.kind == "function"]
        return list(dict.fromkeys(named))

    def place(self, insn: Optional[int]) -> Optional[Tuple[elf.Function, int]]:
        """Return (function, index in it) of an instruction, None outside of them."""
        if insn is None:
            return None
        for part in self.parts:
            if insn < len(part.insns):
                return part, insn
            insn -= len(part.insns)
        return None

    def line(self, insn: Optional[int]) -> Optional[Tuple[str, int]]:
        """Return where in the source an instruction stems from."""
        place = self.place(insn)
        return place[0].line(place[1]) if place is not None else None

    def target(self, insn: Optional[int]) -> Optional[elf.Target]:
        """Return what the linker put into an instruction."""
        place = self.place(insn)
        return place[0].targets.get(place[1]) if place is not None else None

    def insn(self, number: Optional[int]) -> Optional[elf.Insn]:
        """Return an instruction."""
        place = self.place(number)
        return place[0].insns[place[1]] if place is not None else None

    def _calls(self, part: elf.Function) -> Iterator[str]:
        """Yield what a function calls in the kernel: a helper by number, a kernel function by name."""
        for at, insn in enumerate(part.insns):
            target = part.targets.get(at)
            if insn.code == _CALL and insn.src == _HELPER:
                yield f"#{insn.imm}"
            elif insn.code == _CALL and target is not None and target.kind == "extern":
                yield target.name

    @property
    def lock_kinds(self) -> Set[str]:
        """The kinds of lock that it takes: "bpf_spin_lock", "bpf_res_spin_lock"."""
        called = {name for part in self.parts for name in self._calls(part)}
        kinds = {"bpf_spin_lock"} if f"#{_LOCK}" in called else set()
        if any(name.startswith("bpf_res_spin_lock") for name in called):
            kinds.add("bpf_res_spin_lock")
        return kinds

    def maps(self) -> Set[str]:
        """The maps, and sections of data, that it names."""
        targets = (target for part in self.parts for target in part.targets.values())
        return {target.name for target in targets if target.kind in ("map", "data")}

    def why_not_under_lock(self, name: str) -> str:
        """Return what a static function holds that no kernel takes under a lock, "" if nothing."""
        seen: Set[str] = set()
        waiting = [name]
        while waiting:
            current = waiting.pop()
            part = self._functions.get(current)
            if part is None or current in seen:
                continue
            seen.add(current)
            if part.is_global:
                return f"the global function {current}()"
            taken = (f"#{_UNLOCK}", *_UNDER_LOCK)
            bad = [called for called in self._calls(part) if not called.startswith(taken)]
            if bad:
                return f"a call in {current}()"
            waiting += self.callees(current)
        return ""
