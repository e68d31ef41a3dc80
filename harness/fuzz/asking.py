# SPDX-License-Identifier: GPL-2.0-only
"""Asks the kernel of a session about batches of programs."""

from __future__ import annotations

import base64
from typing import Any, List, Mapping, Protocol, Sequence, Tuple

from harness.errors import SetupError
from harness.fuzz import ir, lower, oracle, pack, rules, world
from harness.fuzz.findings import Asked
from harness.guest import calls
from harness.guest.calls import Answer, Call
from harness.guest.uapi import errno_name
from harness.machines.session import KernelRefusal
from harness.scenarios.versions import covers, kernel_version

LOAD_SECONDS = 60.0  # without an answer to a batch: the kernel hangs
LOG_LEVEL = 1
_NO_ANSWER = (1, 12)  # EPERM and ENOMEM are no word of the verifier


class Caller(Protocol):
    """A session, or the guest of a run-time test."""

    def call(self, request: Call[Answer], *, limit: float = ...) -> Answer:
        """Make a call of harness/guest/calls.py."""


class Asker:
    """A session in which the maps of the programs exist."""

    def __init__(self, caller: Caller, facts: Mapping[str, Any]) -> None:
        """Make the maps. Raises SetupError if the kernel refuses one, GuestLost, AgentError."""
        self._caller, self._types = caller, world.types()
        self.release: str = facts["release"]
        self.version = kernel_version(facts["release"], facts.get("version") or "")
        self.clauses = rules.of(self.version)
        names = [name for name, kind in world.MAPS.items() if covers(kind.kernels, self.version)]
        request = calls.FuzzWorld(
            btf=base64.b64encode(self._types.data).decode(),
            btf_fd=world.BTF_FD,
            maps=world.map_calls(self._types, names),
        )
        try:
            refused = caller.call(request)
        except KernelRefusal as refusal:
            raise SetupError(
                f"Kernel {self.release} refuses the BTF of the programs' maps ({refusal}): programs"
                " cannot be asked about without."
            ) from None
        for name, number in zip(names, refused):
            if number:
                raise SetupError(
                    f"Kernel {self.release} refuses to create the map {name!r} with"
                    f" {errno_name(number)}, which programs need: run it on a kernel of the catalogue."
                )

    def load(self, programs: Sequence[ir.Program], log_level: int = 0) -> calls.FuzzLoaded:
        """Load programs, and return what the kernel said. Raises GuestLost, AgentError."""
        packed = pack.pack([lower.lower(program) for program in programs], self._types)
        request = calls.FuzzLoad(packed, world.BTF_FD, log_level)
        return self._caller.call(request, limit=LOAD_SECONDS)

    def judged(self, programs: Sequence[ir.Program]) -> List[Tuple[ir.Program, oracle.Verdict]]:
        """Return what this kernel must do with programs."""
        return [(program, oracle.judge(program, self.clauses)) for program in programs]


def answers(
    judged: Sequence[Tuple[ir.Program, oracle.Verdict]], loaded: calls.FuzzLoaded
) -> List[Asked]:
    """Return the kernel's answers to programs. Raises SetupError for what is no answer."""
    numbers = pack.errnos(loaded["errnos"])
    wrong = [number for number in numbers if number in _NO_ANSWER]
    if wrong:
        raise SetupError(
            f"The kernel answers {errno_name(wrong[0])} to programs, which is no word of its"
            " verifier: run it as root, in a guest with memory."
        )
    return [Asked(*pair, number) for pair, number in zip(judged, numbers)]
