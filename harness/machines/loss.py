# SPDX-License-Identifier: GPL-2.0-only
"""Finds out why a guest was lost: by its kernel, the emulator, or a signal from outside. Pure."""

from __future__ import annotations

from typing import Any, Dict, Optional

from harness.judging import splat

Json = Dict[str, Any]

_CONSOLE_LINES = 400  # enough for a panic, which shows the stack of every CPU


class GuestLost(Exception):
    """The guest does not answer. `crashed` says that its kernel is at fault; see `console`."""

    def __init__(self, reason: str, crashed: bool, console: str) -> None:
        super().__init__(reason)
        self.crashed = crashed
        self.console = console


class Silent(GuestLost):
    """The guest stopped answering, and its console shows no complaint of its kernel."""

    def __init__(self, reason: str, console: str) -> None:
        super().__init__(reason, crashed=True, console=console)


class EmulatorFailed(GuestLost):
    """The emulator failed, which is no evidence on the kernel. The case may run once more."""

    def __init__(self, console: str) -> None:
        super().__init__(
            "the emulator failed at an instruction, which says nothing of the kernel: run it again",
            crashed=False,
            console=console,
        )


def why_lost(
    timed_out: bool,
    exit_reason: Optional[str],
    console: str,
    accelerator: str = "",
    queues: str = "",
) -> GuestLost:
    """Return why a guest is gone, from its console and the exit reason of QEMU.

    `queues` says which of its CPUs waited for each other, if it is known.

    The kernel is at fault if the console shows a splat, or if the guest hung or rebooted by itself.
    A QEMU that was killed from outside is no crash.
    """
    lines = console.splitlines()
    found = splat.find(lines)
    shown = lines[found.position :][:_CONSOLE_LINES] if found else lines[-_CONSOLE_LINES:]
    tail = "\n".join(shown)
    exit_reason = exit_reason or "still running"
    if accelerator == "tcg" and splat.is_emulators(console):
        return EmulatorFailed(tail)
    if timed_out and (found is None or "NMI: Not continuing" in found.line):
        # The harness itself sent the NMI: it makes a hung guest print the stacks of its CPUs.
        busy = splat.at_work(console)
        where = ", ".join(f"CPU {cpu} was in {place}" for cpu, place in (busy or {}).items())
        if busy is not None and not busy:
            where = "every CPU was idle, so a task waits for an event that does not come"
        where = "; ".join(filter(None, (where, queues)))
        words = "the guest stopped answering without a word" + (f": {where}" if where else "")
        return Silent(words, tail)
    if found is not None:
        hang = " (it had stopped answering)" if timed_out else ""
        return GuestLost(f"{found.kind}: {found.line}{hang}", crashed=True, console=tail)
    if "QEMU was ended by SIG" in exit_reason:
        return GuestLost(f"the guest was killed from outside ({exit_reason})", False, tail)
    return GuestLost(f"the guest is gone ({exit_reason})", crashed=True, console=tail)
