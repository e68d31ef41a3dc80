# SPDX-License-Identifier: GPL-2.0-only
"""What `spinlock check --run` says."""

import pytest

from harness.check import answer, proof, prove, run_report
from harness.check.examine import Source
from harness.check.proof import Least, Loss, Proof
from harness.provision.elf import Object

PACKETS, BYTES, LAST = "packets", "bytes", "last"
LOST = Loss("00", "2,000", "1,998", 2)
PROVEN = prove.Proven(
    4,
    (
        Proof(
            "flows", PACKETS, proof.ACCUSED, "", LOST, LOST, Least(2, 4, Loss("00", "4", "3", 1))
        ),
        Proof("flows", BYTES, proof.MATTERS, "", None, Loss("00", "9", "8")),
        Proof("flows", "drops", proof.NO_POWER),
        Proof("flows", LAST, proof.UNKNOWN, "what it holds depends on the order"),
        Proof("flows", "never", proof.UNCHANGED),
    ),
    (prove.Ran(("count",), ("UDP",), 2000, 0.5),),
    {"trace": "BPF_PROG_TEST_RUN does not run it: ENOTSUPP"},
    ("no twin to compare with: without its locks it does not load: EINVAL",),
)


def told(proven):
    return answer.Answer(Source("x.o", b"", Object({}, (), {})), (), (), None, (), {"6.12": proven})


def test_lines():
    assert run_report.lines(told(PROVEN))[1:-1] == [
        "does the lock matter? (run on 6.12, 4 CPUs)",
        "  flows.packets  ACCUSED",
        "    all at once: 1,998 where one CPU leaves 2,000: 2 runs are lost",
        "    the least that was seen: 4 runs on 2 CPUs: 3 where one CPU leaves 4: 1 run is lost",
        "  flows.bytes    the lock matters here",
        "    without it: 8 where one CPU leaves 9, in every order of the same runs",
        "  flows.drops    no power: right with the lock, and without it as well",
        "  flows.last     unknown, because what it holds depends on the order",
        "  not changed in these runs: flows.never",
        "  ran count (UDP): 2,000 times in 0.50 s",
        "  not run: trace: BPF_PROG_TEST_RUN does not run it: ENOTSUPP",
        "  no twin to compare with: without its locks it does not load: EINVAL",
    ]


def test_nothing_was_run():
    nothing = answer.Answer(Source("x.o", b"", Object({}, (), {})), (), (), None)
    assert run_report.lines(nothing) == [] and run_report.to_json(nothing, "6.12") is None


def test_json():
    data = run_report.to_json(told(PROVEN), "6.12")
    accused, matters = data["fields"][:2]
    assert accused["verdict"] == "ACCUSED" and accused["loss"]["lost_runs"] == 2
    assert accused["least"]["runs"] == 4 and matters["twin_loss"]["found"] == "8"
    assert data["not_run"] == {"trace": "BPF_PROG_TEST_RUN does not run it: ENOTSUPP"}


@pytest.mark.parametrize(
    "proven, good",
    [
        (PROVEN, False),
        (prove.Proven(4, PROVEN.proofs[1:]), True),
        (prove.Proven(4, (), complaint="WARNING: at kernel/bpf"), False),
    ],
)
def test_an_accusation_is_no_good_answer(proven, good):
    assert told(proven).good is good
