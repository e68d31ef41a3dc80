# SPDX-License-Identifier: GPL-2.0-only
"""`spinlock check --run` on a real kernel: right programs are not accused, wrong ones are.

benchmarks/check_run.py runs all programs of check/run; here are those that differ in kind.
"""

from pathlib import Path

import pytest

from harness.check import examine, inputs, lockset, proof, prove
from harness.machines import choose, target

HERE = Path(__file__).parent / "check/run"
KERNEL = "6.12"


@pytest.fixture(scope="module")
def guests():
    found = choose.open_target(target.Settings("qemu", KERNEL, 4), lambda message: None)
    yield found
    found.close()


def proven(guests, name, given=None):
    source = examine.open_source(HERE / f"{name}.bpf.c", guests.headers())
    row = examine.examine(guests, KERNEL, source, source.programs)
    findings = lockset.analyse(source.object, source.programs)
    return prove.prove(guests, row, source, findings, given or prove.Inputs(inputs.packets()))


def verdicts(found):
    return {each.field: each.verdict for each in found.proofs}


@pytest.mark.parametrize("name", ["right_egress", "right_in_flight", "right_quota"])
def test_right_programs_are_not_accused(guests, name):
    found = proven(guests, name)
    assert found.good and found.ran, found
    assert proof.ACCUSED not in verdicts(found).values()


@pytest.mark.parametrize("name", ["wrong_element", "wrong_written_back"])
def test_wrong_programs_are_accused_of_the_field(guests, name, field="packets"):
    found = proven(guests, name)
    assert verdicts(found)[field] == proof.ACCUSED, found
    (accused,) = [each for each in found.proofs if each.field == field]
    assert accused.loss is not None and not found.good


def test_a_packet_that_does_not_reach_the_lock(guests):
    found = proven(guests, "right_flow_counter", prove.Inputs({"none": bytes(64).hex()}))
    assert not found.ran and "--packet" in found.left_out["count"]
