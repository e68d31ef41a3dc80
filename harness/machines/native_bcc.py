# SPDX-License-Identifier: GPL-2.0-only
"""bcc outside the guest: its process on this machine, and the way between that and the guest's agent.

What passes is in guest/carried_bcc.py and guest/carried_calls.py. Where this machine cannot have such
a process, bcc does all of its work in the guest, and it is said why.
"""

from __future__ import annotations

import base64
import os
import platform
import signal
import subprocess
import tempfile
import threading
import zlib
from typing import IO, Any, Dict, List, Optional

from harness.errors import SetupError
from harness.machines.session import Gone, Stream
from harness.progress import Progress
from harness.provision import native_userland
from harness.provision.kernel_store import Kernel
from harness.provision.native_userland import Tree
from harness.provision.userland import Image

Json = Dict[str, Any]

START_SECONDS = 60.0  # for bcc to be imported
STEP_SECONDS = 120.0  # between two calls of bcc; a text takes it 0.3 s where nothing else runs
NOBODY = 65534
_ENDS = ("built", "refused", "beyond", "failed")  # what the last line about a text may be
_SYMBOLS = "/proc/kallsyms"  # bcc looks up in it which helpers there are


def command(tree: Tree, root: bool) -> List[str]:
    """Return the command that runs bcc with the tree as its root directory, as nobody."""
    # An ordinary user's nobody is that user, alone in a user namespace.
    who = [f"--setgid={NOBODY}", f"--setuid={NOBODY}"] if root else ["--map-root-user"]
    return [
        *("unshare", f"--root={tree.root}", *who),
        *("/usr/bin/env", "-i", "LC_ALL=C.UTF-8", "PYTHONDONTWRITEBYTECODE=1"),
        *(f"LD_PRELOAD={tree.shim}", "/usr/bin/python3", tree.agent, "compile", tree.shim),
    ]


class _Process:
    """bcc at work."""

    def __init__(self, tree: Tree) -> None:
        """Raises SetupError when this machine refuses it."""
        self.busy = False  # in the middle of a text
        self._messages: IO[bytes] = tempfile.TemporaryFile()
        try:
            self._process = subprocess.Popen(
                command(tree, os.geteuid() == 0),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._messages,
                cwd="/",
                start_new_session=True,  # Ctrl-C is for the harness, which ends this
            )
        except OSError as error:
            raise SetupError(f"{error.filename} cannot be run ({error.strerror})") from None
        assert self._process.stdin is not None and self._process.stdout is not None
        self._stream = Stream(self._process.stdout.fileno(), self._process.stdin.fileno())
        try:
            self._stream.receive(START_SECONDS)
        except Gone as gone:
            self.close()
            how = "it does not answer" if gone.timed_out else self._last_words()
            raise SetupError(f"bcc cannot run outside the guest ({how})") from None

    def ask(self, line: Json) -> Json:
        """Send a line and return the answer to it, which a process that fails has, too."""
        self.busy = True
        try:
            self._stream.send(line)
            answer = self._stream.receive(STEP_SECONDS)
            if any(end in answer for end in _ENDS):
                self._stream.receive(STEP_SECONDS)  # that the text's own process has ended
                self.busy = False
        except Gone as gone:
            self.close()
            words = "says nothing any more" if gone.timed_out else f"ended: {self._last_words()}"
            return {"failed": f"bcc's process outside the guest {words}"}
        if "ended" in answer:  # without a last line
            self.close()
            return {"failed": f"bcc's process outside the guest ended: status {answer['ended']}"}
        return answer

    def close(self) -> None:
        """End it, and what it has started."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    def _last_words(self) -> str:
        self._messages.seek(0)
        lines = self._messages.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"status {self._process.returncode}"


class NativeBcc:
    """bcc for the guests of one kernel; its process is started when the first text comes."""

    def __init__(self, image: Image, kernel: Kernel, progress: Progress) -> None:
        self._image, self._kernel, self._progress = image, kernel, progress
        self._process: Optional[_Process] = None
        self._tree: Optional[Tree] = None
        self._unable = self._why_not()  # why bcc is in the guest only, if it is
        self._begin: Json = {}  # the text that is worked on
        self._making: Optional[threading.Thread] = None

    def prepare(self) -> None:
        """Begin to make the tree, once: a guest boots meanwhile."""
        if not self._unable and self._making is None:
            self._making = threading.Thread(target=self._prepared)
            self._making.start()

    def _prepared(self) -> None:
        try:
            self._make_tree()
        except SetupError:
            pass  # the first text meets it again, and says it

    def why_inside(self) -> str:
        """Return why bcc works in the guest only; "" where its process starts on this machine."""
        try:
            if not self._unable:
                _Process(self._make_tree()).close()
        except SetupError as error:
            self._unable = str(error)
        return self._unable

    def answer(self, question: Json) -> Json:
        """Answer what the guest's agent asks, in the middle of a call."""
        try:
            if "begin" in question:
                self._begin = question["begin"]
                return self._begun()
            if "read" in question:
                self._keep_symbols(zlib.decompress(base64.b64decode(question["read"])))
                return self._begun()
            assert self._process is not None
            return self._process.ask(question)
        except SetupError as error:
            self._unable = str(error)
            self._progress(f"bcc: it works in the guest, which is slow, as {self._unable}")
            return {"beyond": self._unable}

    def close(self) -> None:
        """End bcc's process."""
        if self._making is not None:
            self._making.join()
        if self._process is not None:
            self._process.close()
            self._process = None

    def _why_not(self) -> str:
        if platform.machine() != "x86_64":
            return f"this machine is no x86-64 one but {platform.machine()}"
        if self._kernel.modules is None or not self._kernel.headers:
            return "this kernel has no headers"
        return ""

    def _begun(self) -> Json:
        """Begin with a text. Raises SetupError where this machine cannot do it."""
        if self._unable:
            return {"beyond": self._unable}
        if self._making is not None:
            self._making.join()
        tree = self._make_tree()
        if not tree.symbols.exists():
            return {"read": _SYMBOLS}
        if self._process is not None and self._process.busy:
            self.close()  # it failed, or the guest was lost in the middle of a text
        if self._process is None:
            self._process = _Process(tree)
        return self._process.ask(self._begin)

    def _make_tree(self) -> Tree:
        """Return the tree, made when it is missing. Raises SetupError."""
        if self._tree is None:
            self._tree = native_userland.ensure(self._image, self._kernel, self._progress)
        return self._tree

    def _keep_symbols(self, content: bytes) -> None:
        assert self._tree is not None
        try:
            native_userland.write(self._tree.symbols, content)
        except OSError as error:
            raise SetupError(f"{self._tree.symbols} cannot be written: {error.strerror}") from None
