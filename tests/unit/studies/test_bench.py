# SPDX-License-Identifier: GPL-2.0-only
"""What is said and drawn of measured speeds; the recorded ones are of a real kernel."""

import dataclasses
import json
import re
import xml.etree.ElementTree as tree
from pathlib import Path

import pytest

from harness.__main__ import main
from harness.errors import UsageError
from harness.studies import bench
from harness.studies.bench import ATOMIC, KINDS, LOCKED, NOTHING, PER_CPU, UNLOCKED, Sample

RECORDED = Path(__file__).parent.parent / "data" / "bench-6.12.118.json"
SPEED = {PER_CPU: 1.0, ATOMIC: 0.9, UNLOCKED: 1.1, LOCKED: 0.5}  # on one CPU


def sample(kind, ran=1000, seconds=1.0, driver="test_run", cpus=2, **changes):
    value = Sample(
        "6.12", "6.12.118", "tcg", "libbpf", driver, cpus, kind, ran, seconds, ran, 10, 0
    )
    return dataclasses.replace(value, **changes)


def measured():
    """Return speeds of all drivers on one CPU and on more, of which there are two."""
    for cpus in (1, 2, 4):
        faster = min(cpus, 2)
        yield sample(NOTHING, 20_000 * faster, cpus=cpus)
        for driver in bench.DRIVERS:
            for kind in KINDS:
                ran = int(10_000 * SPEED[kind] * faster)
                lost = 100 * cpus if kind == UNLOCKED and cpus > 1 else 0
                looks = {"counted": ran - lost, "looks": 200, "busy": 10 * (cpus - 1)}
                yield sample(kind, ran, driver=driver, cpus=cpus, **looks)


def test_medians_and_ratios():
    samples = [
        sample(NOTHING, 8000),
        *(sample(PER_CPU, ran) for ran in (3900, 4000, 9000)),
        sample(UNLOCKED, 4000, counted=3000),
        *(sample(LOCKED, ran, busy=busy) for ran, busy in ((900, 1), (1000, 2), (1100, 6))),
    ]
    ((row,),) = [each.rows for each in bench.summarize(samples)]
    assert (row.driver, row.cpus, row.raw) == ("test_run", 2, 8000)
    assert row.against_per_cpu == 0.25
    assert row.against(LOCKED, row.raw) == 0.125
    assert row.against(ATOMIC, row.raw) is None
    assert (row.held, row.lost) == (0.2, 0.25)


def test_counters_that_do_not_add_up():
    samples = [sample(LOCKED, counted=999), sample(UNLOCKED, counted=1), sample(ATOMIC)]
    (sentence,) = bench.wrong(samples)
    assert sentence == "test_run on 2 CPUs, 6.12.118, locked: 1000 ran, 999 were counted"


@pytest.mark.parametrize(
    "operations, seconds, more", [(500, 0.0, 10_000), (500, 0.3, 1000), (1000, 0.499, 1202)]
)
def test_more_operations(operations, seconds, more):
    assert bench.more_operations(operations, seconds) == more


def test_all_drivers():
    samples = list(measured())
    (found,) = bench.summarize(samples)
    assert not bench.wrong(samples)
    assert {row.cpus for row in found.rows} == {1, 2, 4}
    for row in found.rows:
        assert set(row.rates) == set(KINDS)
        assert 0 < row.against_per_cpu < 1.5
        assert row.held == 0 if row.cpus == 1 else row.held >= 0
        assert row.lost == 0 if row.cpus == 1 else row.lost >= 0
    assert "locked / per-CPU" in bench.terminal([found])
    rows = bench.markdown([found]).splitlines()
    assert len({line.count("|") for line in rows[2:]}) == 1


def test_points_lie_in_their_panels():
    (found,) = bench.summarize(list(measured()))
    for panel in bench.panels(found):
        assert [line.kind for line in panel.lines] == list(KINDS)
        for line in panel.lines:
            assert [x for x, _ in line.points] == [x for x, _ in panel.columns]
            for x, y in line.points:
                assert 0 < x < bench.WIDTH and 30 < y < 170
        heights = [y for y, _ in panel.ticks]
        assert heights == sorted(heights, reverse=True) and panel.ticks[0][1] == "0×"
        assert all(top + tall == pytest.approx(222) for _, top, tall, _ in panel.bars)


def test_recorded():
    samples = bench.read(RECORDED)
    (found,) = bench.summarize(samples)
    assert not bench.wrong(samples)
    assert found.title == "6.12.118+deb13-cloud-amd64, libbpf, tcg"
    rows = {(row.driver, row.cpus): row for row in found.rows}
    assert len(rows) == 12
    four = rows["test_run", 4]
    assert (round(four.against_per_cpu, 2), round(four.against(LOCKED, four.raw), 2)) == (
        0.54,
        0.25,
    )
    assert (round(four.held, 3), round(four.lost, 3)) == (0.114, 0.025)
    assert all(row.held == row.lost == 0 for row in found.rows if row.cpus == 1)
    assert "0.54          0.25  11.4 %          2.5 %" in bench.terminal([found])
    assert len(bench.panels(found)) == 4


def test_panel_of_twice_the_speed():
    samples = [sample(PER_CPU, 1000, cpus=1), sample(PER_CPU, 2000), sample(LOCKED, 1000)]
    (panel,) = bench.panels(bench.summarize(samples)[0])
    ticks = {label: height for height, label in panel.ticks}
    (_, one), (_, two) = panel.lines[0].points
    assert (one, two) == (ticks["1×"], ticks["2×"])
    assert panel.lines[3].points[0][1] == ticks["1×"]


def test_pictures_are_well_formed():
    benches = bench.summarize(list(measured()))
    root = tree.fromstring(bench.svg(benches[0]))
    drivers = benches[0].drivers
    titles = [title.text for title in root.iter("{http://www.w3.org/2000/svg}title")]
    assert [title.split(":")[0] for title in titles] == drivers
    page = bench.html(benches)
    assert page.count("<svg class=") == len(drivers)
    assert not re.search(r"(src|href)=|https?://(?!www.w3.org)", page)


def test_command_reads(tmp_path, capsys):
    kept, page = tmp_path / "bench.json", tmp_path / "page.html"
    kept.write_text(json.dumps(bench.to_json(list(measured()))))
    assert bench.read(kept) == tuple(measured())
    assert main(["bench", "--read", str(kept), "--html", str(page), "--json"]) == 0
    data = json.loads(capsys.readouterr().out.rsplit("}", 1)[0] + "}")
    assert data["format"] == 1 and data["kernels"][0]["rows"][0]["driver"] == "test_run"
    assert page.read_text().startswith("<!DOCTYPE html>")


def test_reading_what_is_none(tmp_path):
    wrong = tmp_path / "wrong"
    wrong.write_text("{}")
    with pytest.raises(UsageError, match="is not what `spinlock bench --json` writes"):
        bench.read(wrong)
    with pytest.raises(UsageError, match="No such file"):
        bench.read(tmp_path / "nowhere")
