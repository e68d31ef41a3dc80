# SPDX-License-Identifier: GPL-2.0-only
"""Puts an Observation into words. No other module does. Pure."""

from __future__ import annotations

from harness.judging.verdict import Observation


def in_words(seen: Observation, errno: bool = True, text: bool = True, retval: bool = True) -> str:
    """Return the outcome of a case in one line.

    `errno`, `text` (the line of the log with the reason) and `retval` select the parts to include.
    """
    if seen.lost is not None:
        return seen.lost
    if seen.missing:
        return f"not asked: the kernel lacks {', '.join(seen.missing)}"
    if seen.stage is None:
        return "loaded" if seen.retval is None or not retval else f"loaded, returned {seen.retval}"
    number = seen.errno if errno else None
    words = (telling_line(seen.log) or seen.detail) if text else ""
    said = " ".join(part for part in (number, words) if part)
    return f"refused at {seen.stage}{': ' + said if said else ''}"


def telling_line(log: str) -> str:
    """Return the line of a verifier log with the reason of the refusal; "" for an empty log.

    It is the last line that is not statistics. Since v7.3 a long explanation follows it.
    """
    lines = [line.strip() for line in log.split("Verification failed:")[0].splitlines()]
    noise = (
        "processed ",
        "verification time",
        "stack depth",
        "max_states",
        "insns (limit",
        "=====",
    )
    telling = [line for line in lines if line and not line.startswith(noise)]
    return telling[-1] if telling else ""
