# SPDX-License-Identifier: GPL-2.0-only
"""What is known of a refusal beside its text: what the program does there, and so what to change.

Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import FrozenSet, Iterator, List, Mapping, Optional

from harness.check.linked import Linked
from harness.provision import elf

_ATOMIC = (0xC3, 0xDB)
_FETCH, _ACQUIRE, _RELEASE = 1, 0x100, 0x110
_TRACING = ("fentry", "fexit", "fmod_ret", "tp_btf", "iter")
_IMPL = "_impl"
_NO_BTF_TYPE = "has to have BTF in order to use bpf_"


def other_name(name: str) -> str:
    """Return what later or earlier kernels call a kernel function: with _impl, or without."""
    return name[: -len(_IMPL)] if name.endswith(_IMPL) else name + _IMPL


@dataclass(frozen=True)
class Circumstances:
    """Where a program was refused, and what the object says of that place."""

    line: str  # the telling one
    code: str = ""  # the instruction, as the log shows it
    log: str = ""
    insn: Optional[int] = None
    linked: Optional[Linked] = None  # None: no object, or one that cannot be read
    maps: Mapping[str, elf.Map] = field(default_factory=dict)
    known: Mapping[str, bool] = field(default_factory=dict)  # names that the kernel has or not

    # -- what the rule book is asked by -------------------------------------------------------------

    def traits(self) -> FrozenSet[str]:
        """Return what else is so, in the words of since.EXAMPLES."""
        return frozenset([*self._of_call(), *self._of_kind(), *self._of_place(), *self._of_insn()])

    def _of_call(self) -> Iterator[str]:
        if "bpf_for_each_map_elem" in self.log:
            yield "for_each"
        if "bpf_timer_set_callback" in self.log:
            yield "timer"
        if self.linked is None:
            return
        place = self.linked.place(self.insn)
        if place is not None and place[0] is not self.linked.main and not place[0].is_global:
            yield "in static"
        if self.called_function and not self.linked.why_not_under_lock(self.called_function):
            yield "plain static"

    def _of_kind(self) -> Iterator[str]:
        kind = self.section.split("/")[0].split(".")[0]
        if kind in _TRACING:
            yield "tracing"
        if kind == "lsm":
            yield "lsm"
        if {lock.lock for m in self.used for lock in m.locks} == {"bpf_res_spin_lock"}:
            yield "res lock only"

    def _of_place(self) -> Iterator[str]:
        named = self.named_map or ""
        own = [m for m in self.used if not named or m.name.startswith(named)]
        nested = [m for m in own if len(m.locks) == 1 and "." in m.locks[0].name]
        in_section = [m for m in own if m.locks and re.search(r"\.(bss|data)", m.name)]
        if in_section or re.search(r"\.(bss|data)", named):
            yield "global nested" if any(m in nested for m in in_section) else "global"
        elif nested:
            yield "nested"
        if any(len({"." in lock.name for lock in m.locks}) == 2 for m in own):
            yield "one above"

    def _of_insn(self) -> Iterator[str]:
        if self.linked is None:
            return
        at = self.linked.insn(self.insn)
        every = [insn for part in self.linked.parts for insn in part.insns]
        # Old kernels look for unknown ones before they walk, and do not say where.
        found = {insn.imm for insn in ([at] if at is not None else every) if insn.code in _ATOMIC}
        if found & {_ACQUIRE, _RELEASE}:
            yield "acquire"
        elif any(imm & _FETCH for imm in found):
            yield "fetch"

    # -- the parts ---------------------------------------------------------------------------------

    @property
    def section(self) -> str:
        """The program's SEC(), "" if it is not known."""
        return self.linked.main.section if self.linked is not None else ""

    @property
    def named_map(self) -> Optional[str]:
        """The map that the text names; the kernel cuts names off."""
        found = re.search(r"map '([^']+)'", self.line)
        return found.group(1) if found else None

    @property
    def used(self) -> List[elf.Map]:
        """The maps that the program names, or all, if that is not known."""
        if self.linked is None:
            return list(self.maps.values())
        names = self.linked.maps()
        return [m for name, m in self.maps.items() if name in names]

    @property
    def called_function(self) -> str:
        """The function of the object that is called there, "" if none is."""
        target = self.linked.target(self.insn) if self.linked is not None else None
        return target.name if target is not None and target.kind == "function" else ""

    @property
    def called_extern(self) -> str:
        """The kernel function that is called there, "" if none is."""
        target = self.linked.target(self.insn) if self.linked is not None else None
        if target is not None and target.kind == "extern":
            return target.name
        found = re.search(r"(?:kfunc|extern \((?:func|var) ksym\)) '(\w+)'", self.line)
        return found.group(1) if found else ""

    @property
    def never_locks(self) -> bool:
        """Tell whether the program is known to take no lock."""
        return self.linked is not None and not self.linked.lock_kinds

    # -- what to change ----------------------------------------------------------------------------

    def advice(self, of: str) -> str:
        """Return advice for this program, "" where that of the class says all."""
        method = {
            "call-under-lock": self._of_call_under_lock,
            "program-type": self._of_program_type,
            "helper-missing": self._of_missing_helper,
            "unlock-without-lock": self._of_unlock,
            "lock-place": self._of_lock_place,
            "map-type": self._of_map,
            "no-btf": self._of_no_btf,
            "inner-map": self._of_unused_map,
            "map-unknown": self._of_unused_map,
            "kernel-function": self._of_kernel_function,
            "btf-refused": self._of_btf,
        }.get(of)
        return method() if method is not None else ""

    def _of_call_under_lock(self) -> str:
        if "bpf_tail_call" in self.code:
            return "Unlock, then make the tail call: it never comes back to the unlock."
        if "bpf_iter_num_" in self.code:
            return "Write the loop as a plain `for` with a constant bound: it calls nothing."
        if self.line.startswith("global function") or "global function calls" in self.log:
            return "Make the function static: static functions may run under the lock since v6.9."
        if not re.search(r"call pc", self.code):
            return ""
        name = self.called_function
        reason = self.linked.why_not_under_lock(name) if self.linked is not None and name else ""
        if reason == f"the global function {name}()":
            return (
                f"Make {name}() static, and __always_inline for kernels before v6.9: a global function is"
                " verified by itself, where no lock is held."
            )
        if reason:
            return (
                f"Keep {reason} out of the section: static functions without calls may be called"
                " under the lock since v6.9, inlined ones always; this one would be refused still."
            )
        return "Make the function __always_inline; since v6.9 a static one may be called."

    def _of_program_type(self) -> str:
        if "unknown func" in self.line:
            return ""
        subject = "The program takes no lock: it is the map that it may not even look up. Give it a"
        split = (
            f"{subject} map without a lock for the fields that it needs" if self.never_locks else ""
        )
        if "socket filter" in self.line:
            other = "move the program to another type (tc, XDP, cgroup)"
        else:
            other = "lock in a program of another type (tc, XDP, cgroup, LSM)"
        start = f"{split}, or {other}" if split else f"{other[0].upper()}{other[1:]}"
        text = f"{start}, or use atomic operations or a per-CPU map here."
        if not split:
            text += " Moving calls out of the section does not help."
        if "socket filter" in self.line:
            return text
        return (
            f"{text} v7.3 lets tracing programs take bpf_res_spin_lock(). fentry and tp_btf may lock"
            " since v5.15, but an NMI can then wait for itself: later kernels mean to refuse it there."
        )

    def _of_missing_helper(self) -> str:
        if "func_info" in self.line:
            return (
                "Do without callbacks (bpf_for_each_map_elem(), bpf_loop(), timers): v5.13 has the"
                " first."
            )
        return ""

    def _of_unlock(self) -> str:
        if not {"for_each", "timer"} & self.traits():
            return ""
        return (
            "Look the element up by its key in the callback: before v6.2 the lock of the value that"
            " a callback is given is not tracked."
        )

    def _of_lock_place(self) -> str:
        if "nested" in self.traits():
            return "Move the lock to the top level of the value; since v6.11 it may be nested."
        if any(len(m.locks) > 1 for m in self.used if m.name.startswith(self.named_map or "?")):
            return (
                "Put one lock at the top level of the value, for all of it: locks in inner structures are"
                " not seen here, and two in one value are refused by every kernel that sees them."
            )
        return ""

    def _of_map(self) -> str:
        if not self.never_locks:
            return ""
        return (
            "The program takes no lock: leave the lock out of the value of this map, or use a type of"
            " map that holds one."
        )

    def _of_unused_map(self) -> str:
        name = self.named_map
        if self.linked is None or not name or any(m.startswith(name) for m in self.linked.maps()):
            return ""
        return (
            f"The program does not use the map {name!r}, but libbpf makes all maps of an object: leave"
            " this one out on such kernels (bpf_map__set_autocreate()), or put it into another object."
        )

    def _of_kernel_function(self) -> str:
        name = self.called_extern
        other = other_name(name) if name else ""
        if not self.known.get(other):
            return ""
        return (
            f"This kernel calls it {other}(): declare both __weak, and choose by"
            f" `if (bpf_ksym_exists({other}))`."
        )

    def _of_btf(self) -> str:
        if "a bitfield" in self.line:
            return (
                "Make the bitfields of the struct with the lock one whole integer, whose bits you set by"
                " masks, or move them into another map's value."
            )
        if "the type tag" in self.line:
            return (
                "Leave the tag out of the struct with the lock; it comes from a macro, such as __user or"
                " __rcu, of a header."
            )
        return ""

    def _of_no_btf(self) -> str:
        found = re.search(_NO_BTF_TYPE + r"(timer|wq|task_work)", self.line)
        if not found:
            return ""
        return (
            'Declare the map in SEC(".maps") with __type(key, …) and __type(value, …), a struct that'
            f" has the struct bpf_{found.group(1)}, and compile with -g."
        )
