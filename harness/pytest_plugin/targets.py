# SPDX-License-Identifier: GPL-2.0-only
"""The one owner of a run's guests: it opens a target per kernel, and lends guests to one at a time."""

from __future__ import annotations

import threading
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Dict, Iterator, List, Optional, Sequence, Tuple

from harness.errors import SetupError, UsageError
from harness.machines import choose
from harness.machines.session import Session
from harness.machines.target import Settings, Target
from harness.progress import Progress
from harness.provision import build, catalogue
from harness.running.driven import Start
from harness.running.observe import Observer
from harness.scenarios.scenario import Scenario

_Key = Tuple[Optional[str], str]  # a kernel, and what is also on its command line


class Targets:
    """The targets of a run's kernels; a context manager, at whose end no guest is left.

    Guests are had from `observer` and `lent` only: each sees to it that nothing else is under way
    and that other kernels' guests are gone. A kernel that is not to be had costs its own cases.
    """

    def __init__(
        self, settings: Settings, kernels: Sequence[Optional[str]], progress: Progress
    ) -> None:
        """`settings` hold for all; None among the kernels is the default, or what is running."""
        self._settings, self._kernels, self._progress = settings, kernels, progress
        self._opened: Dict[_Key, Target] = {}
        self._failed: Dict[_Key, SetupError] = {}
        self._opening = threading.Lock()  # of a target, by the tests or ahead of them
        self._untried: Iterator[Optional[str]] = iter(())
        self._observers: Dict[Optional[str], Observer] = {}
        self._held = ExitStack()  # what ends with the run, the last first

    def __enter__(self) -> "Targets":
        return self

    def __exit__(self, *error: object) -> None:
        self._held.close()

    @property
    def opened(self) -> List[Target]:
        """Those that are open."""
        return list(self._opened.values())

    def open_first(self) -> None:
        """Make sure that there is a kernel to run on. Raises SetupError, UsageError."""
        for name in self._kernels:
            if name is not None:
                catalogue.find(name)  # a name that is none is said before anything is fetched
        build.clang()
        self._untried = iter(self._kernels)
        if not any(self._is_there(name) for name in self._untried):
            failed = list(self._failed.values())
            alone = SetupError("None of the kernels is to be had; what is said above mends it.")
            raise failed[0] if len(failed) == 1 else alone

    def open_others(self) -> threading.Thread:
        """Begin to open what `open_first` left, and return the thread that does."""
        untried = self._untried
        fetching = threading.Thread(
            target=lambda: [self._is_there(name) for name in untried], daemon=True
        )
        fetching.start()
        return fetching

    def _is_there(self, name: Optional[str]) -> bool:
        """Tell whether a kernel is to be had, having fetched it."""
        try:
            self.target(name)
            return True
        except SetupError as error:
            if len(self._kernels) > 1:
                self._progress(f"kernel {name}: {error}")
            return False

    def target(self, name: Optional[str], also: str = "") -> Target:
        """Return the target with a kernel, whose guests boot with what is `also` on its command line.

        Raises SetupError, the same one every time; UsageError.
        """
        key = name, also
        if key not in self._opened and key not in self._failed:
            with self._opening:  # it may be on its way
                if key not in self._opened and key not in self._failed:
                    self._open(key)
        if key in self._failed:
            raise self._failed[key].with_traceback(None)  # it would grow each time
        return self._opened[key]

    def _open(self, key: _Key) -> None:
        """Make a target, or note why there is none. Raises UsageError."""
        name, also = key
        try:
            settings = replace(self._settings, kernel=name, also=also)
            self._opened[key] = choose.open_target(settings, self._progress)
            self._held.callback(self._opened[key].close)
        except SetupError as error:
            self._failed[key] = error
        except UsageError as error:  # no such version, which only Debian's index tells
            if len(self._kernels) == 1:
                raise
            self._failed[key] = SetupError(str(error))

    def observer(self, name: Optional[str], scenarios: Sequence[Scenario]) -> Observer:
        """Return what observes these scenarios on a kernel. Raises SetupError."""
        self._leave_others(name)
        if name not in self._observers:
            self._observers[name] = Observer(self.target(name), scenarios)
            self._held.callback(self._observers[name].abandon)
        return self._observers[name]

    @contextmanager
    def lent(self, name: Optional[str]) -> Iterator[Start]:
        """Lend a kernel's guests to one test: give what starts sessions, which end with the test.

        Raises SetupError.
        """
        self.target(name)  # before others are left: it may not be to be had
        self._leave_others(name)
        for observer in self._observers.values():
            observer.finish()
        with ExitStack() as sessions:

            def start(also: str) -> Tuple[Target, Session]:
                opened = self.target(name, also)
                return opened, sessions.enter_context(opened.session(warm=True))

            yield start

    def _leave_others(self, name: Optional[str]) -> None:
        """Let what is observed on other kernels come to its end, then let go of their guests.

        Each keeps hundreds of MiB until then.
        """
        for other, observer in self._observers.items():
            if other != name:
                observer.finish()
        for (other, _), opened in list(self._opened.items()):  # others are being opened
            if other != name:
                opened.close()
