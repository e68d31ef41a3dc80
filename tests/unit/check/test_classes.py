# SPDX-License-Identifier: GPL-2.0-only
"""The classes of refusals know every text that the project's own rule book expects."""

import re

import pytest
from packaging.version import Version

from harness.check import classes, refusal
from harness.provision.build import PROGRAMS
from harness.scenarios.programs import Programs

REFUSED = sorted(
    {e.messages for case in Programs.read(PROGRAMS).scenarios() for e in case.expectations} - {()}
)


def shown(messages):
    """What a verifier may have said where these messages are expected: one line for each choice."""
    text = " ".join(messages)
    found = re.search(r"\{\{(.*?)\}\}", text)
    if found is None:
        return [text]
    choices = [re.sub(r"\[[^]]*\][*+]", "", choice) for choice in found[1].split("|")]
    return [line for choice in choices for line in shown([text.replace(found[0], choice, 1)])]


@pytest.mark.parametrize("messages", REFUSED, ids=lambda each: each[0][:40])
def test_a_text_of_the_rule_book_has_a_class(messages):
    for line in shown(messages):
        log = f"7: (85) call bpf_spin_lock#93\n{line}\nprocessed 8 insns\n"
        seen = {"stage": "load", "errno": "EINVAL", "log": log}
        why = refusal.explain(seen, {"btf": None, "maps": {}}, Version("7.3"), None, {})
        assert why.name != "other" and why.advice, line


@pytest.mark.parametrize(
    "line, name",
    [
        ("Acquiring the same lock again, AA deadlock detected", "deadlock"),
        (
            "cannot restore irq state out of order, expected id=2 acquired at insn_idx=9",
            "irq-flags",
        ),
        ("expected an initialized irq flag as arg#1", "irq-flags"),
        ("can't spin_{lock,unlock} in rbtree cb", "tree-callback"),
        ("can't res_spin_{lock,unlock} in rbtree cb", "tree-callback"),
        ("bpf_res_spin_unlock cannot be out of order", "unlock-order"),
        ("insn 5 cannot be called from callback subprog", "exception"),
        ("bpf_list_head cannot be accessed directly by load/store", "field-access"),
        ("direct access to bpf_rb_node is disallowed", "field-access"),
        ("direct access to bpf_spin_lock is disallowed", "direct-access"),
        ("Unreleased reference id=2 alloc_insn=14", "unreleased"),
        ("R1 type=ptr_or_null_ expected=map_value, ptr_", "null-check"),
        ("Possibly NULL pointer passed to trusted arg0", "null-check"),
        ("R1 invalid mem access 'ptr_or_null_'", "null-check"),
        ("map 'm' has to have BTF in order to use bpf_wq", "no-btf"),
        ("arg#1 offset=16, but expected bpf_list_node at offset=0 in struct item", "contains"),
        ("bpf_obj_new type ID argument must be of a struct", "type-forward"),
        ("map 'm' has no valid bpf_timer", "field-place"),
        ("R1 doesn't have constant offset. bpf_wq has to be at the constant offset", "field-place"),
        ("bpf_list_node not found at offset=49", "contains"),
        ("libbpf: map 'm': can't determine value size for type [7]: -22.", "type-forward"),
        ("local type ID argument must be in range [0, U32_MAX]", "type-forward"),
        ("dereference of modified ptr_or_null_ ptr R2 off=16 disallowed", "null-check"),
        ("R1 type=scalar expected=percpu_ptr_, percpu_rcu_ptr_", "argument"),
        ("exception cb only supports single integer argument", "exception-callback"),
        ("bpf_throw cannot be used inside bpf_rcu_read_lock-ed region", "exception"),
        ("At program exit the register R0 has smin=64 smax=64", "return-value"),
        ("invalid kptr access, R2 type=percpu_ptr_a expected=ptr_b", "kernel-pointer"),
        ("exception cb cannot return void", "exception-callback"),
        ("dereference of modified ptr_ ptr R1 off=8 disallowed", "object-start"),
        ("R1 is fp expected STRUCT task_struct", "argument"),
        ("R1 must be a rcu pointer", "argument"),
        ("cannot pass map_type 24 into func bpf_map_lookup_elem#1", "map-function"),
        ("tail_call cannot be used inside bpf_preempt_disable-ed region", "open-section"),
        ("sleepable helper bpf_copy_from_user#148 in IRQ-disabled region", "sleep-in-section"),
        ("access beyond struct obj at off 8 size 4", "struct-access"),
        ("R0 invalid sock access off=50 size=2", "struct-access"),
        (
            "bpf_probe_read_kernel() may write into memory pointed by R1 type=trusted_ptr_",
            "read-only",
        ),
        ("another function of its struct_ops is refused: 'enqueue'", "struct-ops"),
        ("Attaching tracing programs to function '__rcu_read_lock' is rejected.", "hook-denied"),
        ("R1 must have zero offset when passed to release func", "object-start"),
        ("map 'm' has no valid bpf_spin_lock", "lock-place"),
        ("global function calls are not allowed with preemption disabled,", "no-preempt-call"),
        ("R0 invalid mem access 'scalar'", "not-a-pointer"),
    ],
)
def test_classes_of_what_stands_beside_a_lock(line, name):
    seen = {"stage": "load", "errno": "EINVAL", "log": f"7: (85) call bpf_x#9\n{line}\n"}
    asked = {"btf": None, "maps": {}}
    assert refusal.explain(seen, asked, Version("7.3"), None, {}).name == name


def test_a_class_has_one_name_and_a_way_out():
    assert len(classes.BY_NAME) == len(classes.CLASSES)
    assert all(row.title and row.advice for row in classes.CLASSES)
