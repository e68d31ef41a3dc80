# SPDX-License-Identifier: GPL-2.0-only
"""Verdicts of cases whose programs are interpreted, and of kernels that interpret none."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from packaging.version import Version

from harness.judging import jit
from harness.judging.judge import judge
from harness.judging.verdict import Kind, Observation, Verdict
from harness.scenarios.scenario import Expectation

RELEASE = Version("6.12")
OFF, ON = {jit.ENABLED: "0"}, {jit.ENABLED: "1"}
LOADS = Expectation("", accepted=True)
REFUSED = Expectation(
    "", accepted=False, stage="prog_load", errno="EINVAL", messages=("is missing",)
)


def scenario(expectation, twin=None):
    return SimpleNamespace(
        known_bugs=(),
        needs=(),
        section="tc",
        twin=twin,
        expectation=lambda release: expectation,
    )


def refused(line, bare=None):
    log = f"0: R1=ctx() R10=fp0\n{line}\nprocessed 0 insns\n"
    return Observation(stage="prog_load", errno="EINVAL", log=log, bare=bare, kernel_log=())


@pytest.mark.parametrize("line", jit.LINES)
@pytest.mark.parametrize("bare", [None, False])
@pytest.mark.parametrize("expectation", [LOADS, REFUSED])
def test_what_only_the_jit_can_run_is_skipped_without_it(line, bare, expectation):
    verdict = judge(scenario(expectation), RELEASE, refused(line, bare), options=OFF)
    assert verdict == Verdict(Kind.SKIP, f"the JIT is off: {line}")


@pytest.mark.parametrize("options", [ON, {}])
def test_with_the_jit_the_same_refusal_is_a_failure(options):
    assert judge(scenario(LOADS), RELEASE, refused(jit.LINES[0]), options=options).kind is Kind.FAIL


def test_another_refusal_is_a_failure_without_the_jit_too():
    assert judge(scenario(LOADS), RELEASE, refused("bad"), options=OFF).kind is Kind.FAIL
    asked = refused("bpf_spin_unlock is missing")
    assert judge(scenario(REFUSED), RELEASE, asked, options=OFF).kind is Kind.PASS


def test_a_refusal_whose_legal_twin_needs_the_jit_does_not_apply():
    twin = Verdict(Kind.SKIP, f"the JIT is off: {jit.LINES[0]}")
    asked = refused("bpf_spin_unlock is missing")
    verdict = judge(scenario(REFUSED, "its_twin"), RELEASE, asked, twin, OFF)
    assert verdict.kind is Kind.SKIP and "its legal twin its_twin does not apply" in verdict.reason


@pytest.mark.parametrize("always, kind", [("y", Kind.SKIP), ("n", Kind.ERROR), (None, Kind.ERROR)])
def test_a_kernel_without_an_interpreter_is_skipped_by_its_configuration(always, kind):
    options = {**ON, **({} if always is None else {jit.ALWAYS_ON: always})}
    untried = Observation(stage=jit.STAYS_ON, kernel_log=())
    verdict = judge(scenario(LOADS), RELEASE, untried, options=options)
    assert verdict.kind is kind
    assert (jit.ALWAYS_ON if always == "y" else jit.ENABLED) in verdict.reason
    assert replace(verdict, kind=Kind.SKIP) == replace(jit.stays_on(options), kind=Kind.SKIP)
