# SPDX-License-Identifier: GPL-2.0-only
"""Verdicts about kernels that were built without something."""

import pytest

from harness.judging import configuration
from harness.judging.verdict import Kind

THROW = "JIT does not support calling kfunc bpf_throw#123"
KFUNC = "JIT is required for calling kernel function"


@pytest.mark.parametrize(
    "option, log, skips",
    [
        ("CONFIG_UNWINDER_ORC", f"7: (85) call\n{THROW}\nprocessed 7 insns", True),
        ("CONFIG_BPF_JIT", KFUNC, True),
        ("CONFIG_BPF_JIT", "callbacks are not allowed in non-JITed programs", True),
        ("CONFIG_BPF_JIT", THROW, False),
        ("CONFIG_UNWINDER_ORC", KFUNC, False),
        ("CONFIG_UNWINDER_ORC", "bpf_spin_unlock is missing", False),
        ("CONFIG_UNWINDER_ORC", "", False),
    ],
)
def test_refusal_of_what_was_left_out(option, log, skips):
    verdict = configuration.left_out(log, {option: "n"})
    assert (verdict is not None) == skips
    if verdict is not None:
        assert verdict.kind is Kind.SKIP and option in verdict.reason


@pytest.mark.parametrize("options", [{}, {"CONFIG_UNWINDER_ORC": "y"}])
def test_kernel_that_has_it_or_does_not_say_is_judged(options):
    assert configuration.left_out(THROW, options) is None
    assert configuration.suspects(options) == ()


def test_probe_overrules_configuration():
    """The configuration may be that of another kernel: what a probe finds is there."""
    options = {"CONFIG_UNWINDER_ORC": "n", "CONFIG_BPF_JIT": "y"}
    [suspect] = configuration.suspects(options)
    assert suspect.option == "CONFIG_UNWINDER_ORC"
    found = configuration.probed(options, {suspect.option: True})
    assert configuration.left_out(THROW, found) is None
    confirmed = configuration.probed(options, {suspect.option: False})
    assert configuration.left_out(THROW, confirmed) is not None


@pytest.mark.parametrize(
    "given, options, words, kind, part",
    [
        (4, {"CONFIG_SMP": "n"}, "", Kind.SKIP, "CONFIG_SMP"),
        (4, {"CONFIG_SMP": "y"}, "quiet nosmp panic=-1", Kind.SKIP, "nosmp"),
        (4, {"CONFIG_SMP": "y"}, "maxcpus=1", Kind.SKIP, "maxcpus=1"),
        (1, {"CONFIG_SMP": "y"}, "maxcpus=16", Kind.SKIP, "one CPU"),
        (4, {"CONFIG_SMP": "y"}, "maxcpus=16 xnosmp", Kind.ERROR, "1 of the machine's 4"),
        (4, {}, "", Kind.ERROR, "1 of the machine's 4"),
    ],
)
def test_one_cpu(given, options, words, kind, part):
    verdict = configuration.too_few_cpus(1, given, options, words, "one CPU cannot wait")
    assert verdict.kind is kind
    assert part in verdict.reason and "one CPU cannot wait" in verdict.reason
