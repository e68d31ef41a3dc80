# SPDX-License-Identifier: GPL-2.0-only
"""Check a file on real kernels: compile it, ask each kernel, look for the locks."""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import List, Mapping, Optional, Sequence, Tuple, Union

from harness.check import bcc_source, examine, inputs, lockset, prove
from harness.check.answer import Answer
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
    _agree(options)
    given = _inputs(options)
    examine.look(path)
    source = _open_at_once(path, options)
    if source is not None:
        examine.choose(source, options.programs)
    rows, proven = [], {}
    locks: Optional[lockset.Findings] = None
    asked: List[Optional[str]] = [*chosen]
    for name in asked or [None]:  # None: the kernel of a running machine
        settings = target.Settings(options.target, name, options.cpus, append=options.append)
        with closing(choose.open_target(settings, progress)) as guests:
            if source is None:
                headers, defines = guests.headers(), options.defines
                source = examine.open_source(path, headers, options.include, defines)
            programs = examine.choose(source, options.programs)
            shown = name or guests.name
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
    return Answer(source, programs, tuple(rows), locks, tuple(known), proven)


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


def _agree(options: Options) -> None:
    """Raise UsageError for options of which one has no meaning with another."""
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
