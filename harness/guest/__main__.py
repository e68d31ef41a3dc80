# SPDX-License-Identifier: GPL-2.0-only
"""The agent: `agent.pyz serve [PORT]` answers JSON lines from a host, each session in a new process.

Lines from the host            Lines to the host
                               {"hello": kernel release}, once, when it is ready
{"ping": n}                    {"pong": n}
{"lacking": true}              {"lacking": [option of the configuration that is missing, …]}
{"warm": true}                 {"warm": true}, when all that takes seconds is imported and done
{"session": {"now": seconds}}  {"session": "open"}, then, from a process of its own:
  {"call": name, "with": {…}}    events, and {"return": value}
                                 or {"raise": {"kind": …, "errno": …, "message": …, …}}
  {"close": true}
                               {"closed": how its process ended, in words}
"""

from __future__ import annotations

import json
import os
import platform
import signal
import sys
import time
import traceback
from typing import Any, BinaryIO, Dict, List, Optional, Tuple

from harness.guest.kmsg import KernelLog

_CLOCK_SKEW_SECONDS = 2.0
_HOST_AWAY_SECONDS = 0.01


def _send(port: BinaryIO, line: Dict[str, Any]) -> None:
    port.write(json.dumps(line).encode() + b"\n")
    port.flush()


def _session(source: BinaryIO, sink: BinaryIO) -> None:
    from harness.guest.libbpf import errno_name
    from harness.guest.loaders import Refused
    from harness.guest.session import Session

    session = Session(lambda event: _send(sink, event), source)
    _send(sink, {"session": "open"})  # the host waits for it, so nothing is read ahead of the fork
    while True:
        line = source.readline()
        if not line:
            return
        request = json.loads(line)
        if request.get("close"):
            return
        try:
            value = session.call(request)
        except Refused as refused:
            answer: Dict[str, Any] = {
                "raise": {"kind": "refused", "message": str(refused), **refused.facts()}
            }
        except OSError as error:
            name = errno_name(error.errno) if error.errno else None
            answer = {"raise": {"kind": "errno", "errno": name, "message": str(error)}}
        except (KeyError, TypeError, ValueError, AssertionError, AttributeError, IndexError):
            # Not an answer of the kernel: the host reports it as an ERROR of the harness.
            answer = {"raise": {"kind": "agent", "message": traceback.format_exc()}}
        else:
            answer = {"return": value}
        _send(sink, answer)


def _set_clock(now: float) -> None:
    """A restored guest still has the time at which it was saved."""
    if abs(time.time() - now) > _CLOCK_SKEW_SECONDS:
        try:
            time.clock_settime(time.CLOCK_REALTIME, now)
        except PermissionError:
            print("spinlock agent: not root, the clock stays as it is", file=sys.stderr)


def serve(source: BinaryIO, sink: BinaryIO, is_port: bool) -> None:
    """Answer requests until the host closes the stream; a port is never closed for good.

    Reading a virtio port while no host is connected gives an end of file at once, and so does
    poll(): there is nothing to wait on but time.
    """
    _send(sink, {"hello": platform.release()})
    while True:
        line = source.readline()
        if not line:
            if not is_port:
                return
            time.sleep(_HOST_AWAY_SECONDS)
            continue
        request = json.loads(line)
        if "lacking" in request:
            from harness.guest import facts, session  # noqa: F401  for the sessions to come

            _send(sink, {"lacking": facts.lacking()})
        elif "warm" in request:
            _warm()
            _send(sink, {"warm": True})
        elif "ping" in request:
            _send(sink, {"pong": request["ping"]})
        elif "session" in request:
            _set_clock(request["session"]["now"])
            log = _kernel_log()
            process, status = _in_a_child(source, sink)
            lines = _lines(log)
            _send(sink, {"closed": _ending(process, status, lines), "kernel_log": lines})


def _warm() -> None:
    """Import and do what takes seconds; a guest that is saved after this has it."""
    from harness.guest import drivers, facts

    facts.bcc_version()
    drivers.prepare()


def _kernel_log() -> Optional[KernelLog]:
    try:
        return KernelLog()
    except OSError:  # not root, or a kernel without: then only the status tells how a process ended
        return None


def _in_a_child(source: BinaryIO, sink: BinaryIO) -> Tuple[int, int]:
    """Hold one session in a process of its own; return its number and its exit status or -signal."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            _die_first()
            _session(source, sink)
            status = 0
        finally:
            os._exit(status)
    _, waited = os.waitpid(child, 0)
    return child, os.waitstatus_to_exitcode(waited)


def _die_first() -> None:
    """Let the kernel, if it runs out of memory, end the session before the agent, which tells of it."""
    try:
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write("500")
    except OSError:  # --target local may stand in a container that forbids it
        pass


def _lines(log: Optional[KernelLog]) -> List[str]:
    try:
        return log.read() if log is not None else []
    except OSError:  # it wrote more than was kept
        return []


def _ending(process: int, status: int, kernel_log: List[str]) -> str:
    """Say how a session's process ended."""
    if status >= 0:
        return f"status {status}"
    words = f"signal {-status}"
    if status == -signal.SIGKILL:
        killed = [line for line in kernel_log if f"Killed process {process} " in line]
        words += f": {killed[0]}" if killed else ""
    return words


def main(arguments: List[str]) -> int:
    """Serve on a character device, or on standard input and output."""
    if len(arguments) == 2 and arguments[0] == "serve":
        port = os.open(arguments[1], os.O_RDWR)
        serve(os.fdopen(port, "rb"), os.fdopen(os.dup(port), "wb"), is_port=True)
        return 0
    if arguments == ["serve"]:
        sink = os.fdopen(os.dup(1), "wb")
        os.dup2(2, 1)  # a stray print must not corrupt the protocol
        serve(os.fdopen(os.dup(0), "rb"), sink, is_port=False)
        return 0
    print("usage: agent.pyz serve [PORT]", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
