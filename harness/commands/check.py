"""`spinlock check`: the user's own program on every kernel."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import List, Optional

from harness import catalogue, check, lockset, target
from harness.commands import output
from harness.errors import UsageError


def declare(sub: argparse.ArgumentParser) -> None:
    """Declare what it takes."""
    sub.epilog = (
        "Exit codes: 0 every required kernel takes it, 1 one does not, 2 usage, 4 set-up error."
    )
    sub.add_argument("file", type=Path, metavar="FILE", help="prog.bpf.c or prog.o")
    sub.add_argument(
        "--kernel",
        action="append",
        default=[],
        metavar="KERNEL",
        help="a kernel that must take it; or all, to see which do; repeatable"
        f" (default: {target.DEFAULT_KERNEL})",
    )
    sub.add_argument(
        "--require",
        action="append",
        default=[],
        metavar="KERNEL",
        help="of --kernel all, one that must take it, or all; repeatable",
    )
    sub.add_argument("--program", action="append", default=[], metavar="NAME", help="only this")
    sub.add_argument("--target", choices=target.NAMES, help="as in `spinlock run`")
    sub.add_argument("--cpus", type=int, default=4, help="virtual CPUs (default: %(default)s)")
    sub.add_argument("--append", default="", help="more words for the kernel's command line")
    sub.add_argument("-I", type=Path, action="append", default=[], metavar="DIR", help="to clang")
    sub.add_argument("-D", action="append", default=[], metavar="NAME=VALUE", help="to clang")
    sub.add_argument(
        "--run", action="store_true", help="run what BPF_PROG_TEST_RUN can, on all CPUs at once"
    )
    form = sub.add_mutually_exclusive_group()
    form.add_argument("--markdown", action="store_true", help="as Markdown")
    form.add_argument("--json", action="store_true", help="as JSON; harness/README.md says how")
    sub.add_argument("-o", "--output", type=Path, metavar="FILE", help="write to a file")


def run(options: argparse.Namespace) -> int:
    """Load a program of the user's own; return 1 if a kernel that is required refuses it."""
    if options.cpus < 1:
        raise UsageError(f"--cpus {options.cpus}: a guest needs at least one CPU.")
    named = [name for name in options.kernel if name != "all"]
    required = catalogue.expand([*named, *options.require])
    chosen = catalogue.expand([*options.kernel, *options.require])
    if not chosen and options.target in (None, "qemu"):
        chosen = required = [target.DEFAULT_KERNEL]
    for chosen_name in chosen:
        catalogue.find(chosen_name)

    source: Optional[check.Source] = None
    if options.file.suffix != ".c":  # what is no object needs no guest to say so
        source = check.open_source(options.file, Path())
        check.choose(source, options.program)
    rows = []
    asked: List[Optional[str]] = [*chosen]
    for name in asked or [None]:  # None: whatever a running machine has
        settings = target.Settings(options.target, name, options.cpus, append=options.append)
        guests = target.open_target(settings, output.progress)
        try:
            if source is None:
                source = check.open_source(options.file, guests.headers(), options.I, options.D)
            programs = check.choose(source, options.program)
            output.progress(f"{source.name} on {name or guests.name}")
            rows.append(check.examine(guests, name or guests.name, source, programs, options.run))
        finally:
            guests.close()
    assert source is not None
    found = check.Report(source, programs, tuple(rows), lockset.analyse(source.object, programs))
    if options.json:
        text = json.dumps(check.to_json(found), indent=1) + "\n"
    else:
        text = check.markdown(found) if options.markdown else check.terminal(found)
    output.put(text, options.output)
    return check.exit_code(found, required or [row.kernel for row in rows if not chosen])
