# SPDX-License-Identifier: GPL-2.0-only
"""Programs that lock, while the kernel interprets them: a contest, and what only the JIT can run.

The programs are those of bpf_progs/driven/interpreted.bpf.c and counter.bpf.c. The guest is booted with
net.core.bpf_jit_enable=0; a kernel that was built with CONFIG_BPF_JIT_ALWAYS_ON has no interpreter.
"""

import pytest

from harness.guest import calls
from harness.judging import jit
from harness.judging.serialization import SKIPS_64, UNLOCKED
from harness.judging.verdict import Kind, Verdict
from harness.machines.session import KernelRefusal
from harness.running.experiment import Drive, Plan, prove

RULE = "The interpreter locks like compiled code"
LOADERS = ("libbpf",)  # bcc has neither kernel functions nor callbacks

OPERATIONS, TURNS = 6_000, 500  # per CPU; turns of the critical section

# name -> unit and program, the name in the kernel's BTF and since when, errno, and the verifier's text
NEEDING = {
    "callback": (
        "lock_each_in_callback",
        ("BPF_FUNC_for_each_map_elem", "5.13"),
        "EINVAL",
        "callbacks are not allowed in non-JITed programs",
    ),
    "function": (
        "lock_beside_function",
        ("bpf_rcu_read_lock", "6.2"),
        "ENOTSUPP",  # 524, a number of the kernel's own
        "JIT is required for calling kernel function",
    ),
    "exception": (
        "lock_beside_exception",
        ("bpf_throw", "6.7"),
        "ENOTSUPP",
        "JIT is required for calling kernel function",
    ),
    "arena": (
        "lock_beside_arena",
        ("bpf_arena_free_pages", "6.9"),
        "EOPNOTSUPP",
        "JIT is required to use arena",
    ),
}


def interpret(guest):
    """Go on in a guest that interprets programs. Return whether there is one."""
    guest.boot_with(jit.OFF)
    if guest.facts["jit"] == "0":
        return True
    options = guest.call(calls.Options([jit.ALWAYS_ON]))
    guest.conclude(jit.stays_on({**options, jit.ENABLED: str(guest.facts["jit"])}))
    return False


@pytest.mark.contends
def test_interpreted_serialization(guest):
    """A locked counter, its programs interpreted, on all CPUs at once."""
    if not interpret(guest):
        return
    guest.load("counter.bpf.c", ["count_test_run"])
    drive = Drive("test_run", tuple(range(guest.cpus)), OPERATIONS)
    plan = Plan((drive,), TURNS)
    verdict, numbers = prove(guest, plan, (UNLOCKED, SKIPS_64), guest.lock_path)
    guest.conclude(verdict, **numbers)


@pytest.mark.parametrize("what", NEEDING)
def test_only_compiled(guest, what):
    """The same program loads with the JIT, and is refused without it by name."""
    program, (name, since), number, text = NEEDING[what]
    guest.needs(name, since)
    guest.load("interpreted.bpf.c", [program], unit=what)
    compiled = guest.call(calls.TestRun(program))["retval"]
    guest.check(compiled == 1, "compiled, it runs", compiled)
    if not interpret(guest):
        return
    guest.load("interpreted.bpf.c", ["lock_alone"])
    alone = guest.call(calls.TestRun("lock_alone"))["retval"]
    guest.check(alone == 1, "interpreted, the lock alone runs", alone)
    try:
        guest.load("interpreted.bpf.c", [program], unit=what)
    except KernelRefusal as refusal:
        seen = f"{refusal.errno}: {refusal.log.strip().splitlines()[-3:]}"
        guest.check(
            refusal.stage == "prog_load" and text in refusal.log, f'refused: "{text}"', seen
        )
        guest.check(refusal.errno == number, f"with {number}", refusal.errno)
    else:
        guest.check(False, f'refused: "{text}"', "it loaded")
    guest.conclude(Verdict(Kind.PASS, f'refused: "{text}"'))
