# SPDX-License-Identifier: GPL-2.0-only
"""Owns the guests of a run: opens a target per kernel and lends guests to one user at a time."""

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

_Key = Tuple[Optional[str], str]  # a kernel, and extra words on its command line


class Targets:
    """The targets of a run's kernels. As a context manager it ends all guests.

    Only `observer` and `lent` give access to guests. Both first finish other work and end guests of
    other kernels. A kernel that cannot be opened fails only its own cases.
    """

    def __init__(
        self, settings: Settings, kernels: Sequence[Optional[str]], progress: Progress
    ) -> None:
        """`settings` apply to all kernels. A kernel None is the default, or the running one."""
        self._settings, self._kernels, self._progress = settings, kernels, progress
        self._opened: Dict[_Key, Target] = {}
        self._failed: Dict[_Key, SetupError] = {}
        self._opening = threading.Lock()  # held while a target is opened
        self._untried: Iterator[Optional[str]] = iter(())
        self._observers: Dict[Optional[str], Observer] = {}
        self._held = ExitStack()  # resources that are closed at the end of the run

    def __enter__(self) -> "Targets":
        return self

    def __exit__(self, *error: object) -> None:
        self._held.close()

    @property
    def opened(self) -> List[Target]:
        """The open targets."""
        return list(self._opened.values())

    def open_first(self) -> None:
        """Make sure that there is a kernel to run on. Raises SetupError, UsageError."""
        for name in self._kernels:
            if name is not None:
                catalogue.find(name)  # report a wrong name before any kernel is fetched
        build.clang()
        self._untried = iter(self._kernels)
        if not any(self._is_there(name) for name in self._untried):
            failed = list(self._failed.values())
            alone = SetupError("None of the kernels is to be had; what is said above mends it.")
            raise failed[0] if len(failed) == 1 else alone

    def open_others(self) -> threading.Thread:
        """Start a thread that opens the targets that `open_first` left. Return the thread."""
        untried = self._untried
        fetching = threading.Thread(
            target=lambda: [self._is_there(name) for name in untried], daemon=True
        )
        fetching.start()
        return fetching

    def _is_there(self, name: Optional[str]) -> bool:
        """Fetch a kernel and tell whether that succeeded."""
        try:
            self.target(name)
            return True
        except SetupError as error:
            if len(self._kernels) > 1:
                self._progress(f"kernel {name}: {error}")
            return False

    def target(self, name: Optional[str], also: str = "") -> Target:
        """Return the target of a kernel with the extra words `also` on its command line.

        Raises UsageError; SetupError, which is the same for each call.
        """
        key = name, also
        if key not in self._opened and key not in self._failed:
            with self._opening:  # another thread may be opening it
                if key not in self._opened and key not in self._failed:
                    self._open(key)
        if key in self._failed:
            raise self._failed[key].with_traceback(None)  # else the traceback grows each time
        return self._opened[key]

    def _open(self, key: _Key) -> None:
        """Open a target, or record the error. Raises UsageError."""
        name, also = key
        try:
            settings = replace(self._settings, kernel=name, also=also)
            self._opened[key] = choose.open_target(settings, self._progress)
            self._held.callback(self._opened[key].close)
        except SetupError as error:
            self._failed[key] = error
        except UsageError as error:  # only Debian's index can show that there is no such version
            if len(self._kernels) == 1:
                raise
            self._failed[key] = SetupError(str(error))

    def observer(self, name: Optional[str], scenarios: Sequence[Scenario]) -> Observer:
        """Return the observer of these scenarios on a kernel. Raises SetupError."""
        self._leave_others(name)
        if name not in self._observers:
            self._observers[name] = Observer(self.target(name), scenarios)
            self._held.callback(self._observers[name].abandon)
        return self._observers[name]

    @contextmanager
    def lent(self, name: Optional[str], words: str = "") -> Iterator[Start]:
        """Lend a kernel's guests to one test. Yields a function that starts sessions.

        A guest of QEMU is booted with `words` on its command line, in front of those that the test
        asks for. The sessions end with the test. Raises SetupError.
        """
        # This raises an error before the guests of other kernels are ended.
        always = words if self.target(name).name == "qemu" else ""
        self._leave_others(name)
        for observer in self._observers.values():
            observer.finish()
        with ExitStack() as sessions:

            def start(also: str) -> Tuple[Target, Session]:
                opened = self.target(name, f"{always} {also}".strip())
                return opened, sessions.enter_context(opened.session(warm=True))

            yield start

    def _leave_others(self, name: Optional[str]) -> None:
        """Finish the observations on other kernels, then end their guests.

        Each guest uses hundreds of MiB until then.
        """
        for other, observer in self._observers.items():
            if other != name:
                observer.finish()
        for (other, _), opened in list(self._opened.items()):  # a copy: a thread may add to it
            if other != name:
                opened.close()
