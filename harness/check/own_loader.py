# SPDX-License-Identifier: GPL-2.0-only
"""The user's own loader as the judge: it is carried into the guest, run there, and believed.

It is good only if it has loaded something: by an exit code of 0, or by running on, as daemons do, with
its programs in the kernel.
"""

from __future__ import annotations

import base64
import os
import re
import shlex
import signal
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Iterator, List, Mapping, Sequence, Tuple

from packaging.version import Version

from harness.check import examine, refusal
from harness.check.classes import BY_NAME
from harness.check.examine import Json, OnKernel, Outcome
from harness.check.refusal import Refusal
from harness.errors import SetupError, UsageError
from harness.guest import calls
from harness.machines.loss import GuestLost
from harness.machines.session import AgentError
from harness.machines.target import Target
from harness.scenarios.versions import kernel_version

MOST_BYTES = 128 << 20  # of all files; a guest has 1 GiB of memory
SECONDS = 30.0
_MOST_NAMES = 6
_LOG = re.compile(
    r"-- BEGIN PROG LOAD LOG --\n(.*?)(?:^[^\n]*-- END PROG LOAD LOG --|\Z)", re.S | re.M
)
_PREFIX = re.compile(r"^libbpf: ", re.M)
_LIMIT_AFTER = 60.0  # seconds for carrying the files and for what comes after


@dataclass(frozen=True)
class Loader:
    """A command, and the files that it needs, by their paths below the current directory."""

    command: str
    files: Mapping[str, bytes]
    executable: Tuple[str, ...]
    seconds: float = SECONDS

    @property
    def name(self) -> str:
        """The name of what is run."""
        return Path(shlex.split(self.command)[0]).name

    @property
    def programs(self) -> Tuple[str, ...]:
        """What stands in the report where a file has its programs."""
        return (self.name,)


def open_loader(command: str, more: Sequence[Path], seconds: float) -> Loader:
    """Read what is to be carried: the files that a command names, and `more` files and directories.

    Raises UsageError for a command that is none, and for what cannot be read or carried.
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UsageError(f"--command {command!r}: {error}.") from None
    if not words:
        raise UsageError(
            "--command is empty: give a loader and its arguments, as in './loader a.o'."
        )
    if not 1 <= seconds <= 600:
        raise UsageError(f"--time-limit {seconds:g}: 1 to 600 seconds were expected.")
    first = Path(words[0])
    own = "/" in words[0] and not first.is_absolute()
    if own:
        examine.look(first)
        if not os.access(first, os.X_OK):
            raise UsageError(f"{first} cannot be run: chmod +x {shlex.quote(words[0])}")
    named = [Path(word) for word in words if not os.path.isabs(word) and os.path.isfile(word)]
    files: Dict[str, bytes] = {}
    executable = []
    for path in dict.fromkeys([*named, *_files(more)]):
        place = _place(path)
        files[place] = _read(path)
        if os.access(path, os.X_OK):
            executable.append(place)
    size = sum(map(len, files.values()))
    if size > MOST_BYTES:
        raise UsageError(
            f"The files are too large for a guest: {size >> 20} MiB, {MOST_BYTES >> 20} at most."
        )
    return Loader(command, files, tuple(executable), seconds)


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from (each for each in sorted(path.rglob("*")) if each.is_file())
        else:
            examine.look(path)
            yield path


def _place(path: Path) -> str:
    """Return where a file is put, below the directory in which the command runs."""
    place = os.path.normpath(path)
    if os.path.isabs(place) or place.startswith(".."):
        raise UsageError(
            f"{path} is not below this directory: call spinlock from a directory that holds all files,"
            " and name them from there."
        )
    return place


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"Cannot read {path} ({error.strerror}).") from None


def examine_loader(guests: Target, kernel: str, loader: Loader) -> OnKernel:
    """Run a loader on one kernel. Raises SetupError, also if the guest lacks a library of it."""
    facts: Json = {}
    packed = {n: base64.b64encode(zlib.compress(d, 1)).decode() for n, d in loader.files.items()}
    request = calls.RunLoader(loader.command, packed, loader.executable, loader.seconds)
    try:
        with guests.session() as session:
            facts = session.call(calls.Facts())
            ran = session.call(request, limit=loader.seconds + _LIMIT_AFTER)
        if ran["missing"]:
            raise SetupError(
                f"The guest, a Debian, lacks what {loader.name} needs ({'; '.join(ran['missing'])}): carry"
                " it by --with, into the directory of the command, or link it statically."
            )
        release = kernel_version(str(facts["release"]), str(facts.get("version") or ""))
        outcome = judge(ran, release, loader.seconds)
    except GuestLost as lost:
        why = refusal.crashed(str(lost)) if lost.crashed else Refusal("other", str(lost))
        outcome = Outcome(why, log=lost.console)
    except AgentError as error:
        outcome = Outcome(Refusal("other", str(error).strip().splitlines()[-1]))
    told = str(facts.get("release", "unknown"))
    return OnKernel(kernel, told, {loader.name: outcome}, banner=str(facts.get("version") or ""))


def judge(ran: calls.LoaderRan, release: Version, limit: float) -> Outcome:
    """Say what a loader's end means. Pure."""
    output, warning = ran["output"], examine.complaint(ran["kernel_log"])
    how = _ended(ran, limit)
    counted = f"{ran['loaded']} program{'s' * (ran['loaded'] != 1)}"
    if ran["left"] and ran["status"] in (0, None):
        names = ", ".join(ran["left"][:_MOST_NAMES])
        more = len(ran["left"]) - _MOST_NAMES
        told = f"{how}, with programs in the kernel: {names}{f' and {more} more' * (more > 0)}"
    elif ran["status"] == 0 and ran["loaded"] > 0:
        told = f"{how}; the kernel took {counted} meanwhile, probes of libraries among them"
    elif ran["status"] in (0, None):
        line = f"{how}; the kernel took {counted} meanwhile, and none is left"
        why = _plain("loader-idle", line)
        return Outcome(why, warning, output, ran["seconds"], told=how)
    else:
        why = _refused(output, how, release)
        return Outcome(why, warning, output, ran["seconds"], told=how)
    return Outcome(None, warning, output, ran["seconds"], told=told)


def _ended(ran: calls.LoaderRan, limit: float) -> str:
    status = ran["status"]
    if status is None:
        return f"it still ran after {limit:g} s"
    if status > 128 and status - 128 in list(signal.Signals):  # as the shell says it
        status = 128 - status
    if status < 0:
        return f"it was ended by {signal.Signals(-status).name}"
    return f"it ended with exit code {status}"


def _refused(output: str, how: str, release: Version) -> Refusal:
    """Explain a loader's failure by the verifier's log among its words, else by its last words."""
    text = _PREFIX.sub("", output)
    logs: List[str] = _LOG.findall(text)
    seen = {"stage": "load", "errno": "", "log": logs[-1] if logs else text, "messages": ()}
    why = refusal.explain(seen, {"btf": None, "maps": {}}, release, None, {})
    if why.name != "other":
        return why
    last = next((line for line in reversed(text.splitlines()) if line.strip()), "it said nothing")
    return _plain("loader", why.line if logs else f"{how}: {last.strip()}")


def _plain(name: str, line: str) -> Refusal:
    return Refusal(name, line, advice=BY_NAME[name].advice)
