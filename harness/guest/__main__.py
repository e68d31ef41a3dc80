# SPDX-License-Identifier: GPL-2.0-only
"""The agent: `agent.pyz serve [PORT]` answers JSON lines from a host, each session in a new process.

Lines from the host            Lines to the host
                               {"hello": kernel release}, once, when it is ready
{"ping": n}                    {"pong": n}
{"lacking": true}              {"lacking": [missing kernel configuration option, …]}
{"symbols": [name, …]}         {"symbols": {name: address in the kernel, …}}
{"warm": true}                 {"warm": true}, after all imports that are slow
{"session": {"now": seconds}}  {"session": "open"}, then, from a new process:
  {"call": name, "with": {…}}    events, and {"return": value}
                                 or {"raise": {"kind": …, "errno": …, "message": …, …}}
  {"close": true}
                               {"closed": how the session's process ended, in words}
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from typing import Any, BinaryIO, Dict, List, Optional, Tuple

from harness.guest.kmsg import KernelLog

_CLOCK_SKEW_SECONDS = 2.0
_HOST_AWAY_SECONDS = 0.01


def _send(port: BinaryIO, line: Dict[str, Any]) -> None:
    port.write(json.dumps(line).encode() + b"\n")
    port.flush()


def _session(source: BinaryIO, sink: BinaryIO) -> None:
    from harness.guest.carried_calls import CarryFailed
    from harness.guest.loaders import Refused
    from harness.guest.session import Session
    from harness.guest.uapi import errno_name

    session = Session(lambda event: _send(sink, event), source)
    # The host sends no call before this line, so the parent has buffered none before the fork.
    _send(sink, {"session": "open"})
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
        except CarryFailed as failed:
            answer = {"raise": {"kind": "agent", "message": str(failed)}}
        except (KeyError, TypeError, ValueError, AssertionError, AttributeError, IndexError):
            import traceback

            # A defect of the harness, not the kernel's answer: the host reports an ERROR.
            answer = {"raise": {"kind": "agent", "message": traceback.format_exc()}}
        else:
            answer = {"return": value}
        _send(sink, answer)


def _set_clock(now: float) -> None:
    """Set the wall clock to the host's: a restored guest has the time of its snapshot."""
    if abs(time.time() - now) > _CLOCK_SKEW_SECONDS:
        try:
            time.clock_settime(time.CLOCK_REALTIME, now)
        except PermissionError:
            print("spinlock agent: not root, the clock stays as it is", file=sys.stderr)


def serve(source: BinaryIO, sink: BinaryIO, is_port: bool) -> None:
    """Answer requests until the host closes the stream; a virtio port may be reopened any time.

    While no host is connected, read() and poll() on a virtio port return end of file at once. So
    the only way to wait is to sleep.
    """
    # Sessions are forked, so an import here is one of all sessions. Few are needed for a verdict.
    from harness.guest import session  # noqa: F401

    _send(sink, {"hello": os.uname().release})
    while True:
        line = source.readline()
        if not line:
            if not is_port:
                return
            time.sleep(_HOST_AWAY_SECONDS)
            continue
        request = json.loads(line)
        if "lacking" in request:
            from harness.guest import facts

            _send(sink, {"lacking": facts.lacking()})
        elif "symbols" in request:
            from harness.guest import symbols

            _send(sink, {"symbols": symbols.addresses(request["symbols"])})
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
    """Do the slow imports; a guest that is saved afterwards has them."""
    from harness.guest import drivers, facts, session

    session.import_all_handlers()
    facts.bcc_version()
    drivers.prepare()


def _kernel_log() -> Optional[KernelLog]:
    try:
        return KernelLog()
    except OSError:  # not root, or no /dev/kmsg: only the exit status tells how a process ended
        return None


def _in_a_child(source: BinaryIO, sink: BinaryIO) -> Tuple[int, int]:
    """Serve one session in a child process; return its pid, and its exit status or -signal."""
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
    """Make the OOM killer choose the session before the agent, which then reports the kill."""
    try:
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write("500")
    except OSError:  # with --target local in a container, this may be forbidden
        pass


def _lines(log: Optional[KernelLog]) -> List[str]:
    try:
        return log.read() if log is not None else []
    except OSError:  # the kernel overwrote records before they were read
        return []


def _ending(process: int, status: int, kernel_log: List[str]) -> str:
    """Return in words how a session's process ended."""
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
    if len(arguments) == 2 and arguments[0] == "compile":
        from harness.guest import carried_bcc

        sink = os.fdopen(os.dup(1), "wb")
        os.dup2(2, 1)
        return carried_bcc.serve(arguments[1], os.fdopen(os.dup(0), "rb"), sink)
    print("usage: agent.pyz serve [PORT] | compile SHIM", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
