"""The `spinlock` command: a thin front of pytest, and what a VM needs around it."""

from __future__ import annotations

import argparse
import dataclasses
import errno
import importlib.util
import json
import os
import re
import shutil
import signal
import sys
import time
from datetime import date, datetime
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple, Union

import psutil
import pytest
from rich.console import Console

from harness import (
    bench,
    bisect,
    build,
    check,
    command_line,
    completion,
    contests,
    dialect,
    drift as drifting,
    export,
    image,
    kernel,
    known as known_list,
    lockset,
    matrix,
    page,
    parallel,
    paths,
    power,
    qemu,
    report,
    results,
    rulebook,
    scenario,
    target,
)
from harness.errors import SetupError, UsageError
from harness.plugin import LOG_WIDTH, Run, case_name, declare_options, needs_guest

ROOT = paths.root()
OK, FAILED, USAGE, SETUP, INTERRUPTED = 0, 1, 2, 4, 130
ABORT_BISECT = 128  # at 128 and above, `git bisect run` stops instead of going on
SHELL_SECONDS = 3600.0


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run the command; return its exit code: 0 passed, 1 failed or crashed, 2 usage,
    3 inconclusive, 4 harness or set-up error."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that children end, too
    options = _parse(arguments)
    try:
        code: int = options.action(options)
        return code
    except UsageError as error:
        print(f"spinlock: {error}", file=sys.stderr)
        return USAGE
    except SetupError as error:
        if error.console:
            print(error.console.rstrip(), file=sys.stderr)
        print(f"spinlock: {error}", file=sys.stderr)
        return SETUP
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise
        where = f" ({error.filename})" if error.filename else ""
        print(f"spinlock: {error.strerror}{where}: make room, or write elsewhere.", file=sys.stderr)
        return SETUP
    except KeyboardInterrupt:
        print("spinlock: interrupted", file=sys.stderr)
        return INTERRUPTED


def _progress(message: str) -> None:
    """Tell what takes time, apart from what a command prints."""
    print(f"spinlock: {message}", file=sys.stderr)


def _parse(arguments: Optional[Sequence[str]]) -> argparse.Namespace:
    """Return the options. Names may stand before and after them, where argparse by itself ends a list
    of names at the first option."""
    options, more = _parser().parse_known_args(arguments)
    takes = {"names": str, "places": Path}
    listed = next((name for name in takes if hasattr(options, name)), None)
    if more and (listed is None or any(word.startswith("-") for word in more)):
        options.parser.error(f"unrecognized arguments: {' '.join(more)}")
    if more and listed is not None:
        names = [*getattr(options, listed), *map(takes[listed], more)]
        setattr(options, listed, names)
    return options


_EXIT_CODES = (
    "Exit codes: 0 all passed, 1 failed or crashed, 2 usage, 3 inconclusive, 4 set-up error."
)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="spinlock",
        description="Test bpf_spin_lock on a real kernel in a VM.",
        epilog=_EXIT_CODES,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, action: Any, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(action=action, parser=sub)
        return sub

    command("doctor", doctor, "Say what this machine has and lacks, and how to mend it.")
    listing = command("list", list_cases, "List the scenarios, by rule. Needs no VM.")
    listing.add_argument("--json", action="store_true", help="as JSON")
    running = command("run", run, "Run scenarios: all, or those named.")
    running.epilog = _EXIT_CODES
    running.add_argument(
        "names", nargs="*", metavar="NAME", help="a scenario (see `spinlock list`)"
    )
    declare_options(running.add_argument)
    running.add_argument("-j", type=int, default=1, metavar="N", help="N guests at once")
    running.add_argument(
        "-k", metavar="EXPRESSION", help="only cases whose names fit, as in pytest"
    )
    running.add_argument("-x", action="store_true", help="stop at the first that does not pass")
    running.add_argument("-v", action="store_true", help="a line per case as it ends")
    command_line.report_options(
        command("report", report_command, "Show results: rules x kernels, as text or as a page.")
    )
    command_line.bisect_options(
        command("bisect", bisect_command, "Find the kernel version where a case's outcome changed.")
    )
    command_line.check_options(
        command("check", check_command, "Load your own program on every kernel; say what is wrong.")
    )
    command_line.power_options(
        command("power", power_command, "Measure how often each broken twin of a lock is seen.")
    )
    command_line.bench_options(
        command("bench", bench_command, "Measure what a lock costs, by driver and number of CPUs.")
    )
    shell_command = command(
        "shell", shell, "A root shell in a fresh guest; it is gone when you leave."
    )
    shell_command.add_argument(
        "--kernel",
        metavar="KERNEL",
        default=target.DEFAULT_KERNEL,
        help="as in `spinlock run`, but one (default: %(default)s)",
    )
    shell_command.add_argument(
        "--cpus", type=int, default=4, help="virtual CPUs (default: %(default)s)"
    )
    shell_command.add_argument(
        "words", nargs=argparse.REMAINDER, metavar="COMMAND", help="run this and leave"
    )
    kernels = command("kernels", kernels_command, "List, fetch or remove Debian's kernels.")
    kernels.add_argument(
        "what",
        choices=("list", "fetch", "remove"),
        nargs="?",
        default="list",
        help="list: what there is, and what is fetched (default); fetch: download and prepare;"
        " remove: from the cache",
    )
    kernels.add_argument(
        "names",
        nargs="*",
        metavar="KERNEL",
        help="6.12, with a flavour 6.12-rt, a version 6.12.43; all: the newest of each minor",
    )
    kernels.add_argument("--json", action="store_true", help="with list: as JSON")
    kernels.add_argument(
        "--available", action="store_true", help="with list: also the versions that Debian has now"
    )
    kernels.add_argument(
        "--update", action="store_true", help="with fetch: again what is there, for a newer version"
    )
    images = command("image", image_command, "Build or remove the guest's userland and kernel.")
    images.add_argument(
        "what",
        choices=("build", "remove", "show"),
        nargs="?",
        default="show",
        help="show: where they are (default); build: what is missing; remove: all that was cached,"
        " fetched kernels too",
    )
    completing = command(
        "completion", completion_command, "Print what makes a shell complete this command."
    )
    completing.add_argument(
        "shell", choices=completion.SHELLS, help="bash: eval it; zsh: put it into $fpath"
    )
    return parser


def run(options: argparse.Namespace) -> int:
    """Run scenarios through pytest; map their verdicts to the exit code."""
    arguments = [*_common(), *_tests()]
    arguments += [f"--scenario={name}" for name in options.names]
    arguments += [f"--kernel={name}" for name in options.kernel or ()]
    for name in ("target", "loader", "cpus", "programs", "append", "results", "shard"):
        value = getattr(options, name)
        arguments += [] if value is None else [f"--{name}={value}"]
    arguments += ["-k", options.k] if options.k else []
    arguments += ["-x"] * options.x + ["-vv"] * options.v + ["--resume"] * options.resume
    jobs = options.j
    if options.target in (None, "qemu"):
        available = psutil.virtual_memory().available >> 20
        jobs, less = parallel.bounded(jobs, available, len(os.sched_getaffinity(0)))
        if less:
            print(f"spinlock: {less}", file=sys.stderr)
    if jobs > 1:
        if importlib.util.find_spec("xdist") is None:
            raise SetupError(f"-j {jobs} needs pytest-xdist: `pip install pytest-xdist`.")
        arguments += ["-n", str(jobs), "--dist", "loadgroup"]
    keep = _Keep()
    code = int(pytest.main(arguments, plugins=[keep]))
    ended = [pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED]
    if options.resume or options.shard:  # nothing may be left to do
        ended.append(pytest.ExitCode.NO_TESTS_COLLECTED)
    if keep.run is not None and keep.run.failed_setup is not None:
        return SETUP
    if code in ended and keep.run is not None:
        return results.exit_code(keep.run.results)
    if code == pytest.ExitCode.NO_TESTS_COLLECTED:
        raise UsageError("No case fits all that was asked for; `spinlock list` shows them.")
    return {
        pytest.ExitCode.INTERRUPTED: INTERRUPTED,
        pytest.ExitCode.USAGE_ERROR: USAGE,
    }.get(pytest.ExitCode(code), SETUP)


def list_cases(options: argparse.Namespace) -> int:
    """Print every case with its rule."""
    cases = _cases()
    if options.json:
        print(json.dumps(list(cases.values()), indent=1))
        return OK
    console = Console(highlight=False)
    rules: Dict[str, List[Dict[str, Any]]] = {}
    for row in cases.values():
        rules.setdefault(row["rule"], []).append(row)
    width = max(len(name) for name in cases) + 4
    for rule, rows in rules.items():
        console.print(rule, style="bold")
        for row in rows:
            console.print(
                f"  {row['name']:<{width}}{'+'.join(row['loaders']):<14}{row['where']}",
                soft_wrap=True,
            )
    console.print(f"{len(cases)} scenarios, {len(rules)} rules")
    return OK


def _cases() -> Dict[str, Dict[str, Any]]:
    """Return every case by name. Raises UsageError."""
    keep = _Keep()
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        saved, sys.stdout = sys.stdout, nowhere
        try:
            code = pytest.main(
                [*_common(), *_tests(), "--collect-only", "--loader", "all"], plugins=[keep]
            )
        finally:
            sys.stdout = saved
    if code != pytest.ExitCode.OK:
        raise UsageError("The scenarios could not be read; `pytest --collect-only tests` says why.")
    cases: Dict[str, Dict[str, Any]] = {}
    for item in keep.items:
        row = cases.setdefault(case_name(item), _row(item))
        row["loaders"].append(getattr(item, "callspec").params["loader"])
    return cases


def _row(item: pytest.Item) -> Dict[str, Any]:
    params = getattr(item, "callspec").params
    case = params.get("scenario")
    path, line = (case.file, case.line) if case else (item.path, (item.location[1] or 0) + 1)
    return {
        "name": case_name(item),
        "rule": case.rule if case else getattr(getattr(item, "module"), "RULE"),
        "description": (
            case.description if case else (getattr(item, "obj").__doc__ or "").split("\n")[0]
        ),
        "where": f"{path.parent.name}/{path.name}:{line}",
        "loaders": [],
    }


class _Keep:
    """Keeps what a pytest run leaves in memory."""

    def __init__(self) -> None:
        self.run: Optional[Run] = None
        self.items: List[pytest.Item] = []

    def pytest_plugin_registered(self, plugin: object) -> None:
        """Remember the run's plugin; with -j this is the process that collects the results."""
        self.run = plugin if isinstance(plugin, Run) else self.run

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Remember the cases."""
        self.items = [item for item in session.items if needs_guest(item)]


def _common() -> List[str]:
    # The plugin is imported here before pytest can rewrite its asserts, of which it has none.
    quiet = ["-q", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
    return ["-c", str(ROOT / "setup.cfg"), f"--rootdir={ROOT}", "-p", "no:cacheprovider", *quiet]


def _tests() -> List[str]:
    return [str(path) for path in sorted((ROOT / "tests").glob("test_*.py"))]


# -- bisect ----------------------------------------------------------------------------------------


def bisect_command(options: argparse.Namespace) -> int:
    """Search among Debian's versions, or say good or bad of one kernel."""
    searching = options.good is not None and options.bad is not None
    if searching == (options.run is not None) or (options.run and (options.good or options.bad)):
        raise UsageError("Give either --good VERSION and --bad VERSION, or --run KERNEL.")
    more = ["--cpus", str(options.cpus)]
    more += [f"--append={options.append}"] if options.append else []
    more += ["--programs", str(options.programs.absolute())] if options.programs else []
    chosen = options.results or f"results/bisect-{datetime.now():%Y-%m-%dT%H.%M.%S}"
    question = bisect.Question(
        options.scenario,
        options.loader,
        options.compare,
        options.text,
        tuple(more),
        Path(chosen).absolute(),
    )
    if options.run is not None:
        try:
            result = bisect.run_case(question, str(Path(options.run).absolute()), "kernel")
        except (UsageError, SetupError) as error:
            print(f"spinlock: {error}", file=sys.stderr)
            return ABORT_BISECT  # a mistake of the user's must not be taken for a kernel's
        code = bisect.status(result, options.text)
        word = {bisect.GOOD: "good", bisect.BAD: "bad"}.get(code, "untestable")
        print(f"{word}: {result.kernel or options.run}: {result.verdict.value}: {result.reason}")
        return code
    versions = bisect.debian_versions(
        options.good, options.bad, lambda minor: kernel.available(minor, _progress)
    )
    answer = bisect.Bisection(question, _progress).run(versions)
    print(json.dumps(answer.to_json(), indent=1) if options.json else "\n".join(answer.lines()))
    return OK


# -- check -----------------------------------------------------------------------------------------


def check_command(options: argparse.Namespace) -> int:
    """Load a program of the user's own; return 1 if a kernel that is required refuses it."""
    if options.cpus < 1:
        raise UsageError(f"--cpus {options.cpus}: a guest needs at least one CPU.")
    if options.section and options.loader != "bcc":
        raise UsageError("--section goes with --loader bcc; an object has its own SEC().")
    named = [name for name in options.kernel if name != "all"]
    required = kernel.expand([*named, *options.require])
    chosen = kernel.expand([*options.kernel, *options.require])
    if not chosen and options.target in (None, "qemu"):
        chosen = required = [target.DEFAULT_KERNEL]
    for chosen_name in chosen:
        kernel.find(chosen_name)

    source: Union[check.Source, dialect.Text, None] = None
    if options.loader == "bcc":
        source = check.open_text(options.file, options.D, _sections(options))
    elif options.file.suffix != ".c":  # what is no object needs no guest to say so
        source = check.open_source(options.file, Path())
    if source is not None:
        check.choose(source, options.program)
    rows = []
    asked: List[Optional[str]] = [*chosen]
    for name in asked or [None]:  # None: whatever a running machine has
        settings = target.Settings(options.target, name, options.cpus, append=options.append)
        guests = target.open_target(settings, _progress)
        try:
            if source is None:
                source = check.open_source(options.file, guests.headers(), options.I, options.D)
            programs = check.choose(source, options.program)
            shown = name or guests.name
            _progress(f"{source.name} on {shown}")
            if isinstance(source, check.Source):
                rows.append(check.examine(guests, shown, source, programs, options.run))
            else:
                rows.append(check.examine_text(guests, shown, source, programs))
        finally:
            guests.close()
    assert source is not None
    locks = None
    if isinstance(source, check.Source):
        locks = lockset.analyse(source.object, programs)
    found = check.Report(source, programs, tuple(rows), locks)
    if options.json:
        text = json.dumps(check.to_json(found), indent=1) + "\n"
    else:
        text = check.markdown(found) if options.markdown else check.terminal(found)
    _put(text, options.output)
    return check.exit_code(found, required or [row.kernel for row in rows if not chosen])


def _sections(options: argparse.Namespace) -> Dict[str, str]:
    """Return the kinds of programs that were named. Raises UsageError."""
    if options.run or options.I:
        word = "--run" if options.run else "-I"
        raise UsageError(f"{word} does not go with --loader bcc, which compiles in the guest.")
    sections = {}
    for word in options.section:
        name, equals, kind = word.partition("=")
        if not (name and equals and kind):
            raise UsageError(f"--section {word}: NAME=KIND was expected, as in count=xdp.")
        sections[name] = kind
    return sections


# -- power -----------------------------------------------------------------------------------------


def power_command(options: argparse.Namespace) -> int:
    """Run contests and their broken twins so often, and count; or count what was kept."""
    if options.times < 1 or not 0 < options.at_least <= 1:
        raise UsageError("--times must be 1 or more, and --at-least above 0 and at most 1.")
    if options.read:
        return _say(options, power.Report(power.read(options.read), options.at_least))
    chosen = {name: contests.ALL[name] for name in options.driver or contests.ALL}
    loaders = scenario.LOADERS if options.loader == "all" else (options.loader,)
    kept = Path(options.results or f"results/power-{datetime.now():%Y-%m-%dT%H.%M.%S}")
    log = power.Log(kept.absolute())
    records: List[power.Record] = []
    code = OK
    try:
        for guests in _targets(options, options.cpus or [4]):
            for loader, name in ((loader, name) for loader in loaders for name in chosen):
                ways = [contests.WORDS[word] for word in options.twin] or list(chosen[name].twins)
                line = f"{guests.kernel or guests.name}, {guests.cpus} CPUs, {loader}: {name}"
                tell = _Ticker(line, options.times * (1 + len(ways)))

                def keep(record: power.Record, tell: "_Ticker" = tell) -> None:
                    log.add(record)
                    records.append(record)
                    tell(record.way if isinstance(record, power.Trial) else record.kind.value)

                power.measure(guests, loader, name, chosen[name], ways, options.times, keep)
                tell.end()
    except KeyboardInterrupt:
        code = INTERRUPTED
    finally:
        log.close()
    _progress(f"{'interrupted; ' if code else ''}every run is kept in {log.path}")
    said = _say(options, power.Report(tuple(records), options.at_least)) if records else SETUP
    return code or said


def _say(options: argparse.Namespace, report_: power.Report) -> int:
    """Print a report of measurements in the form asked for; return its exit code."""
    if options.json:
        text = json.dumps(report_.to_json(), indent=1) + "\n"
    else:
        text = report_.markdown() if options.markdown else report_.terminal()
    _put(text, options.output)
    return report_.exit_code()


# -- bench -----------------------------------------------------------------------------------------


def bench_command(options: argparse.Namespace) -> int:
    """Measure how fast counters are, locked and otherwise; or show what was measured."""
    if options.times < 1:
        raise UsageError("--times must be 1 or more.")
    samples: List[bench.Sample] = list(bench.read(options.read)) if options.read else []
    code = OK
    try:
        for guests in () if options.read else _targets(options, [max(options.cpus or [4])]):
            counts = sorted(set(options.cpus or (1, 2, 4)))
            counts = [count for count in counts if count <= guests.cpus]
            drivers = options.driver or list(bench.DRIVERS)
            what = f"{guests.kernel or guests.name}, {options.loader}"
            each = 1 + len(drivers) * len(bench.KINDS)
            tell = _Ticker(what, options.times * len(counts) * each)

            def keep(sample: bench.Sample, tell: _Ticker = tell) -> None:
                samples.append(sample)
                tell(f"{sample.driver} on {sample.cpus} CPUs, {sample.kind}")

            bench.measure(guests, options.loader, drivers, counts, options.times, keep)
            tell.end()
    except KeyboardInterrupt:
        _progress("interrupted")
        code = INTERRUPTED
    benches = bench.summarize(samples)
    if not benches or not any(each.rows for each in benches):
        return code or SETUP
    if options.json:
        text = json.dumps(bench.to_json(samples), indent=1) + "\n"
    else:
        text = bench.markdown(benches) if options.markdown else bench.terminal(benches)
    _put(text, options.output)
    for path, made in ((options.html, bench.html), (options.svg, lambda all_: bench.svg(all_[0]))):
        if path is not None:
            _put(made(benches), path)
    for sentence in bench.wrong(samples):
        print(f"spinlock: counts are wrong: {sentence}", file=sys.stderr)
    return code or (FAILED if bench.wrong(samples) else OK)


def _targets(options: argparse.Namespace, cpus: Sequence[int]) -> Iterator[target.Target]:
    """Open one target after the other, for each kernel and number of CPUs."""
    if any(count < 1 for count in cpus):
        raise UsageError("--cpus must be 1 or more.")
    names: List[Optional[str]] = [*kernel.expand(options.kernel)]
    for name in names:
        kernel.find(str(name))
    for name in names or [None]:
        for count in cpus:
            settings = target.Settings(options.target, name, count, append=options.append)
            guests = target.open_target(settings, _progress)
            try:
                yield guests
            finally:
                guests.close()


class _Ticker:
    """Tells how far something is: in one line of a terminal, else now and then."""

    EVERY_SECONDS = 60.0

    def __init__(self, what: str, steps: int) -> None:
        self._what, self._steps, self._done = what, steps, 0
        self._started = self._told = time.monotonic()

    def __call__(self, word: str) -> None:
        """A step is done."""
        self._done += 1
        now = time.monotonic()
        left = (now - self._started) / self._done * max(0, self._steps - self._done)
        line = f"spinlock: {self._what}: {self._done} of {self._steps} runs, {left:.0f} s to go: {word}"
        if sys.stderr.isatty():
            width = shutil.get_terminal_size().columns - 1
            print(f"\r\033[K{line[:width]}", end="", file=sys.stderr, flush=True)
        elif now - self._told >= self.EVERY_SECONDS:
            self._told = now
            print(line, file=sys.stderr)

    def end(self) -> None:
        """Say that it is done."""
        spent = time.monotonic() - self._started
        start = "\r\033[K" if sys.stderr.isatty() else ""
        print(f"{start}spinlock: {self._what}: {self._done} runs in {spent:.0f} s", file=sys.stderr)


# -- report ----------------------------------------------------------------------------------------


def report_command(options: argparse.Namespace) -> int:
    """Show the results of runs, or the rule book."""
    if options.rules:
        return _put(rulebook.markdown(scenario.read_directory(build.PROGRAMS)), options.output)
    if options.against and options.verdict:
        raise UsageError("--verdict and --against do not go together: a verdict may have changed.")
    if options.html and options.output:
        raise UsageError("--html FILE says where the page goes: leave out -o.")
    reading = matrix.read(options.places)
    for note in reading.notes:
        print(f"spinlock: {note}", file=sys.stderr)
    chosen = matrix.Selection(
        options.rule, tuple(options.kernel), tuple(options.verdict), options.loader
    )
    pivot = matrix.Matrix(chosen.of(reading.results))
    known = _known(options.known, pivot.results)
    drift = _drift(options.against, chosen, pivot.results, known)
    code = FAILED if drift is not None and drift.regressed else OK
    if known is not None and (known.stale or (drift is None and known.unknown)):
        code = FAILED
    _put(*_report(options, pivot, drift, known))
    if code != OK and (options.junit or options.ktap or options.kcidb is not None):
        # These forms have no place for the reason.
        said = [str(change) for change in drift.of(drifting.What.REGRESSION)] if drift else []
        said = [f"new failure: {change}" for change in said] + (known.lines() if known else [])
        for line in said:
            print(f"spinlock: {line}", file=sys.stderr)
    return code


def _known(path: Optional[Path], found: Sequence[results.Result]) -> Optional[known_list.Known]:
    if path is None:
        return None
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise UsageError(f"Cannot read {path} ({reason}).") from None
    return known_list.apply(known_list.parse(text, str(path)), found, date.today())


def _drift(
    places: Sequence[Path],
    chosen: matrix.Selection,
    found: Sequence[results.Result],
    known: Optional[known_list.Known],
) -> Optional[drifting.Drift]:
    """Compare with a baseline."""
    if not places:
        return None
    reading = matrix.read(places)
    for note in reading.notes:
        print(f"spinlock: {note}", file=sys.stderr)
    baseline = dataclasses.replace(chosen, kernels=()).of(reading.results)
    if chosen.kernels:
        names = {matrix.column(result) for result in found}
        baseline = [result for result in baseline if matrix.column(result) in names]
    return drifting.compare(baseline, found, known.keys if known else frozenset())


def _report(
    options: argparse.Namespace,
    pivot: matrix.Matrix,
    drift: Optional[drifting.Drift],
    known: Optional[known_list.Known],
) -> Tuple[str, Optional[Path]]:
    """Return a report in the form asked for, and where it goes."""
    if options.html:
        return page.html(pivot, drift, known), options.html
    if options.json:
        data = matrix.to_json(pivot)
        data.update({"drift": drift.to_json()} if drift else {})
        data.update({"known": known.to_json()} if known else {})
        return json.dumps(data, indent=1) + "\n", options.output
    if options.markdown:
        return report.markdown(pivot, drift, known), options.output
    if options.junit:
        return export.junit(pivot), options.output
    if options.ktap:
        return export.ktap(pivot), options.output
    if options.kcidb is not None:
        if not re.fullmatch("[a-z0-9_]+", options.kcidb):
            raise UsageError(
                f"--kcidb {options.kcidb}: an origin consists of a-z, 0-9 and _, as KCIDB wants it."
            )
        return json.dumps(export.kcidb(pivot, options.kcidb), indent=1) + "\n", options.output
    console = Console()
    colour = options.output is None and console.is_terminal
    width = console.width if colour else LOG_WIDTH
    parts = [report.terminal(pivot, width, colour, options.v), "\n".join(report.totals(pivot))]
    if options.v:
        parts += [report.explain(result, whole=True) for result, _ in pivot.notable()]
    parts += [report.changes(drift, width)] if drift is not None else []
    parts += ["\n".join(known.lines())] if known is not None and known.lines() else []
    return "\n\n".join(parts) + "\n", options.output


def _put(text: str, output: Optional[Path]) -> int:
    """Write a report where it is wanted. Raises SetupError when it cannot be written."""
    if output is None:
        sys.stdout.write(text)
        return OK
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise SetupError(f"Cannot write {output} ({error.strerror}).") from None
    print(output)
    return OK


# -- doctor, shell, image ------------------------------------------------------------------------------


def doctor(options: argparse.Namespace) -> int:
    """Print each need with ok or missing and what to do."""
    console = Console(highlight=False)
    worst = OK

    def line(what: str, state: str, detail: str) -> None:
        style = {"ok": "green", "missing": "red", "note": "yellow"}[state]
        console.print(f"[{style}]{state:<8}[/]{what:<16}{detail}", soft_wrap=True)

    def need(what: str, check: Any) -> None:
        nonlocal worst
        try:
            line(what, "ok", str(check()))
        except (SetupError, UsageError) as error:
            worst = SETUP
            line(what, "missing", str(error))

    need("clang", lambda: build.clang_version(str(build.clang())))
    need("qemu", qemu.version)
    found_image = image.cached()
    if found_image is None:
        line("image", "note", "not built yet; `make image` or the first run builds it")
    else:
        line("image", "ok", ", ".join(f"{k} {v}" for k, v in found_image.versions.items()))
    found_kernel = kernel.cached(target.DEFAULT_KERNEL)
    if found_kernel is None:
        line("kernel", "note", f"{target.DEFAULT_KERNEL} is not fetched yet; the first run does it")
    else:
        line("kernel", "ok", f"{found_kernel.release}, {_headers(found_kernel)}")
        if worst == OK:
            accelerator = qemu.accelerator(found_kernel)
            meaning = (
                "guests run at native speed"
                if accelerator == "kvm"
                else "KVM does not boot this kernel here; emulation works, slower"
            )
            line(
                "accelerator", "ok" if accelerator == "kvm" else "note", f"{accelerator}: {meaning}"
            )
    for tool, package in (("mmdebstrap", "mmdebstrap"), ("mksquashfs", "squashfs-tools")):
        if found_image is None or found_kernel is None:
            need(tool, lambda tool=tool, package=package: _tool(tool, package))
    vagrant = shutil.which("vagrant")
    line(
        "vagrant",
        "ok" if vagrant else "note",
        vagrant or "not installed; only `vagrant up` needs it (`make setup-vagrant`)",
    )
    return worst


def _tool(name: str, package: str) -> str:
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if found is None:
        raise SetupError(f"install the package {package}, or run `make setup`.")
    return found


def shell(options: argparse.Namespace) -> int:
    """Give a root shell in a fresh guest, or run one command in it."""
    settings = target.Settings("qemu", options.kernel, options.cpus)
    guests = target.open_target(settings, _progress)
    with guests.session() as session:
        command = options.words[1:] if options.words[:1] == ["--"] else options.words
        words = command or ([] if sys.stdin.isatty() else ["/bin/bash"])
        if words:
            typed = "" if command else sys.stdin.read()
            try:
                done = session.call("command", arguments=words, input=typed, limit=SHELL_SECONDS)
            except target.KernelRefusal as refusal:
                raise UsageError(f"The guest cannot run {words[0]!r}: {refusal.errno}.") from None
            sys.stdout.write(done["stdout"])
            sys.stderr.write(done["stderr"])
            status: int = done["status"]
            return status
        return session.interact(["/bin/bash", "-l"])


def kernels_command(options: argparse.Namespace) -> int:
    """List, fetch or remove kernels."""
    if options.what == "list":
        return _list_kernels(options)
    if not options.names:
        raise UsageError(f"Which? `spinlock kernels {options.what} all`, or names of a list.")
    for name in kernel.expand(options.names):
        if options.what == "fetch":
            got = kernel.fetch(name, _progress, update=options.update)
            print(f"{name:<12}{got.release:<32}{_headers(got)}")
        else:
            print(f"{name:<12}{'removed' if kernel.remove(name) else 'was not there'}")
    return OK


def _list_kernels(options: argparse.Namespace) -> int:
    there = kernel.fetched()
    rows: List[Dict[str, Any]] = []
    chosen = kernel.expand(options.names) if options.names else [*kernel.names(), *there]
    for name in dict.fromkeys(chosen):
        got = there.get(name)
        row: Dict[str, Any] = {"name": name, "release": got.release if got else None}
        if got is not None:
            row["headers"], row["mib"] = got.headers, kernel.size_mib(got)
        if options.available and name in kernel.MINORS:
            row["available"] = kernel.available(name, _progress)
        rows.append(row)
    if options.json:
        print(json.dumps(rows, indent=1))
        return OK
    for row in rows:
        if row["release"]:
            detail = f"{row['release']:<32}{row['mib']:>5} MiB  {_headers(there[row['name']])}"
        else:
            detail = "not fetched"
        print(f"{row['name']:<16}{detail}")
        for version in row.get("available", ()):
            print(f"    {version}")
    return OK


def _headers(found: kernel.Kernel) -> str:
    if found.headers == "own":
        return "with headers for bcc"
    if found.headers:
        return f"with headers of {found.headers} for bcc"
    return "without headers, so without bcc"


def completion_command(options: argparse.Namespace) -> int:
    """Print a shell's completion of this command."""
    known = ["all", *kernel.names()]
    sys.stdout.write(completion.script(_parser(), options.shell, list(_cases()), known))
    return OK


def image_command(options: argparse.Namespace) -> int:
    """Build, remove or show the guest's userland and the default kernel."""
    if options.what == "remove":
        return _remove()
    if options.what == "build":
        image.ensure(_progress)
        kernel.fetch(target.DEFAULT_KERNEL, _progress)
    found, booted = image.cached(), kernel.cached(target.DEFAULT_KERNEL)
    if found is None or booted is None:
        print("spinlock: not built; `spinlock image build` builds it", file=sys.stderr)
        return SETUP
    for name, path in (
        ("userland", found.root),
        ("kernel", booted.vmlinux),
        ("modules", booted.modules or booted.initrd),
    ):
        print(f"{name:<10}{path}  {path.stat().st_blocks * 512 >> 20} MiB")
    return OK


def _remove() -> int:
    for name in ("image", "box", "kernels", "guests", "apt", "build", "agent", "probe"):
        shutil.rmtree(paths.cache(name), ignore_errors=True)
    return OK


if __name__ == "__main__":
    sys.exit(main())
