# SPDX-License-Identifier: GPL-2.0-only
"""Check a file on real kernels: compile it, ask each kernel, look for the locks."""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import ContextManager, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple, Union

from harness.check import bcc_source, coming, examine, inputs, lockset, own_loader, prove
from harness.check.answer import Answer
from harness.check.examine import OnKernel
from harness.errors import UsageError
from harness.machines import choose, target
from harness.progress import Progress
from harness.provision import catalogue

ALL = "all"  # a kernel's name: every one of the catalogue
Opened = Union[examine.Source, bcc_source.Text]


@dataclass(frozen=True)
class Options:
    """How a file is checked. The defaults are those of `spinlock check`."""

    programs: Tuple[str, ...] = ()  # names of the file's programs; empty: all of them
    require: Tuple[str, ...] = ()  # kernels that must take everything, beside those that are named
    loader: str = "libbpf"  # or "bcc": the file is C for bcc
    sections: Mapping[str, str] = field(default_factory=dict)  # for bcc: program -> SEC()
    include: Tuple[Path, ...] = ()  # directories for clang
    defines: Tuple[str, ...] = ()  # "NAME" or "NAME=VALUE", for the compiler
    run: bool = False  # also run what loads, with its locks and without
    packets: Tuple[str, ...] = ()  # to run it with: files, or bytes in hexadecimal
    entries: Tuple[str, ...] = ()  # programs to run; empty: all of them
    next: bool = False  # also ask newer kernels, and the rule book of those that are not fetched
    target: Optional[str] = None  # "qemu", "vagrant" or "local"
    cpus: int = 4  # of the guest
    append: str = ""  # to the kernel's command line


def check(
    file: Union[str, "os.PathLike[str]"],
    kernels: Sequence[str] = (),
    options: Options = Options(),
    progress: Progress = lambda message: None,
) -> Answer:
    """Load a file's programs into real kernels, one by one, and return what each kernel said.

    `file` is a .bpf.c file, an object, or C for bcc. `kernels` are names as of `--kernel`, such as
    "6.12"; each named one must take the file for the answer to be good, "all" tries every kernel and
    requires none. Without any it is the default kernel, or that of a running machine. `progress` is
    called with a line for each step that takes long.

    Raises UsageError for what is wrong with the request or the file, a compiler's words included, and
    SetupError if a kernel or a guest cannot be had. A refusal is no error, but part of the answer.
    """
    path = Path(file)
    chosen, required = _kernels(kernels, options)
    _agree(path, options)
    given = _inputs(options)
    examine.look(path)
    source = _open_at_once(path, options)
    if source is not None:
        examine.choose(source, options.programs)
    rows: List[OnKernel] = []
    proven: Dict[str, prove.Proven] = {}
    locks: Optional[lockset.Findings] = None
    asking = _Asking(chosen, options, progress)
    for shown, guests in asking.guests(rows):
        if source is None:
            headers, defines = guests.headers(), options.defines
            source = examine.open_source(path, headers, options.include, defines)
        programs = examine.choose(source, options.programs)
        progress(f"{source.name} on {shown}")
        if isinstance(source, examine.Source) and locks is None:
            # Of all programs: one that is not asked for may be the one that does not lock.
            locks = lockset.analyse(source.object, source.programs)
        rows.append(examine.examine(guests, shown, source, programs))
        if isinstance(source, examine.Source) and locks is not None and given is not None:
            examine.choose(source, given.programs)
            progress(f"{source.name} runs on {shown}")
            proven[shown] = prove.prove(guests, rows[-1], source, locks, given)
    assert source is not None
    known = required if chosen else [row.kernel for row in rows]
    newer = asking.newer(rows, source)
    return Answer(source, programs, tuple(rows), locks, tuple(known), proven, newer)


def check_loader(
    loader: own_loader.Loader,
    kernels: Sequence[str] = (),
    options: Options = Options(),
    progress: Progress = lambda message: None,
) -> Answer:
    """Run the user's own loader in each kernel's guest, and return what came of it.

    Of `options`, `require`, `target`, `cpus` and `append` are meant; `kernels` and `progress` are as
    for check(). Raises UsageError and SetupError; a loader that fails is part of the answer.
    """
    chosen, required = _kernels(kernels, options)
    rows: List[OnKernel] = []
    asking = _Asking(chosen, options, progress)
    for shown, guests in asking.guests(rows):
        progress(f"{loader.name} on {shown}")
        rows.append(own_loader.examine_loader(guests, shown, loader))
    known = required if chosen else [row.kernel for row in rows]
    newer = asking.newer(rows, loader)
    return Answer(loader, loader.programs, tuple(rows), None, tuple(known), coming=newer)


class _Asking:
    """The guests of the kernels to ask, one after the other; with `next` also of newer ones."""

    def __init__(self, chosen: Sequence[str], options: Options, progress: Progress) -> None:
        self._names: List[Optional[str]] = [*chosen] or [None]  # None: that of a running machine
        self._options, self._progress = options, progress
        self._base: Optional[OnKernel] = None
        self._later: List[str] = []
        self._left: List[str] = []

    def guests(self, rows: Sequence[OnKernel]) -> Iterator[Tuple[str, target.Target]]:
        """Yield (kernel, its guests); `rows` gets what came of it before the next one is asked for."""
        for name in self._names:
            with self._opened(name) as guests:
                yield name or guests.name, guests
        if self._options.next:
            self._base = coming.newest(rows)
            self._later, self._left = coming.newer(self._base)
            if self._options.target not in (None, "qemu"):  # which has its one kernel
                self._later, self._left = [], [*self._later, *self._left]
        for name in self._later:
            with self._opened(name) as guests:
                yield name, guests

    def _opened(self, name: Optional[str]) -> ContextManager[target.Target]:
        how = self._options
        settings = target.Settings(how.target, name, how.cpus, append=how.append)
        return closing(choose.open_target(settings, self._progress))

    def newer(
        self, rows: Sequence[OnKernel], source: Union[Opened, own_loader.Loader]
    ) -> Optional[coming.Coming]:
        """Return what is known of newer kernels; None if that was not asked for."""
        if self._base is None:
            return None
        asked = [row for row in rows if row.kernel in self._later]
        found: Tuple[coming.Breach, ...] = ()
        if isinstance(source, examine.Source):
            found = coming.breaches(source, self._base, asked)
        return coming.Coming(self._base.kernel, tuple(self._later), tuple(self._left), found)


def _inputs(options: Options) -> Optional[prove.Inputs]:
    """Return what is to be run; None: nothing. Raises UsageError."""
    if not options.run:
        return None
    own = {f"--packet {word[:24]}": inputs.given(word) for word in options.packets}
    return prove.Inputs(own or inputs.packets(), options.entries)


def _kernels(names: Sequence[str], options: Options) -> Tuple[List[str], List[str]]:
    """Return the kernels to ask, and those that must take the file. Raises UsageError."""
    required = catalogue.expand([*(name for name in names if name != ALL), *options.require])
    chosen = catalogue.expand([*names, *options.require])
    if not chosen and options.target in (None, "qemu"):
        chosen = required = [target.DEFAULT_KERNEL]
    for name in chosen:
        catalogue.find(name)
    return chosen, required


def _agree(path: Path, options: Options) -> None:
    """Raise UsageError for options of which one has no meaning with another, or with the file."""
    if path.suffix != ".c" and options.loader != "bcc" and (options.include or options.defines):
        word = "-I" if options.include else "-D"
        raise UsageError(f"{word} is for the compiler, and {path} is compiled already.")
    for directory in options.include:
        if not directory.is_dir():
            raise UsageError(f"-I {directory}: there is no such directory.")
    for word, given in (("--packet", options.packets), ("--entry", options.entries)):
        if given and not options.run:
            raise UsageError(f"{word} goes with --run.")
    if options.loader != "bcc" and options.sections:
        raise UsageError("--section goes with --loader bcc; an object has its own SEC().")
    if options.loader == "bcc" and (options.run or options.include):
        word = "--run" if options.run else "-I"
        raise UsageError(f"{word} does not go with --loader bcc, which compiles in the guest.")


def _open_at_once(path: Path, options: Options) -> Optional[Opened]:
    """Open a file that needs no kernel headers, so that errors show before a guest boots; else None."""
    if options.loader == "bcc":
        return examine.open_text(path, options.defines, options.sections)
    if path.suffix != ".c":
        return examine.open_source(path, Path())
    return None
