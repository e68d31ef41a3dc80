# SPDX-License-Identifier: GPL-2.0-only
"""What was observed of a case, and what came of it: the two records that every room shares. Pure."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any, Mapping, Optional, Tuple


class Kind(str, enum.Enum):
    """How a case ended; the worst first."""

    CRASH = "CRASH"  # the kernel panicked, hung or complained in its log
    ERROR = "ERROR"  # the check could not run
    FAIL = "FAIL"  # the kernel did something else than it must
    INCONCLUSIVE = "INCONCLUSIVE"  # the check ran but had no power to fail
    KNOWN = "KNOWN"  # a bug of this kernel that is on record
    SKIP = "SKIP"  # the kernel's version says that the question does not arise
    PASS = "PASS"


@dataclass(frozen=True)
class Verdict:
    """A verdict, one sentence of reason, and the lines that show it."""

    kind: Kind
    reason: str
    evidence: Tuple[str, ...] = ()


@dataclass(frozen=True)
class Observation:
    """What the guest saw of one case. The defaults are those of a case that never came back."""

    stage: Optional[str] = "lost"  # where it was refused; None says loaded, and run where asked
    errno: Optional[str] = None
    log: str = ""  # the verifier's
    detail: str = ""  # the compiler's or the loader's words
    retval: Optional[int] = None
    missing: Tuple[str, ...] = ()  # names that the case needs and the kernel's BTF lacks
    built: str = ""  # where bcc built it, in words; "" for what the host's compiler built
    bare: Optional[bool] = None  # whether an empty program of the refused one's kind loads
    kernel_log: Optional[Tuple[str, ...]] = None  # None: unreadable
    stuck: Tuple[int, ...] = ()  # CPUs that ran nothing any more when the case had ended
    lost: Optional[str] = None  # why the guest was lost during this case
    lost_is_crash: bool = False  # the kernel's doing, not the harness's or the user's
    emulator_failed: bool = False  # the guest was lost to its emulator: the kernel was not asked
    console: str = ""  # the end of the lost guest's console
    measurements: Optional[Mapping[str, Any]] = None  # a run-time test's; None: a scenario's case

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> "Observation":
        """Make one of what the guest sent."""
        lines = facts.get("kernel_log")
        log = None if lines is None else tuple(lines)
        return cls(**{**facts, "kernel_log": log, "stuck": tuple(facts.get("stuck", ()))})
