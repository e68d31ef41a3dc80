# SPDX-License-Identifier: GPL-2.0-only
"""`spinlock explore`: interleave operations in every way, by schedules that can be repeated."""

from __future__ import annotations

import argparse
import collections
import json
from contextlib import closing
from pathlib import Path
from typing import Counter, List, Optional, Sequence, Tuple

from harness.check import examine, lockset
from harness.commands import EXIT_CODES, output
from harness.errors import UsageError
from harness.explore import cases, own, proof, run as running, schedule, verdicts
from harness.judging.verdict import Kind, Verdict
from harness.machines import choose, target
from harness.provision import build, catalogue
from harness.pytest_plugin import run_options
from harness.results.result import Result, exit_code
from harness.running.driven import Guest
from harness.scenarios.programs import Programs
from harness.scenarios.scenario import Rule

RULE = "A held lock keeps others out at every point"


def declare(sub: argparse.ArgumentParser) -> None:
    """Add the options of `spinlock explore`."""
    sub.epilog = EXIT_CODES
    sub.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"of {', '.join(cases.ALL)} (default: all); or one FILE.bpf.c of your own",
    )
    sub.add_argument(
        "--program",
        action="append",
        default=[],
        metavar="NAME",
        help="with FILE: only pairs of these programs; two name one pair",
    )
    sub.add_argument(
        "--kernel",
        action="append",
        default=[],
        metavar="KERNEL",
        help=f"as in `spinlock run`; repeatable (default: {target.DEFAULT_KERNEL})",
    )
    sub.add_argument(
        "--cpus", type=run_options.cpus, default=4, help="virtual CPUs (default: %(default)s)"
    )
    sub.add_argument(
        "--append", type=run_options.append, default="", help="append to the kernel's command line"
    )
    sub.add_argument(
        "--preemptions",
        type=int,
        choices=(1, 2),
        help="the most preemptions of a schedule (default: as many as the case has)",
    )
    sub.add_argument(
        "--replay",
        metavar="SCHEDULE",
        help='carry out this schedule only, such as "A:3 B:end A:end"; goes with one NAME',
    )
    sub.add_argument(
        "--variant",
        default="",
        metavar="NAME",
        help="with --replay: of this twin or pair, by its name",
    )
    sub.add_argument(
        "--times",
        type=int,
        default=1,
        metavar="N",
        help="with --replay: so often (default: %(default)s)",
    )
    sub.add_argument("--json", action="store_true", help="print JSON (see docs/formats.md)")
    sub.add_argument("-o", "--output", type=Path, metavar="FILE", help="write to a file")


def run(options: argparse.Namespace) -> int:
    """Explore cases on kernels, or repeat a schedule; return the exit code. Raises UsageError."""
    if any(name.endswith(".c") for name in options.names):
        return _run_own(options)
    if options.program:
        raise UsageError("--program goes with a FILE.bpf.c.")
    chosen = [cases.find(name) for name in options.names or cases.ALL]
    replay = _replay(options, chosen)
    kernels: List[Optional[str]] = [*catalogue.expand(options.kernel)]
    for name in kernels:
        catalogue.find(str(name))
    programs = Programs.read(build.PROGRAMS)
    rule = programs.rule(RULE)
    results: List[Result] = []
    for name in kernels or [None]:
        settings = target.Settings("qemu", name, options.cpus, append=options.append)
        with closing(choose.open_target(settings, output.progress)) as guests:
            for case in chosen:

                def act(guest: Guest, case: cases.Either = case) -> None:
                    if replay is not None and isinstance(case, cases.Case):
                        _repeat(guest, case, options.variant, replay, options.times)
                    else:
                        proof.conclude(guest, case, options.preemptions or 0)

                results.append(running.result(guests, programs, case.name, rule, act))
                if not options.json:
                    output.put(_text(results[-1]), None)
    _stored(results, options)
    return exit_code(results)


def _run_own(options: argparse.Namespace) -> int:
    """Explore pairs of the user's programs; return the exit code. Raises UsageError."""
    if len(options.names) != 1 or options.variant:
        raise UsageError("A FILE.bpf.c stands alone, and has no --variant.")
    file = Path(options.names[0])
    examine.look(file)
    wanted = schedule.parse(options.replay, 2) if options.replay else None
    kernels: List[Optional[str]] = [*catalogue.expand(options.kernel)]
    for name in kernels:
        catalogue.find(str(name))
    results: List[Result] = []
    for name in kernels or [None]:
        settings = target.Settings("qemu", name, options.cpus, append=options.append)
        with closing(choose.open_target(settings, output.progress)) as guests:
            opened = own.open_file(file, guests.headers())
            pairs = own.pairs(opened, options.program)
            if wanted is not None and len(pairs) != 1:
                raise UsageError("--replay needs --program twice, for one pair.")
            if not options.json:
                output.put(_before(opened), None)
            for pair in pairs:
                results.append(_own_pair(guests, opened, pair, wanted, options))
                if not options.json:
                    output.put(_text(results[-1]), None)
    _stored(results, options)
    return exit_code(results)


def _own_pair(
    guests: target.Target,
    opened: own.Own,
    pair: Tuple[str, str],
    wanted: Optional[schedule.Schedule],
    options: argparse.Namespace,
) -> Result:
    """Explore a pair of the user's programs, or repeat a schedule of it."""
    replay = f"spinlock explore {options.names[0]} --program {pair[0]} --program {pair[1]}"
    replay += f" --kernel {guests.kernel}"

    def act(guest: Guest) -> None:
        loaded = own.Pair(guest, opened, pair)
        if wanted is None:
            loaded.explore(options.preemptions or 2, replay)
        else:
            _told(guest, loaded.repeat(wanted, options.times), options.times)

    title = f"{opened.source.name}: {pair[0]} | {pair[1]}"
    return running.result(guests, Programs(Path(), ()), title, Rule(RULE, "", (), ""), act)


def _before(opened: own.Own) -> str:
    """Return what is said before the schedules: what is watched, and what the lockset tells."""
    locks = lockset.analyse(opened.source.object, opened.source.programs).lines()
    lines = [f"watched: {', '.join(each.name for each in opened.maps)}"]
    lines += [f"not watched: {', '.join(opened.left_out)}"] if opened.left_out else []
    return "\n".join([*lines, *locks]) + "\n"


def _stored(results: Sequence[Result], options: argparse.Namespace) -> None:
    """Print JSON, or write the texts to a file, as the options say."""
    if options.json:
        text = json.dumps([each.to_json() for each in results], indent=1) + "\n"
        output.put(text, options.output)
    elif options.output:
        output.put("".join(map(_text, results)), options.output)


def _replay(options: argparse.Namespace, chosen: List[cases.Either]) -> Optional[schedule.Schedule]:
    """Return the schedule to repeat. Raises UsageError."""
    if options.replay is None:
        if options.variant or options.times != 1:
            raise UsageError("--variant and --times go with --replay.")
        return None
    if len(options.names) != 1:
        raise UsageError("--replay goes with the NAME of one case.")
    if options.times < 1:
        raise UsageError("--times must be 1 or more.")
    case = chosen[0]
    if not isinstance(case, cases.Case):
        raise UsageError(f"{case.name} has one way only, which each run repeats: no --replay.")
    if options.variant not in case.variants:
        known = ", ".join(repr(name) for name in case.variants if name)
        raise UsageError(f"{case.name} has no variant {options.variant!r}: {known}.")
    return schedule.parse(options.replay, len(case.variants[options.variant].actors))


def _repeat(
    guest: Guest, case: cases.Case, variant: str, wanted: schedule.Schedule, times: int
) -> None:
    """Carry out a schedule several times, and conclude with what was seen."""
    outcomes = proof.replayed(guest, case, case.variants[variant], wanted, times)
    named = {outcome: proof.named(guest, outcome) for outcome in set(outcomes)}
    _told(guest, [named[outcome] for outcome in outcomes], times)


def _told(guest: Guest, outcomes: Sequence[schedule.Outcome], times: int) -> None:
    """Conclude with what repetitions of a schedule have shown."""
    different: Counter[schedule.Outcome] = collections.Counter(outcomes)
    evidence: List[str] = []
    for outcome, count in different.most_common():
        evidence.append(f"{count} of {times}:")
        evidence += verdicts.told(outcome, "")
    (_, count), *_ = different.most_common()
    same = f"{count} of {times} times the same"
    if any(outcome.unknown for outcome in different):
        verdict = Verdict(Kind.INCONCLUSIVE, f"a time limit passed; {same}", tuple(evidence))
    elif any(outcome.broken for outcome in different):
        wrong = next(outcome.broken for outcome in different if outcome.broken)
        verdict = Verdict(Kind.FAIL, f"{wrong}; {same}", tuple(evidence))
    else:
        verdict = Verdict(Kind.PASS, f"the memory stayed right; {same}", tuple(evidence))
    guest.conclude(verdict, replayed=times, different=len(different))


def _text(result: Result) -> str:
    head = f"{result.name} on {result.kernel or result.column}: {result.verdict.value}"
    lines = [head, f"  {result.reason}", *(f"    {line}" for line in result.evidence)]
    return "\n".join(lines) + "\n"
