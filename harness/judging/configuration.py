# SPDX-License-Identifier: GPL-2.0-only
"""What a refusal means where the kernel was built without something, or has one CPU. Pure.

A kernel is not accused of what its configuration leaves out. Two witnesses must agree on that: the
configuration, which says that the option is off, and a probe of the kernel. A kernel whose
configuration has the option, or is not to be had, is judged like any other.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Mapping, Optional, Sequence, Tuple

from harness.judging import jit
from harness.judging.verdict import Kind, Verdict

OFF = "n"
THERE = "n, but it is there"  # the configuration says off, and a probe finds the feature


@dataclass(frozen=True)
class Feature:
    """What programs use, the option that a kernel has it by, and the refusal of one without it."""

    name: str
    option: str
    probe: str  # a program of bpf_progs/driven/lacking.bpf.c that uses nothing else
    needs: str  # a name in the kernel's BTF without which the probe says nothing
    lines: Tuple[str, ...]  # of the verifier, any of them


FEATURES = (
    Feature(
        "some programs",
        "CONFIG_BPF_JIT",
        "calls_kernel_function",
        "bpf_rcu_read_lock",
        jit.LINES,
    ),
    # The unwinder finds the frames that bpf_throw() ends: see
    # commit f18b03fabaa9 ("bpf: Implement BPF exceptions") (in v6.7).
    Feature(
        "exceptions",
        "CONFIG_UNWINDER_ORC",
        "throws",
        "bpf_throw",
        ("JIT does not support calling kfunc bpf_throw",),
    ),
)
ALL_OFF = {feature.option: OFF for feature in FEATURES}
OPTIONS = ("CONFIG_SMP", *(feature.option for feature in FEATURES))


def suspects(options: Mapping[str, str]) -> Tuple[Feature, ...]:
    """Return the features that the configuration leaves out, and that are to be probed."""
    return tuple(each for each in FEATURES if options.get(each.option) == OFF)


def probed(options: Mapping[str, str], there: Mapping[str, bool]) -> Mapping[str, str]:
    """Return options with what the probes said: `there` is the answer of each, by option."""
    return {**options, **{option: THERE for option, found in there.items() if found}}


def left_out(log: str, options: Mapping[str, str]) -> Optional[Verdict]:
    """Return SKIP if a program was refused for what the kernel was built without, else None."""
    for feature in FEATURES:
        line = telling(feature, log)
        if options.get(feature.option) == OFF and line:
            reason = f"the kernel was built without {feature.option}, which {feature.name} need"
            return Verdict(Kind.SKIP, f"{reason}: {line}")
    return None


def telling(feature: Feature, log: str) -> str:
    """Return the verifier's line that only a kernel without the feature says; "" if there is none."""
    said = (line.strip() for line in log.splitlines() if any(w in line for w in feature.lines))
    return next(said, "")


_FEWER_CPUS = re.compile(r"(?:^| )((?:maxcpus|nr_cpus)=[01]|nosmp)(?= |$)")


def too_few_cpus(
    cpus: int, given: int, options: Mapping[str, str], command_line: str, why: str = ""
) -> Verdict:
    """Judge a case that needs two CPUs on a kernel that runs `cpus` of the `given` ones.

    SKIP if the kernel was built, booted or given so; else ERROR: CPUs are missing.
    """
    reason = f"needs two CPUs{f': {why}' if why else ''}"
    if options.get("CONFIG_SMP") == OFF:
        return Verdict(Kind.SKIP, f"the kernel was built without CONFIG_SMP, and the case {reason}")
    word = _FEWER_CPUS.search(command_line)
    if word is not None:
        return Verdict(Kind.SKIP, f"the kernel was booted with {word[1]}, and the case {reason}")
    if given < 2:
        return Verdict(Kind.SKIP, f"the machine has one CPU, and the case {reason}")
    return Verdict(
        Kind.ERROR,
        f"the kernel runs {cpus} of the machine's {given} CPUs, and the case {reason}",
    )


def off(wanted: Sequence[str], options: Mapping[str, str]) -> str:
    """Return the first of the wanted options that is off; "" if none is known to be."""
    return next((option for option in wanted if options.get(option) == OFF), "")
