# SPDX-License-Identifier: GPL-2.0-only
"""Why a guest was lost: the kernel's doing, the emulator's, or somebody's outside. Pure."""

from __future__ import annotations

from typing import Any, Dict, Optional

from harness.judging import splat

Json = Dict[str, Any]

_CONSOLE_LINES = 400  # a panic shows every CPU's stack


class GuestLost(Exception):
    """The guest did not answer any more. `crashed`: the kernel's doing, shown by its console."""

    def __init__(self, reason: str, crashed: bool, console: str) -> None:
        super().__init__(reason)
        self.crashed = crashed
        self.console = console


class EmulatorFailed(GuestLost):
    """The emulator failed: nothing was asked of the kernel, so the case may be run once more."""

    def __init__(self, console: str) -> None:
        super().__init__(
            "the emulator failed at an instruction, which says nothing of the kernel: run it again",
            crashed=False,
            console=console,
        )


def why_lost(
    timed_out: bool, exit_reason: Optional[str], console: str, accelerator: str = ""
) -> GuestLost:
    """Tell from what is left of a guest why it is gone.

    A console that shows a splat convicts the kernel; so does a guest that stopped answering, or
    that rebooted by itself. A QEMU that was killed from outside is nobody's crash.
    """
    lines = console.splitlines()
    found = splat.find(lines)
    shown = lines[found.position :][:_CONSOLE_LINES] if found else lines[-_CONSOLE_LINES:]
    tail = "\n".join(shown)
    exit_reason = exit_reason or "still running"
    if accelerator == "tcg" and splat.is_emulators(console):
        return EmulatorFailed(tail)
    if timed_out and (found is None or "NMI: Not continuing" in found.line):
        # The NMI is the harness's own: it makes a silent guest print where its CPUs are.
        busy = splat.at_work(console)
        where = ", ".join(f"CPU {cpu} was in {place}" for cpu, place in (busy or {}).items())
        if busy is not None and not busy:
            where = "every CPU was idle, so something waits for what does not come"
        words = "the guest stopped answering without a word" + (f": {where}" if where else "")
        return GuestLost(words, crashed=True, console=tail)
    if found is not None:
        hang = " (it had stopped answering)" if timed_out else ""
        return GuestLost(f"{found.kind}: {found.line}{hang}", crashed=True, console=tail)
    if "QEMU was ended by SIG" in exit_reason:
        return GuestLost(f"the guest was killed from outside ({exit_reason})", False, tail)
    return GuestLost(f"the guest is gone ({exit_reason})", crashed=True, console=tail)
