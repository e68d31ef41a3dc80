# SPDX-License-Identifier: GPL-2.0-only
"""The records that every package shares: Observation and Verdict. Pure."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any, Mapping, Optional, Tuple


class Kind(str, enum.Enum):
    """The outcome of a case, the worst first."""

    CRASH = "CRASH"  # the kernel panicked, hung or complained in its log
    ERROR = "ERROR"  # the check could not run
    FAIL = "FAIL"  # the kernel did not behave as expected
    INCONCLUSIVE = "INCONCLUSIVE"  # the check ran but had no power to fail
    KNOWN = "KNOWN"  # the kernel showed a bug that is on record
    SKIP = "SKIP"  # the case does not apply to this kernel
    PASS = "PASS"


@dataclass(frozen=True)
class Verdict:
    """An outcome, its reason in one sentence, and the lines that show it."""

    kind: Kind
    reason: str
    evidence: Tuple[str, ...] = ()


@dataclass(frozen=True)
class Observation:
    """The facts that the guest reported of one case. The defaults are those of a lost case."""

    stage: Optional[str] = "lost"  # where it was refused; None: loaded, and run if requested
    errno: Optional[str] = None
    log: str = ""  # the verifier's
    detail: str = ""  # the output of the compiler or loader
    retval: Optional[int] = None
    missing: Tuple[str, ...] = ()  # names that the case needs and the kernel's BTF lacks
    built: str = ""  # where bcc built it, in words; "" for what the host's compiler built
    bare: Optional[bool] = None  # whether an empty program of the same type loads; None: not tried
    kernel_log: Optional[Tuple[str, ...]] = None  # None: unreadable
    stuck: Tuple[int, ...] = ()  # CPUs that no longer scheduled tasks after the case
    lost: Optional[str] = None  # why the guest was lost during this case
    lost_is_crash: bool = False  # the kernel lost the guest, not the harness or the user
    emulator_failed: bool = False  # an emulator bug lost the guest: no evidence on the kernel
    console: str = ""  # the end of the lost guest's console
    measurements: Optional[Mapping[str, Any]] = None  # a run-time test's; None: a scenario's case

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> "Observation":
        """Make one from the JSON object that the guest sent."""
        lines = facts.get("kernel_log")
        log = None if lines is None else tuple(lines)
        return cls(**{**facts, "kernel_log": log, "stuck": tuple(facts.get("stuck", ()))})
