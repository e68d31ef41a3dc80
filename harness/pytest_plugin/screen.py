# SPDX-License-Identifier: GPL-2.0-only
"""Where a run is shown: on a terminal lines above a bar, else plain lines; and what workers say."""

from __future__ import annotations

import io
import os
import socket
import tempfile
import threading
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Callable, Iterator, Optional, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress as Bar, ProgressColumn, Task, TextColumn
from rich.text import Text

from harness.progress import Progress
from harness.reports.terminal import LOG_WIDTH

_LONGEST = 8192  # bytes of a line that a worker says


class Screen:
    """Shows lines the moment they are known; a context manager, at whose end the bar is gone.

    While a test runs, pytest keeps what is written to the standard output: this has a descriptor
    of its own.
    """

    def __init__(self, writer: Any) -> None:
        """`writer` is pytest's."""
        self._writer = writer
        file = _again(writer._file)
        self._file: TextIO = file or writer._file
        self._owns = file is not None
        self._live = bool(file and file.isatty())
        self.console = Console(
            file=self._file,
            width=None if self._live else LOG_WIDTH,
            force_terminal=writer.hasmarkup,
            no_color=not writer.hasmarkup,
            highlight=False,
        )
        self._bar: Optional[Bar] = None

    @property
    def width(self) -> int:
        """Columns of a line."""
        return self.console.width - self._live  # a terminal may wrap what fills its line

    def say(self, line: Text) -> None:
        """Show a line."""
        line.rstrip()
        if self._bar is None:
            self._writer.flush()
        self.console.print(line, soft_wrap=True)
        self._file.flush()

    def begin(self, total: int, position: str, time_left: Callable[[], str]) -> None:
        """Show a bar for so many cases where there is a terminal."""
        if self._live and self._bar is None and total > 1:
            self._writer.flush()
            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(None, complete_style="green"),
                _Left(time_left),
                console=self.console,
                transient=True,
                expand=True,
                refresh_per_second=2,  # the cores are the guests'
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._bar.add_task(position, total=total)
            self._bar.start()

    def go_on(self, ended: int, position: str) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=ended, description=position)

    @property
    def has_bar(self) -> bool:
        """Whether a bar is shown, above which lines must go."""
        return self._bar is not None

    def end(self) -> None:
        """Take the bar away; pytest may write as it likes again."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def close(self) -> None:
        """Let go of the terminal."""
        self.end()
        if self._owns:
            self._file.close()


class _Left(ProgressColumn):
    """The time left, which shrinks also while nothing ends."""

    max_refresh = 0.5

    def __init__(self, words: Callable[[], str]) -> None:
        super().__init__()
        self._words = words

    def render(self, task: Task) -> Text:
        return Text(self._words(), style="bright_black")


def _again(file: Any) -> Optional[TextIO]:
    """Return a file open once more, so that it stays what it is; None where it is none of the system's."""
    try:
        return os.fdopen(os.dup(file.fileno()), "w", encoding="utf-8", errors="replace")
    except (AttributeError, io.UnsupportedOperation, OSError):
        return None


@contextmanager
def heard(say: Progress) -> Iterator[Path]:
    """Give a socket's path; what workers say there, as by `saying`, is said here."""
    with tempfile.TemporaryDirectory(prefix="spinlock-") as place:
        path = Path(place) / "said"
        with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as ear:
            ear.bind(str(path))
            thread = threading.Thread(target=_hear, args=(ear, say), daemon=True)
            thread.start()
            try:
                yield path
            finally:
                with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as mouth:
                    mouth.sendto(b"", str(path))
                thread.join()


def _hear(ear: socket.socket, say: Progress) -> None:
    while True:
        words = ear.recv(_LONGEST)
        if not words:
            return
        say(words.decode(errors="replace"))


def saying(path: str) -> Progress:
    """Return what says a line in the process that listens at a path, while that is there."""

    def say(message: str) -> None:
        with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as mouth:
            try:
                mouth.sendto(message.encode()[:_LONGEST] or b" ", path)
            except OSError:  # the run has ended
                pass

    return say
