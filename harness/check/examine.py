# SPDX-License-Identifier: GPL-2.0-only
"""Examine somebody's own program on a kernel: does each part load, what refuses it, how it runs."""

from __future__ import annotations

import base64
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple, Union

from packaging.version import Version

from harness.check import bcc_source, refusal, since
from harness.check.circumstances import other_name
from harness.check.linked import Linked
from harness.check.refusal import Refusal
from harness.errors import UsageError
from harness.guest import calls
from harness.judging import splat
from harness.machines.loss import GuestLost
from harness.machines.session import AgentError, Session
from harness.machines.target import Target
from harness.provision import build, elf
from harness.provision.btf import Malformed
from harness.scenarios.scenario import nearest
from harness.scenarios.versions import kernel_version

Json = Dict[str, Any]
PROGRAM_SECONDS = 60.0  # for one program on one kernel, emulated
HEADERS = "vmlinux.h"
_ELF = b"\x7fELF"
_CPP = "C++, which is not compiled here (clang++ -target bpf -g -O2 -c)"
# Sources that are no C: suffix -> what they are, and what compiles them.
_OTHERS = {
    **dict.fromkeys((".cpp", ".cc", ".cxx"), _CPP),
    ".rs": "Rust, which is not compiled here",
    ".go": "Go, whose objects are made by bpf2go",
    ".ll": "LLVM's text (llc -march=bpf -filetype=obj)",
    ".bc": "LLVM's bitcode (llc -march=bpf -filetype=obj)",
    ".h": "a header: name the .bpf.c file that includes it, or, if it is a skeleton, see --command",
}


@dataclass(frozen=True)
class Outcome:
    """What one kernel said to one program."""

    refusal: Optional[Refusal] = None  # None: it loads
    warning: str = ""  # the line by which the kernel complained, though it took the program
    log: str = ""
    seconds: float = 0.0
    told: str = ""  # how the user's own loader ended, and what it loaded

    @property
    def good(self) -> bool:
        """Tell whether it loads and the kernel did not complain."""
        return self.refusal is None and not self.warning


@dataclass(frozen=True)
class OnKernel:
    """What one kernel said to an object."""

    kernel: str  # as the user named it
    release: str
    programs: Mapping[str, Outcome]
    problem: Optional[Refusal] = None  # for which the object was not opened
    assumed: Tuple[str, ...] = ()  # maps that got a size because they had none
    btf_refused: Mapping[str, str] = field(default_factory=dict)  # of a map, "" of all -> errno

    causes: Tuple[str, ...] = ()  # for which the BTF of all is refused
    shrunk: Tuple[str, ...] = ()  # maps that got fewer entries, because they were too large
    warning: str = ""  # the line by which the kernel complained at the BTF or the maps
    banner: str = ""  # /proc/version, which says more than the release where that is frozen

    @property
    def version(self) -> Version:
        """Its version, to be compared with others; 0 where nothing was told."""
        known = self.release[:1].isdigit() or " #" in self.banner
        return kernel_version(self.release, self.banner) if known else Version("0")

    @property
    def good(self) -> bool:
        """Tell whether everything loads."""
        fine = self.problem is None and not self.warning
        return fine and all(seen.good for seen in self.programs.values())


@dataclass(frozen=True)
class Source:
    """An object, and what can be read in it."""

    name: str
    data: bytes
    object: elf.Object

    @property
    def programs(self) -> Tuple[str, ...]:
        """The names of its programs."""
        return self.object.programs

    def extended(self) -> Dict[str, Tuple[str, str]]:
        """Return, of each program that replaces a function of the object, (a program with it, it)."""
        found: Dict[str, Tuple[str, str]] = {}
        functions = self.object.functions
        for name in set(self.programs) & set(functions):
            kind, _, replaced = functions[name].section.partition("/")
            if kind != "freplace" or replaced not in functions:
                continue
            others = [each for each in self.programs if each != name and each in functions]
            holders = [each for each in others if replaced in _names(Linked(functions, each))]
            if holders:
                found[name] = (replaced if replaced in holders else holders[0], replaced)
        return found

    def asked_names(self) -> List[str]:
        """Return the kernel functions that it calls, and what other kernels call these."""
        targets = [t for f in self.object.functions.values() for t in f.targets.values()]
        called = {target.name for target in targets if target.kind == "extern"}
        return sorted(called | {other_name(name) for name in called})

    @property
    def encoded(self) -> str:
        """It as the guest takes it."""
        return base64.b64encode(self.data).decode()


def _names(linked: Linked) -> List[str]:
    return [part.name for part in linked.parts]


def open_source(
    path: Path, include: Path, directories: Sequence[Path] = (), defines: Sequence[str] = ()
) -> Source:
    """Read an object, or compile a C file to one. Raises UsageError with what is wrong with it."""
    try:
        if path.suffix == ".c":
            data = build.compile_object(path, include, directories, defines)
        else:
            data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"Cannot read {path} ({error.strerror}).") from None
    except build.CompileError as error:
        hint = ""
        if f"'{HEADERS}' file not found" in str(error):
            hint = (
                f"\nMake {HEADERS} beside the source: spinlock shell bpftool btf dump file"
                f" /sys/kernel/btf/vmlinux format c > {path.parent / HEADERS}"
            )
        raise UsageError(f"{path} does not compile:\n{error}{hint}") from None
    try:
        return Source(path.name, data, elf.read(data))
    except Malformed as error:
        told = _OTHERS.get(path.suffix)
        if told is not None and not data.startswith(_ELF):
            raise UsageError(
                f"{path} is {told}: compile it to an object, and check that."
            ) from None
        raise UsageError(f"{path}: {error}") from None


def open_text(path: Path, defines: Sequence[str], sections: Mapping[str, str]) -> bcc_source.Text:
    """Read a C file for bcc. Raises UsageError with what is wrong with it."""
    if path.suffix == ".o":
        raise UsageError(f"{path} is an object; bcc takes C files only.")
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"Cannot read {path} ({error.strerror}).") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} is no text; bcc takes C files only.") from None
    given = [" ".join(define.split("=", 1)) for define in defines]
    words = "".join(f"#define {define}\n" for define in given)
    return bcc_source.read(path.name, f'{words}#line 1 "{path.name}"\n{text}', sections)


def look(path: Path) -> None:
    """Raise UsageError, before anything is made for it, for what is no file that can be read."""
    if os.path.exists(path) and not os.path.isfile(path):  # a FIFO would be waited for
        raise UsageError(f"{path} is no file: give a C file or an object.")
    try:
        path.open("rb").close()
    except OSError as error:
        raise UsageError(f"Cannot read {path} ({error.strerror}).") from None


def choose(source: Union[Source, bcc_source.Text], wanted: Sequence[str]) -> Tuple[str, ...]:
    """Return the programs to load. Raises UsageError for a name that is none of them."""
    for name in wanted:
        if name not in source.programs:
            there = ", ".join(source.programs) or "none"
            near = nearest(name, source.programs)
            raise UsageError(f"{source.name} has no program {name!r}{near}; it has: {there}.")
    if not source.programs:
        mark = 'a function in a section of its own, as by SEC("tc")'
        if isinstance(source, bcc_source.Text):
            mark = "a function of a context as its first argument, or named by --section NAME=KIND"
        raise UsageError(f"{source.name} has no program: {mark}.")
    return tuple(wanted) or source.programs


@dataclass
class _Told:
    """What guests have told so far of a source's programs on one kernel."""

    facts: Json = field(default_factory=dict)  # the kernel's
    object: Json = field(default_factory=dict)  # what libbpf and the kernel say to it as a whole
    begun: str = ""  # the program that has begun and not ended, if one has
    seen: Dict[str, Outcome] = field(default_factory=dict)
    problem: Optional[Refusal] = None
    warning: str = ""  # by which the kernel complained of the object's types or maps

    @property
    def release(self) -> Version:
        """The kernel's version."""
        return kernel_version(self.facts.get("release", "0"), self.facts.get("version", "") or "")

    def end(self, program: str, outcome: Outcome) -> None:
        """Note what became of a program."""
        self.seen[program] = outcome
        self.begun = ""

    def add_late(self, lines: Sequence[str]) -> None:
        """Note what the kernel said of the last program once that had ended."""
        said = complaint(lines)
        if said and self.seen:
            last = list(self.seen)[-1]
            seen = self.seen[last]
            self.seen[last] = replace(seen, warning=seen.warning or said)

    def lose(self, lost: GuestLost) -> None:
        """Blame a lost guest on the program that had begun; between programs, on none of them."""
        why = _of_lost(lost)
        if self.begun:
            self.end(self.begun, Outcome(why, log=lost.console))
        else:
            self.problem = why


def examine(
    guests: Target,
    kernel: str,
    source: Union[Source, bcc_source.Text],
    wanted: Sequence[str],
) -> OnKernel:
    """Load programs of an object, or through bcc of a text, on one kernel.

    A guest that was lost without the kernel's doing is no answer: once, what is left is asked again.
    Raises SetupError.
    """
    told = _Told()
    left = list(wanted)
    excused = False
    while left and told.problem is None:
        try:
            with guests.session() as session:
                told.facts = told.facts or session.call(calls.Facts())
                if isinstance(source, Source):
                    _load_object(session, source, left, told)
                else:
                    _load_text(session, source, left, told)
            left = []
        except GuestLost as lost:
            if lost.crashed or excused:
                told.lose(lost)
            else:
                excused, told.begun = True, ""
            left = [name for name in left if name not in told.seen]
        except AgentError as error:
            told.problem = Refusal("other", last_line(error))
    seen = told.seen
    if told.problem is None:
        there = [each["name"] for each in told.object["programs"]] if told.object else wanted
        for name in wanted:
            seen.setdefault(name, Outcome(refusal.not_tried(name not in there)))
    release = str(told.facts.get("release", "unknown"))
    assumed, all_btf = tuple(told.object.get("assumed", ())), told.object.get("btf")
    btf_refused = {"": all_btf} if all_btf else told.object.get("maps", {})
    return OnKernel(
        kernel,
        release,
        seen,
        told.problem,
        assumed,
        btf_refused,
        tuple(map(refusal.cause_words, told.object.get("causes", ()))),
        tuple(told.object.get("shrunk", ())),
        told.warning,
        str(told.facts.get("version") or ""),
    )


def _load_object(session: Session, source: Source, programs: Sequence[str], told: _Told) -> None:
    """Have libbpf load programs; note what became of each."""

    def note(event: Json) -> None:
        if "object" in event:
            told.object = event["object"]
            told.warning = told.warning or complaint(told.object.get("kernel_log", ()))
        elif "begin" in event:
            told.begun = event["begin"]
        elif "damaged" in event:
            told.problem = refusal.broken(event)
        elif "end" in event:
            told.end(event["end"], _by_libbpf(source, event["end"], event["seen"], told))

    session.call(
        calls.Examine(
            object=source.encoded,
            only=programs,
            seconds=PROGRAM_SECONDS,
            extends=source.extended(),
            names=source.asked_names(),
        ),
        note,
        limit=PROGRAM_SECONDS * (len(programs) + 2),
    )


def _load_text(
    session: Session, source: bcc_source.Text, programs: Sequence[str], told: _Told
) -> None:
    """Have bcc compile and load programs; note what became of each."""
    if not told.facts["headers"]:
        told.problem = refusal.no_headers(told.facts["release"])
        return
    # Nothing is run: what is asked is whether it loads.
    cases = [calls.Trial(name, source.sections[name]) for name in programs]

    def note(event: Json) -> None:
        seen = event.get("observation", {})
        if "begin" in event:
            told.begun = event["begin"]
        elif "late" in event:
            told.add_late(event["late"])
        elif seen["stage"] == "agent":
            raise AgentError(seen["detail"])
        elif seen["stage"] in ("compile", "open"):  # which holds for all of the text
            told.problem = refusal.by_bcc({**seen, "stage": "compile"}, told.release, {})
            told.begun = ""
        else:
            told.end(event["end"], _by_bcc(seen, told.release, source.maps))

    request = calls.Verify(calls.Source("bcc", text=source.text), cases)
    session.call(request, note, limit=PROGRAM_SECONDS * (len(programs) + 1))
    told.add_late(session.call(calls.Late()))


def _by_libbpf(source: Source, name: str, seen: Json, told: _Told) -> Outcome:
    warning = complaint(seen.get("kernel_log"))
    if since.is_of_object(warning):  # a map is freed some time after it is closed
        told.warning, warning = told.warning or warning, ""
    if seen["stage"] is None:
        return Outcome(None, warning, seconds=seen["seconds"])
    known = name in source.object.functions
    linked = Linked(source.object.functions, name) if known else None
    why = refusal.explain(seen, told.object, told.release, linked, source.object.maps)
    return Outcome(why, warning, seen.get("log", ""), seen.get("seconds", 0.0))


def _by_bcc(observation: Json, release: Version, kinds: Mapping[str, int]) -> Outcome:
    warning = complaint(observation.get("kernel_log"))
    seconds = sum(observation["seconds"].get(part, 0.0) for part in ("open", "load"))
    if observation["stage"] is None:
        return Outcome(None, warning, seconds=seconds)
    why = refusal.by_bcc(observation, release, kinds)
    return Outcome(why, warning, str(observation.get("log") or ""), seconds)


def _of_lost(lost: GuestLost) -> Refusal:
    """Return what is said of a guest that did not answer any more."""
    return refusal.crashed(str(lost)) if lost.crashed else Refusal("other", str(lost))


def last_line(error: AgentError) -> str:
    """Return what an agent's traceback ends with."""
    return str(error).strip().splitlines()[-1]


def complaint(kernel_log: Optional[Sequence[str]]) -> str:
    """Return the line by which a kernel complained, or that nobody can tell; "" if it did not."""
    if kernel_log is None:
        return "its log could not be read, so a splat could not be seen"
    found = splat.find(kernel_log)
    return found.line if found else ""
