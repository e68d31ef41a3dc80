"""What the commands that measure and compare take on the command line; `spinlock run` takes what the
pytest plugin does. The parser itself is in __main__.py, beside what the commands do."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness import bench, bisect, contests, matrix, scenario, target
from harness.judge import Kind


def check_options(sub: argparse.ArgumentParser) -> None:
    """Declare what `spinlock check` takes."""
    sub.epilog = (
        "Exit codes: 0 every required kernel takes it, 1 one does not, 2 usage, 4 set-up error."
    )
    sub.add_argument("file", type=Path, metavar="FILE", help="prog.bpf.c or prog.o, or C for bcc")
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
    sub.add_argument(
        "--loader",
        choices=scenario.LOADERS,
        default="libbpf",
        help="bcc: FILE is C as bcc takes it, compiled in the guest (default: %(default)s)",
    )
    sub.add_argument(
        "--section",
        action="append",
        default=[],
        metavar="NAME=KIND",
        help="with --loader bcc: of what kind a program is, as SEC() names it, where what it is given"
        " does not tell; repeatable",
    )
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


def power_options(sub: argparse.ArgumentParser) -> None:
    """Declare what `spinlock power` takes."""
    sub.add_argument(
        "--times", type=int, default=20, metavar="N", help="runs (default: %(default)s)"
    )
    sub.add_argument(
        "--driver",
        action="append",
        default=[],
        choices=list(contests.ALL),
        metavar="DRIVER",
        help=f"repeatable; of {', '.join(contests.ALL)} (default: all of them)",
    )
    sub.add_argument(
        "--twin",
        action="append",
        default=[],
        choices=list(contests.WORDS),
        metavar="TWIN",
        help=f"repeatable; of {', '.join(contests.WORDS)} (default: those of the scenario)",
    )
    sub.add_argument(
        "--at-least",
        type=float,
        default=0.99,
        metavar="RATE",
        help="exit 3 when a twin's rate is below: when its whole interval is (default: %(default)s)",
    )
    _measuring_options(sub, "4")
    sub.add_argument(
        "--loader",
        choices=(*scenario.LOADERS, "all"),
        default="libbpf",
        help="what loads the programs (default: %(default)s)",
    )
    sub.add_argument(
        "--results", metavar="DIR", help="where every run is kept (default: results/power-<time>)"
    )
    sub.add_argument(
        "--read",
        type=Path,
        action="append",
        default=[],
        metavar="FILE|DIR",
        help="run nothing, count what earlier measurements kept; repeatable",
    )


def bench_options(sub: argparse.ArgumentParser) -> None:
    """Declare what `spinlock bench` takes."""
    sub.add_argument(
        "--times", type=int, default=3, metavar="N", help="runs (default: %(default)s)"
    )
    sub.add_argument(
        "--driver",
        action="append",
        default=[],
        choices=list(bench.DRIVERS),
        metavar="DRIVER",
        help=f"repeatable; of {', '.join(bench.DRIVERS)} (default: all of them)",
    )
    _measuring_options(sub, "1, 2 and 4, up to what the guest has")
    sub.add_argument(
        "--loader",
        choices=scenario.LOADERS,
        default="libbpf",
        help="what loads the programs (default: %(default)s)",
    )
    sub.add_argument(
        "--html", type=Path, metavar="FILE", help="a page with plots and tables as well"
    )
    sub.add_argument(
        "--svg", type=Path, metavar="FILE", help="the plots of the first kernel as well"
    )
    sub.add_argument(
        "--read",
        type=Path,
        metavar="FILE",
        help="measure nothing, show what --json wrote",
    )


def _measuring_options(sub: argparse.ArgumentParser, cpus: str) -> None:
    """Declare what `power` and `bench` share."""
    sub.add_argument("--target", choices=target.NAMES, help="as in `spinlock run`")
    sub.add_argument(
        "--kernel",
        action="append",
        default=[],
        help=f"as in `spinlock run`; repeatable (default: {target.DEFAULT_KERNEL})",
    )
    sub.add_argument(
        "--cpus", type=int, action="append", default=[], help=f"repeatable (default: {cpus})"
    )
    sub.add_argument("--append", default="", help="more words for the kernel's command line")
    form = sub.add_mutually_exclusive_group()
    form.add_argument("--markdown", action="store_true", help="as Markdown")
    form.add_argument("--json", action="store_true", help="as JSON; harness/README.md says how")
    sub.add_argument("-o", "--output", type=Path, metavar="FILE", help="write to a file")


def report_options(sub: argparse.ArgumentParser) -> None:
    """Declare what `spinlock report` takes."""
    sub.epilog = (
        "Exit codes: 0, whatever the results are; 1 as --against and --known say; 2 for what cannot be"
        " read or makes no sense; 4 if the output cannot be written."
    )
    sub.add_argument(
        "places",
        nargs="*",
        type=Path,
        default=[matrix.LATEST],
        metavar="FILE|DIR",
        help="results.jsonl or the directory of a run; of several the newer result wins"
        f" (default: {matrix.LATEST})",
    )
    form = sub.add_mutually_exclusive_group()
    form.add_argument("--markdown", action="store_true", help="as Markdown, a summary for a mail")
    form.add_argument("--json", action="store_true", help="as JSON; harness/README.md says how")
    form.add_argument("--junit", action="store_true", help="as JUnit XML, a suite per kernel")
    form.add_argument("--ktap", action="store_true", help="as KTAP, a test per kernel")
    form.add_argument(
        "--kcidb", metavar="ORIGIN", help="as KCIDB JSON, submitted under this name (KernelCI)"
    )
    form.add_argument("--html", type=Path, metavar="FILE", help="as one page that holds everything")
    form.add_argument(
        "--rules",
        action="store_true",
        help="what each kernel must do, from the C files alone, as Markdown (docs/rules.md)",
    )
    sub.add_argument("-o", "--output", type=Path, metavar="FILE", help="write to a file")
    sub.add_argument(
        "--against",
        type=Path,
        action="append",
        default=[],
        metavar="FILE|DIR",
        help="say what changed since these results; exit code 1 on a new failure; repeatable",
    )
    sub.add_argument(
        "--known",
        type=Path,
        metavar="FILE",
        help="a list of expected failures (docs/ci.md); exit code 1 on others (with --against: on new"
        " ones), and on entries that passed or have expired",
    )
    sub.add_argument(
        "--rule", default="", metavar="TEXT", help="only rules and cases with this text"
    )
    sub.add_argument(
        "--kernel", action="append", default=[], metavar="KERNEL", help="only this; repeatable"
    )
    sub.add_argument(
        "--verdict",
        action="append",
        default=[],
        type=str.upper,
        choices=[kind.value for kind in Kind],
        help="only this; repeatable",
    )
    sub.add_argument("--loader", default="", choices=scenario.LOADERS, help="only this")
    sub.add_argument(
        "-v", action="store_true", help="every case, and what is to be said of those that failed"
    )


def bisect_options(sub: argparse.ArgumentParser) -> None:
    """Declare what `spinlock bisect` takes."""
    sub.formatter_class = argparse.RawDescriptionHelpFormatter
    sub.description = """\
Find the kernel version where a case's outcome changed.

spinlock bisect SCENARIO --good A --bad B   between two Debian versions, by binary search
spinlock bisect SCENARIO --run KERNEL       one kernel of your own, as `git bisect run` wants it

Between versions, what was observed is compared, not whether it was as expected there. A version
is good when it does what A does, and bad when it does anything else; B, which may be older than
A, must do something else. One that says nothing (INCONCLUSIVE, ERROR, SKIP) is never good: its
neighbours are tried.

With --run, PASS is good (exit code 0), FAIL, CRASH and KNOWN are bad (1), all else is untestable
(125). With --text, good is what says that text."""
    sub.add_argument("scenario", metavar="SCENARIO", help="a case (see `spinlock list`)")
    sub.add_argument("--good", metavar="VERSION", help="a version, or a minor for its newest")
    sub.add_argument("--bad", metavar="VERSION", help="one with another outcome")
    sub.add_argument("--run", metavar="KERNEL", help="a bzImage or a build tree")
    sub.add_argument(
        "--compare",
        choices=bisect.ASPECTS,
        default="observed",
        help="what must be the same to be good: all that was observed (stage, errno, text), stage and"
        " errno, only the stage, or the verdict (default: %(default)s)",
    )
    sub.add_argument(
        "--text", default="", help="compare only whether this text was in the kernel's words"
    )
    sub.add_argument(
        "--loader",
        choices=scenario.LOADERS,
        default="libbpf",
        help="load through this (default: %(default)s)",
    )
    sub.add_argument("--cpus", type=int, default=4, help="virtual CPUs (default: %(default)s)")
    sub.add_argument("--append", default="", help="more words for the kernel's command line")
    sub.add_argument("--programs", type=Path, metavar="DIR", help="as in `spinlock run`")
    sub.add_argument("--results", metavar="DIR", help="where the results of each version go")
    sub.add_argument("--json", action="store_true", help="the answer as JSON")


# -- run and list ------------------------------------------------------------------------------------
