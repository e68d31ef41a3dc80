# SPDX-License-Identifier: GPL-2.0-only
"""What a kernel refuses while its programs are interpreted (net.core.bpf_jit_enable=0). Pure."""

from __future__ import annotations

from typing import Mapping, Optional

from harness.judging.verdict import Kind, Verdict

ENABLED = "net.core.bpf_jit_enable"  # among a kernel's options: the value of this sysctl
OFF = f"sysctl.{ENABLED}=0"  # on a kernel's command line, since v5.8
ALWAYS_ON = "CONFIG_BPF_JIT_ALWAYS_ON"
STAYS_ON = "jit_stays_on"  # the stage of a case that could not be tried without a JIT

# The lines by which the verifier says that only the JIT can run a program.
# commit e6ac2450d6de ("bpf: Support bpf program calling kernel function") (in v5.13)
# commit 69c087ba6225 ("bpf: Add bpf_for_each_map_elem() helper") (in v5.13)
# commit e411901c0b77 ("bpf: allow for tailcalls in BPF subprograms for x64 JIT") (in v5.10)
# commit be8704ff07d2 ("bpf: Introduce dynamic program extensions") (in v5.6)
# commit 317460317a02 ("bpf: Introduce bpf_arena.") (in v6.9)
LINES = (
    "JIT is required for calling kernel function",
    "calling kernel functions are not allowed in non-JITed programs",
    "callbacks are not allowed in non-JITed programs",
    "tail_calls are not allowed in non-JITed programs with bpf-to-bpf calls",
    "JIT is required to use arena",
    "Extension programs should be JITed",
    "Can attach to only JITed progs",
)


def refused(log: str, enabled: Optional[str]) -> Optional[Verdict]:
    """Return the SKIP of a program that a kernel refuses only for want of a JIT; None if it did not.

    `log` is the verifier's, `enabled` the value of the sysctl.
    """
    if enabled != "0":
        return None
    for line in log.splitlines():
        if any(words in line for words in LINES):
            return Verdict(Kind.SKIP, f"the JIT is off: {line.strip()}")
    return None


def stays_on(options: Mapping[str, str]) -> Verdict:
    """Return the verdict of a case that was asked for without a JIT, of a kernel that has it on."""
    if options.get(ALWAYS_ON) == "y":
        return Verdict(Kind.SKIP, f"the kernel was built with {ALWAYS_ON}: it has no interpreter")
    return Verdict(
        Kind.ERROR,
        f"{ENABLED} is {options.get(ENABLED, 'unknown')}, though the guest booted with {OFF}",
    )
