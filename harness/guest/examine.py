# SPDX-License-Identifier: GPL-2.0-only
"""`spinlock check` in the guest: load each program of an object of unknown origin.

A child process with limits (confined.py) opens and loads the file. If the child dies, its current
program is reported, and another child continues with the next one.
"""

from __future__ import annotations

import base64
import errno
import os
import re
import resource
import time
from typing import Any, Callable, List, Optional, Sequence, Tuple

from harness.guest import btf_cause, calls, facts, libbpf, loaders, uapi
from harness.guest.confined import MOST_ARENA_BYTES, Child, Emit, Json
from harness.guest.objects import Object
from harness.guest.prepared import alone_in_struct_ops

MOST_MAP_BYTES = 32 << 20  # of one map; a larger one gets fewer entries
TOLD_LOG_BYTES = 96 << 10  # of the end of a verifier log that may have megabytes
TOLD_MESSAGES = 40  # of libbpf's, which damaged files make it write without end
TOLD_BYTES = 2000  # of each
ASSUMED_ENTRIES = 1024  # of a map whose size its own loader would set
PROGRAMS_LOST = 3  # so many children may die at one object

_NOTHING_DONE = b"processed 0 insns"  # all that the verifier says where it did not begin
_OF_FUNCTIONS = ("fentry", "fexit", "fmod_ret")


class _NoAttach(Exception):
    """The kernel loads a program and refuses to attach it."""

    def __init__(self, number: int) -> None:
        super().__init__(uapi.errno_name(number))
        self.number = number


def examine(wanted: calls.Examine, log: Callable[[], Any], emit: Emit) -> None:
    """Load each program of an object by itself, or those named; emit what became of each.

    Events: {"object": facts} or {"damaged": why}, then {"begin": name}, {"end": name, "seen": facts}.
    `log` returns the lines of the kernel log since its last call.
    """
    libbpf.log_buffer()  # allocated before the forks, so all children have it
    done: List[str] = []
    told = False
    for _ in range(PROGRAMS_LOST):
        at: Optional[str] = None
        finished = False
        child = Child(lambda port: _examine(port, wanted, done))
        for event in child.events(wanted.seconds):
            if "object" in event:
                event["object"]["kernel_log"] = log()
            if "begin" in event:
                at = event["begin"]
            elif "end" in event:
                at = None
                done.append(event["end"])
                event["seen"]["kernel_log"] = log()
            finished = finished or "damaged" in event or "finished" in event
            if "finished" not in event and not (told and "object" in event):
                emit(event)
            told = told or "object" in event
            child.go_on()
        how = child.end()
        if finished:
            return
        if at is None:
            emit({"damaged": "libbpf broke on it", "died": how})
            return
        done.append(at)
        emit({"end": at, "seen": {"stage": "limit", "died": how, "kernel_log": log()}})
    emit({"unfinished": True})


# -- in the child ----------------------------------------------------------------------------------


def _messages() -> List[str]:
    told = [message[:TOLD_BYTES] for message in libbpf.messages[-TOLD_MESSAGES:]]
    libbpf.messages.clear()
    return told


def open_object(data: bytes, programs: Optional[List[str]] = None) -> Object:
    """Open an object as check does: with sizes where it has none, and with none that is too large."""
    elf = Object(data, programs)
    elf.assume_sizes(ASSUMED_ENTRIES)
    elf.shrink(MOST_MAP_BYTES)
    if programs and not any(elf.is_of_struct_ops(name) for name in programs):
        elf.leave_struct_ops()
    return elf


def _make_room(elf: Object) -> None:
    """Let this process map the object's arenas."""
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    soft = most - MOST_ARENA_BYTES + min(elf.arena_bytes(), MOST_ARENA_BYTES)
    resource.setrlimit(resource.RLIMIT_AS, (soft, most))


def _examine(send: Emit, wanted: calls.Examine, done: Sequence[str]) -> None:
    libbpf.capture_messages()
    data = base64.b64decode(wanted.object)
    try:
        elf = Object(data)
    except OSError as error:
        send({"damaged": "libbpf refuses it", "errno": _name(error), "messages": _messages()})
        return
    assumed = elf.assume_sizes(ASSUMED_ENTRIES)
    shrunk = elf.shrink(MOST_MAP_BYTES)
    _make_room(elf)
    programs = elf.program_facts()
    known = facts.names(list(wanted.names)) if wanted.names else {}
    refusals = _probe(elf, data)
    elf.close()
    about = {"programs": programs, "assumed": assumed, "shrunk": shrunk, "names": known}
    send({"object": {**about, **refusals}})
    for program in programs:
        name = program["name"]
        if name in done or (wanted.only and name not in wanted.only):
            continue
        send({"begin": name})
        seen = _load(data, program, wanted.extends.get(name, ()))
        if seen["stage"] is None and not _can_attach(program):
            told = f"this kernel has no attach type {program['attach_type']}"
            seen.update(stage="attach", errno="", messages=[told])
        send({"end": name, "seen": seen})
    send({"finished": True})


def _can_attach(program: Json) -> bool:
    """Tell whether the kernel has a program's attach type; True if it has no BTF to look in.

    Not every kernel checks the type at load: v5.10 loads a tcx program as any other for tc.
    """
    kind = program["attach_type"]
    if not os.path.exists(facts.VMLINUX_BTF):
        return True
    # A socket option attaches sk_reuseport programs, also before v5.14, which added the attach type.
    return kind in ("", "BPF_SK_REUSEPORT_SELECT") or facts.names([kind])[kind]


def _probe(elf: Object, data: bytes) -> Json:
    """Load the BTF and create each map by plain bpf() calls; return the errnos, which libbpf hides.

    The BTF is as libbpf sanitizes it for this kernel.
    """
    answer: Json = {"btf": None, "causes": [], "maps": {}}
    loaded = Object(data, [])
    try:
        btf = loaded.load_btf()
        for name in elf.all_maps():
            if elf.is_struct_ops(name):
                continue
            try:
                os.close(elf.create_map(name, btf, like_libbpf=True))
            except OSError as error:
                answer["maps"][name] = _name(error)
    except OSError as error:
        answer["btf"] = _name(error)
        answer["causes"] = btf_cause.find(loaded.btf(), _takes_btf)
    finally:
        libbpf.messages.clear()
        loaded.close()
    return answer


def _takes_btf(data: bytes) -> bool:
    try:
        os.close(libbpf.load_btf(data))
    except OSError:
        return False
    return True


def _load(data: bytes, program: Json, extends: Sequence[str]) -> Json:
    """Load one program as libbpf does; return what was seen.

    One that replaces a function of another program of the object is loaded on that.
    """
    if not extends:
        return _load_on(data, program, None)
    name, function = extends
    target = open_object(data, [name])
    try:
        target.load()
        return _load_on(data, program, (target.program_fd(name), function))
    except OSError as error:
        told = f"its target '{name}' is refused itself"
        return {"stage": "target", "errno": _name(error), "log": "", "messages": [told]}
    finally:
        target.close()


def _load_on(data: bytes, program: Json, target: Optional[Tuple[int, str]]) -> Json:
    """Load one program, others of its struct_ops being empty; return what was seen.

    An empty one may be refused itself, where the kernel asks for more: then the others are as they are.
    """
    if not program["section"].startswith("struct_ops"):
        return _load_once(data, program, target)
    with alone_in_struct_ops(data, program["name"]):
        seen = _load_once(data, program, target)
    if seen["stage"] is None or seen["log"]:
        return seen
    with_others = _load_once(data, program, target)
    if with_others["stage"] is None or with_others["log"]:
        return with_others
    named = re.findall(r"prog '(\w+)': BPF program load failed", "\n".join(with_others["messages"]))
    others = [name for name in named if name != program["name"]]
    if others:
        told = f"another function of its struct_ops is refused: '{others[0]}'"
        return {**with_others, "messages": [told]}
    return with_others


def _load_once(data: bytes, program: Json, target: Optional[Tuple[int, str]]) -> Json:
    libbpf.messages.clear()
    log = libbpf.log_buffer()
    started = time.monotonic()
    level = None
    while True:
        log[0] = b"\0"
        elf = open_object(data, [program["name"]])
        try:
            elf.set_log(program["name"], log, level)
            if target is not None:
                elf.extend(program["name"], *target)
            elf.load()
            _attach_to_lock(elf, program)
            return {"stage": None, "log": "", "seconds": round(time.monotonic() - started, 3)}
        except _NoAttach as refused:
            number = uapi.errno_name(refused.number)
            told = f"the lock's own functions cannot be attached to: {number}"
            return {"stage": "attach", "errno": number, "log": "", "messages": [told]}
        except OSError as error:
            if error.errno == errno.ENOSPC and level is None:  # the log is longer than the buffer
                level = uapi.BPF_LOG_STATS
                continue
            text: bytes = log.value
            seen = {
                "stage": "load",
                "errno": _name(error),
                "log": text[-TOLD_LOG_BYTES:].decode(errors="replace"),
                "log_bytes": len(text),
                "messages": _messages(),
                "seconds": round(time.monotonic() - started, 3),
            }
            if (not text or text.startswith(_NOTHING_DONE)) and _has_bare_twin(program):
                seen["bare"] = loaders.load_errno(program["section"]) == 0
            return seen
        finally:
            elf.close()


def _has_bare_twin(program: Json) -> bool:
    """Tell whether its section says all that a program of its kind which does nothing needs."""
    section = program["section"]
    return bool(section) and not section.startswith(("struct_ops", "freplace"))


def _attach_to_lock(elf: Object, program: Json) -> None:
    """Attach what is for one of the lock's own functions. Raises _NoAttach where it cannot be."""
    kind, _, function = program["section"].partition("/")
    if kind not in _OF_FUNCTIONS or not re.fullmatch(r"bpf_(res_)?spin_(un)?lock\w*", function):
        return
    try:
        os.close(libbpf.open_raw_tracepoint(elf.program_fd(program["name"])))
    except OSError as error:
        raise _NoAttach(error.errno or 0) from None


def _name(error: OSError) -> str:
    return uapi.errno_name(error.errno or 0)
