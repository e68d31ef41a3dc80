# SPDX-License-Identifier: GPL-2.0-only
"""`spinlock bench`: measures the cost of a lock by hook and number of CPUs.

The same program counts in four ways: in a counter per CPU, or in one counter for all CPUs. The
latter uses an atomic add, a lock, or neither, which loses counts. Ratios are comparable between
machines, so tables show them first: the speed relative to counters per CPU, and relative to
BPF_PROG_TEST_RUN of an empty program. Everything but `measure` is pure.
"""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple

import jinja2

from harness.errors import SetupError, UsageError
from harness.guest import calls
from harness.machines.loss import GuestLost
from harness.machines.session import AgentError, KernelRefusal, Session
from harness.machines.target import Target
from harness.provision import build
from harness.running import experiment
from harness.running.maps import Loaded
from harness.scenarios import annotation

FILE = "speed.bpf.c"
# The kinds of counter, in the order of their numbers in bpf_progs/driven/speed.bpf.c.
PER_CPU, ATOMIC, UNLOCKED, LOCKED = "per-CPU", "atomic", "unlocked", "locked"
KINDS = (PER_CPU, ATOMIC, UNLOCKED, LOCKED)
NOTHING = "nothing"  # an empty program under BPF_PROG_TEST_RUN: the raw rate

DRIVERS: Dict[str, str] = {
    "test_run": "speed_of_test_run",
    "xdp_native": "speed_of_xdp",
    "xdp_generic": "speed_of_xdp",
    "tc_ingress": "speed_of_tc_ingress",
    "tc_egress": "speed_of_tc_egress",
    "cgroup_skb_ingress": "speed_of_cgroup_skb_ingress",
    "cgroup_skb_egress": "speed_of_cgroup_skb_egress",
}

LONG_ENOUGH_SECONDS = 0.5  # minimum of a measurement; a shorter one measures process wake-ups
_FIRST_OPERATIONS = 500  # per CPU
_MOST_OPERATIONS = 50_000_000
_LIMIT_SECONDS = 300.0


# -- what was measured ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sample:
    """One measurement."""

    kernel: str  # as the user named it
    release: str
    accelerator: str
    loader: str
    driver: str
    cpus: int
    kind: str  # of KINDS, or NOTHING
    ran: int  # runs on all CPUs together
    seconds: float
    counted: int
    looks: int  # arrivals that looked at the lock
    busy: int  # arrivals that found it held

    @property
    def rate(self) -> float:
        """Runs per second of all CPUs together."""
        return self.ran / self.seconds

    @property
    def lost(self) -> float:
        """The share (0 to 1) of runs that are missing from the count."""
        return 1 - self.counted / self.ran


@dataclass(frozen=True)
class Row:
    """One driver on a number of CPUs, with the medians of its measurements."""

    driver: str
    cpus: int
    rates: Mapping[str, float]  # by kind; runs per second
    raw: Optional[float]  # rate of test runs of an empty program on as many CPUs
    held: Optional[float]  # share of arrivals that found the lock held
    lost: Optional[float]  # share of counts that were lost without the lock

    def against(self, kind: str, other: Optional[float]) -> Optional[float]:
        """Return the rate of a kind divided by another rate."""
        return self.rates[kind] / other if kind in self.rates and other else None

    @property
    def against_per_cpu(self) -> Optional[float]:
        """The rate with the lock divided by the rate of counters per CPU."""
        return self.against(LOCKED, self.rates.get(PER_CPU))


@dataclass(frozen=True)
class Bench:
    """The measurements on one kernel through one loader."""

    title: str
    rows: Tuple[Row, ...]

    @property
    def drivers(self) -> List[str]:
        """The drivers, in the order of the rows."""
        return list(dict.fromkeys(row.driver for row in self.rows))


def read(path: Path) -> Tuple[Sample, ...]:
    """Read the measurements in a file that to_json() made. Raises UsageError."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return tuple(Sample(**sample) for sample in data["samples"])
    except OSError as error:
        raise UsageError(f"Cannot read {path} ({error.strerror}).") from None
    except (ValueError, KeyError, TypeError):
        raise UsageError(f"{path} is not what `spinlock bench --json` writes.") from None


def summarize(samples: Iterable[Sample]) -> List[Bench]:
    """Return the medians by kernel and loader."""
    groups: Dict[Tuple[str, ...], List[Sample]] = {}
    for sample in samples:
        key = sample.release, sample.loader, sample.accelerator
        groups.setdefault(key, []).append(sample)
    return [_bench(of_kernel) for of_kernel in groups.values()]


def _bench(samples: Sequence[Sample]) -> Bench:
    first = samples[0]
    emulated = f", {first.accelerator}" if first.accelerator else ""
    places = dict.fromkeys((s.driver, s.cpus) for s in samples if s.kind != NOTHING)

    def median(values: Sequence[float]) -> Optional[float]:
        return statistics.median(values) if values else None

    rows = []
    for driver, cpus in places:
        here = [s for s in samples if (s.driver, s.cpus) == (driver, cpus) and s.kind != NOTHING]
        raw = [s.rate for s in samples if s.kind == NOTHING and s.cpus == cpus]
        kinds = [kind for kind in KINDS if any(s.kind == kind for s in here)]
        rates = {k: statistics.median(s.rate for s in here if s.kind == k) for k in kinds}
        held = [s.busy / s.looks for s in here if s.kind == LOCKED and s.looks]
        lost = [s.lost for s in here if s.kind == UNLOCKED]
        rows.append(Row(driver, cpus, rates, median(raw), median(held), median(lost)))
    rows.sort(key=lambda row: (list(DRIVERS).index(row.driver), row.cpus))
    return Bench(f"{first.release}, {first.loader}{emulated}", tuple(rows))


def wrong(samples: Iterable[Sample]) -> List[str]:
    """Return a sentence for every locked, atomic or per-CPU counter with a wrong count."""
    return [
        f"{s.driver} on {s.cpus} CPUs, {s.release}, {s.kind}: {s.ran} ran, {s.counted} were counted"
        for s in samples
        if s.kind in (PER_CPU, ATOMIC, LOCKED) and s.counted != s.ran
    ]


# -- tables --------------------------------------------------------------------------------------------

_HEADS = ("driver", "CPUs", "locked / per-CPU", "locked / raw", "held", "lost unlocked")


def _table(bench: Bench) -> List[Tuple[str, ...]]:
    """Return the rows of a table: first ratios, then rates per second."""
    rows = [(*_HEADS, *(f"{kind}/s" for kind in KINDS), "raw/s")]
    last = ""
    for row in bench.rows:
        rates = (*(_short(row.rates.get(kind)) for kind in KINDS), _short(row.raw))
        ratios = (_ratio(row.against_per_cpu), _ratio(row.against(LOCKED, row.raw)))
        shown = row.driver if row.driver != last else ""
        last = row.driver
        rows.append((shown, str(row.cpus), *ratios, _share(row.held), _share(row.lost), *rates))
    return rows


def terminal(benches: Sequence[Bench]) -> str:
    """Return the tables for a terminal."""
    parts = []
    for bench in benches:
        rows = _table(bench)
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = [
            "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])])
            for row in rows
        ]
        parts.append("\n".join([bench.title, *lines]))
    return "\n\n".join(parts) + "\n"


def markdown(benches: Sequence[Bench]) -> str:
    """Return the tables as Markdown."""
    parts = []
    for bench in benches:
        head, *rows = _table(bench)
        lines = [f"**{bench.title}**", "", f"| {' | '.join(head)} |"]
        lines.append(f"|---|{'---:|' * (len(head) - 1)}")
        parts.append("\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)]))
    return "\n\n".join(parts) + "\n"


def to_json(samples: Sequence[Sample]) -> Dict[str, Any]:
    """Return the medians and every measurement as JSON."""
    return {
        "format": 1,
        "kernels": [
            {
                "title": bench.title,
                "rows": [
                    {
                        "driver": row.driver,
                        "cpus": row.cpus,
                        "locked_by_per_cpu": _rounded(row.against_per_cpu),
                        "by_raw": {k: _rounded(row.against(k, row.raw)) for k in row.rates},
                        "held": _rounded(row.held),
                        "lost_unlocked": _rounded(row.lost),
                        "raw_per_second": row.raw and round(row.raw),
                        "per_second": {kind: round(rate) for kind, rate in row.rates.items()},
                    }
                    for row in bench.rows
                ],
            }
            for bench in summarize(samples)
        ],
        "samples": [asdict(sample) for sample in samples],
    }


def _rounded(value: Optional[float]) -> Optional[float]:
    return None if value is None else round(value, 4)


def _ratio(value: Optional[float]) -> str:
    return "–" if value is None else f"{value:.2g}" if value < 0.1 else f"{value:.2f}"


def _share(value: Optional[float]) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def _short(rate: Optional[float]) -> str:
    """Return a rate with three digits, in thousands or millions."""
    if rate is None:
        return "–"
    for size, letter in ((1e6, " M"), (1e3, " k")):
        if rate >= size:
            return f"{rate / size:.3g}{letter}"
    return f"{rate:.3g}"


# -- plots ---------------------------------------------------------------------------------------------

# The size of a panel, and the places of its upper plot (speed) and lower plot (held), in SVG units.
WIDTH, HEIGHT = 300, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 38, 288, 34, 158
_BARS_TOP, _BARS_BOTTOM = 186, 222


@dataclass(frozen=True)
class Line:
    """One kind of counter: its points from few CPUs to many."""

    kind: str
    points: Tuple[Tuple[float, float], ...]


@dataclass(frozen=True)
class Panel:
    """The plot of one driver. All positions are computed here; the template only prints them."""

    driver: str
    lines: Tuple[Line, ...]
    ticks: Tuple[Tuple[float, str], ...]  # of speed: height, label
    columns: Tuple[Tuple[float, str], ...]  # CPUs: place, label
    bars: Tuple[Tuple[float, float, float, str], ...]  # held: place, top, height, label
    says: str  # the same in words


def panels(bench: Bench) -> List[Panel]:
    """Return a panel per driver. Its unit of speed is counters per CPU on the fewest CPUs."""
    return [
        _panel(driver, [r for r in bench.rows if r.driver == driver]) for driver in bench.drivers
    ]


def _panel(driver: str, rows: Sequence[Row]) -> Panel:
    step = (_RIGHT - _LEFT) / len(rows)
    places = [round(_LEFT + step * (number + 0.5), 1) for number in range(len(rows))]
    unit = rows[0].rates.get(PER_CPU) or max(rows[0].rates.values())
    most = max(rate / unit for row in rows for rate in row.rates.values())
    tick = next(t for t in (0.25, 0.5, 1, 2, 5, 10, 20, 50, 100, 1000) if most / t <= 4)
    top = tick * -(-most // tick)

    def height(value: float) -> float:
        return round(_BOTTOM - (_BOTTOM - _TOP) * value / top, 1)

    lines = []
    for kind in KINDS:
        points = [
            (x, height(r.rates[kind] / unit)) for x, r in zip(places, rows) if kind in r.rates
        ]
        lines.append(Line(kind, tuple(points)))
    ticks = [(height(tick * n), f"{tick * n:g}×") for n in range(int(top / tick + 0.5) + 1)]
    bars = []
    for place, row in zip(places, rows):
        tall = round((_BARS_BOTTOM - _BARS_TOP) * (row.held or 0.0), 1)
        bars.append((place, round(_BARS_BOTTOM - tall, 1), tall, _share(row.held)))
    words = [
        f"{row.cpus} CPUs: "
        + ", ".join(f"{kind} {rate / unit:.2f}" for kind, rate in row.rates.items())
        + f", lock held {_share(row.held)}"
        for row in rows
    ]
    columns = tuple((x, f"{row.cpus} CPU{'s' * (row.cpus > 1)}") for x, row in zip(places, rows))
    return Panel(driver, tuple(lines), tuple(ticks), columns, tuple(bars), "; ".join(words))


_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.PackageLoader("harness.studies"),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
)
_COLUMNS = 3  # of panels in one picture


def html(benches: Sequence[Bench]) -> str:
    """Return one page with the plots and the tables."""
    return _ENVIRONMENT.get_template("bench.html.j2").render(
        benches=[(bench, panels(bench), _table(bench)) for bench in benches], **_measures()
    )


def svg(bench: Bench) -> str:
    """Return one picture of all panels."""
    drawn = panels(bench)
    return _ENVIRONMENT.get_template("bench.svg.j2").render(
        title=bench.title, panels=drawn, across=min(_COLUMNS, len(drawn)), **_measures()
    )


def _measures() -> Dict[str, Any]:
    return {
        "kinds": KINDS,
        "width": WIDTH,
        "height": HEIGHT,
        "left": _LEFT,
        "right": _RIGHT,
        "bars_top": _BARS_TOP,
        "bars_bottom": _BARS_BOTTOM,
    }


# -- measuring -----------------------------------------------------------------------------------------


def more_operations(operations: int, seconds: float) -> int:
    """Return the operations per CPU of a long enough measurement, given the time of this one."""
    factor = 1.2 * LONG_ENOUGH_SECONDS / max(seconds, 0.001)
    return min(_MOST_OPERATIONS, int(operations * min(factor, 20.0)))


def measure(
    guests: Target,
    loader: str,
    drivers: Sequence[str],
    counts: Sequence[int],
    times: int,
    on_sample: Callable[[Sample], None],
) -> None:
    """Measure on one kernel, and pass each measurement to `on_sample` at once.

    Raises SetupError if a guest is lost or its kernel refuses the programs.
    """
    try:
        with guests.session() as session:
            _measure(session, guests, loader, (drivers, counts, times), on_sample)
    except (GuestLost, AgentError) as error:
        raise SetupError(f"The measurement broke off: {error}.") from None
    except KernelRefusal as refusal:
        raise SetupError(f"The kernel refused the programs of {FILE}: {refusal}.") from None


def _measure(
    session: Session,
    guests: Target,
    loader: str,
    wanted: Tuple[Sequence[str], Sequence[int], int],
    on_sample: Callable[[Sample], None],
) -> None:
    drivers, counts, times = wanted
    facts = session.call(calls.Facts())
    if loader == "bcc" and not facts["headers"]:
        raise SetupError("The kernel has no headers, which bcc needs: use --loader libbpf.")
    path = build.DRIVEN / FILE
    file = annotation.read(path.read_text(encoding="utf-8"), path)
    programs = ["speed_of_nothing", *dict.fromkeys(DRIVERS[driver] for driver in drivers)]
    loaded = experiment.load(session, file, programs, loader, guests.headers())

    def sample(driver: str, cpus: int, kind: str, operations: int) -> Sample:
        return Sample(
            guests.kernel or facts["release"],
            facts["release"],
            str(guests.describe().get("accelerator", "")),
            loader,
            driver,
            cpus,
            kind,
            *_count(loaded, driver, cpus, kind, operations),
        )

    for cpus in counts:
        for driver, kinds in (("test_run", (NOTHING,)), *((driver, KINDS) for driver in drivers)):
            operations = _FIRST_OPERATIONS
            while operations < _MOST_OPERATIONS:
                tried = sample(driver, cpus, kinds[-1], operations)  # the slowest
                if tried.seconds >= LONG_ENOUGH_SECONDS:
                    break
                operations = more_operations(operations, tried.seconds)
            for _ in range(times):
                for kind in kinds:
                    on_sample(sample(driver, cpus, kind, operations))


def _count(
    loaded: Loaded, driver: str, cpus: int, kind: str, operations: int
) -> Tuple[int, float, int, int, int]:
    """Return runs, seconds, the count, looks at the lock, and looks that found it held."""
    empty = kind == NOTHING
    if not empty:
        loaded.map("orders")[0] = KINDS.index(kind)
        loaded.map("totals")[0] = {}
        for name in ("runs", "own"):
            loaded.map(name).reset()
    program = "speed_of_nothing" if empty else DRIVERS[driver]
    order = calls.Order(driver, program, 0, range(cpus), operations)
    facts = loaded.call(calls.Drive([order], "" if empty else "runs"), limit=_LIMIT_SECONDS)
    if empty:
        sent = sum(facts["orders"][0]["sent"].values())
        return sent, facts["seconds"], sent, 0, 0

    seen = loaded.map("runs").total()
    counted = loaded.map("own").total() if kind == PER_CPU else loaded.map("totals")[0].value
    return seen.runs, facts["seconds"], counted, seen.looks, seen.busy
