# SPDX-License-Identifier: GPL-2.0-only
"""QEMU guests as a target. Each session has its own guest, restored from a saved state."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, Mapping, Optional, Tuple, TypeVar

from harness.errors import SetupError
from harness.judging import jit
from harness.machines import host_cpus, qemu_guest
from harness.machines.loss import EmulatorFailed, GuestLost, why_lost
from harness.machines.native_bcc import NativeBcc
from harness.machines.qemu_command import Machine
from harness.machines.session import Session, Stream
from harness.machines.target import DEFAULT_KERNEL, Settings
from harness.progress import Progress
from harness.provision import build, bytecode, kernel_store, parts

Json = Dict[str, Any]

_DYING_SECONDS = 20.0  # limit for a panic to be printed and QEMU to end
_QUIET_SECONDS = 5.0  # a console without output for this long has printed all of its panic

_Seen = TypeVar("_Seen")  # of a CPU


class Qemu:
    """Guests on this machine, fresh ones restored from a saved state.

    An emulated guest is slow at code that its emulator has not translated yet: bcc's LLVM takes
    seconds longer. So the guest of a `warm` session is kept for the next warm session, until a case
    disturbs it.
    """

    name = "qemu"

    def __init__(self, settings: Settings, progress: Progress) -> None:
        self.cpus = settings.cpus
        self._settings, self._progress = settings, progress
        self.kernel = DEFAULT_KERNEL if settings.kernel is None else settings.kernel
        kernel_store.look(self.kernel)  # the cheapest check comes first
        qemu_guest.version()
        self._image, self._kernel = parts.ensure(self.kernel, progress)
        self._kept: Optional[Tuple[qemu_guest.Guest, Session]] = None
        self._unbootable: Optional[SetupError] = None
        self._description: Json = {}
        self._bcc = NativeBcc(self._image, self._kernel, progress)

    @contextmanager
    def session(self, warm: bool = False) -> Iterator[Session]:
        """See Target."""
        kept, self._kept = self._kept if warm else None, self._kept if not warm else None
        guest, session = kept or self._start()
        undisturbed = False
        try:
            yield session
            undisturbed = not session.disturbed
        finally:
            if warm and undisturbed:
                session.boot = {"kind": "kept", "seconds": 0.0}
                self._kept = guest, session
            else:
                guest.close()

    def _start(self) -> Tuple[qemu_guest.Guest, Session]:
        guest = self._boot()

        def lost(timed_out: bool) -> GuestLost:
            waiting: Mapping[int, str] = {}
            if timed_out and guest.alive():
                waiting = asked(lambda: {0: guest.queues()})
                guest.inject_nmi()  # unknown_nmi_panic prints where the CPUs are
            guest.wait_for_end(_DYING_SECONDS, _QUIET_SECONDS)
            end = guest.exit_reason()
            why = why_lost(timed_out, end, guest.console(), guest.accelerator, waiting.get(0, ""))
            if isinstance(why, EmulatorFailed):  # reported, since the case may silently run again
                self._progress(f"guest {guest.kernel}: the emulator failed at an instruction")
            return why

        def asked(look: Callable[[], Mapping[int, _Seen]]) -> Mapping[int, _Seen]:
            try:
                return look()
            except (EOFError, OSError, SetupError):  # QEMU has just ended: the stream reports it
                return {}

        with guest.closed_on_failure():
            fd = guest.channel.fileno()
            look, waited = partial(asked, guest.look), partial(asked, guest.waited)
            stream, carry = Stream(fd, fd), self._bcc.answer
            session = Session(stream, lost, guest.boot, look, waited, carry)
            if guest.accelerator == "tcg":
                session.debugged = guest.debugged
            return guest, session

    def _boot(self) -> qemu_guest.Guest:
        if self._unbootable is not None:
            raise self._unbootable.with_traceback(None)  # else the traceback grows each time
        settings = self._settings
        words = [settings.append, settings.also, "" if settings.jit else jit.OFF]
        append = " ".join(filter(None, words))
        if self._settings.bcc:
            self._bcc.prepare()
        try:
            with host_cpus.together():
                guest = qemu_guest.start(
                    self._kernel,
                    self._image,
                    Machine(self.cpus, settings.memory_mib, append),
                    agent=bytecode.agent(self._image, self._progress),
                    progress=self._progress,
                )
        except SetupError as error:
            if not self._description:  # it never booted, so no later case tries it again
                self._unbootable = error
            raise
        self._description = {"command": guest.command, "accelerator": guest.accelerator}
        return guest

    def describe(self) -> Json:
        """See Target."""
        return {
            "accelerator": qemu_guest.accelerator(self._kernel, self._progress),
            "image": self._image.versions,
            "image_digest": self._image.digest,
            "kernel_package": self._kernel.package_version,
            "kernel_digest": self._kernel.digest,
            "qemu": qemu_guest.version(),
            "agent": build.agent().stem,
            "append": self._settings.append,
            "also": self._settings.also,
            "jit_off": not self._settings.jit,
            "cpus": self.cpus,
            **self._description,
        }

    def headers(self) -> Path:
        """See Target."""
        return self._image.include

    def close(self) -> None:
        """See Target."""
        if self._kept is not None:
            self._kept[0].close()
            self._kept = None
        self._bcc.close()
