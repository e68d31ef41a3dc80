# SPDX-License-Identifier: GPL-2.0-only
"""Judging: what passes, what does not, and what outweighs what."""

from pathlib import Path

import pytest
from packaging.version import Version

from harness.judging.judge import judge
from harness.judging.verdict import Kind, Observation, Verdict
from harness.judging.wording import telling_line
from harness.scenarios import annotation

V6_12, V7_3 = Version("6.12.117"), Version("7.3.4")
REFUSED = Observation(
    "prog_load", "EINVAL", "0: (85)\nbpf_spin_unlock is missing\nprocessed 9 insns", kernel_log=()
)
LOADED = Observation(None, retval=0, kernel_log=())
TWIN_PASSED = Verdict(Kind.PASS, "loaded")


def case(annotations):
    text = f'SEC("tc") __rule("r") {annotations}\nint bad(struct __sk_buff *skb) {{}}\n'
    return annotation.read(text, Path("x.bpf.c")).scenarios[0]


MISSING = case('__twin(legal) __failure __errno(EINVAL) __msg("unlock is missing")')
GOOD = case("__success __retval(0)")


def seen(base=LOADED, **changes):
    return Observation(**{**base.__dict__, **changes})


def test_a_refusal_as_expected_passes():
    verdict = judge(MISSING, V6_12, REFUSED, TWIN_PASSED)
    assert verdict.kind is Kind.PASS
    assert [line.split()[0] for line in verdict.evidence] == ["MATCHED"] * 3


@pytest.mark.parametrize(
    "changes",
    [
        {"errno": "EACCES"},
        {"stage": "map_create"},
        {"log": "something else is wrong"},
        {"stage": None, "errno": None, "log": ""},
    ],
)
def test_any_other_refusal_fails(changes):
    verdict = judge(MISSING, V6_12, seen(REFUSED, **changes), TWIN_PASSED)
    assert verdict.kind is Kind.FAIL
    assert any(line.startswith("EXPECTED") for line in verdict.evidence)
    assert any(line.startswith("UNEXPECTED") for line in verdict.evidence)


def test_a_refusal_proves_nothing_when_the_legal_twin_is_refused_too():
    assert judge(MISSING, V6_12, REFUSED, Verdict(Kind.FAIL, "refused")).kind is Kind.INCONCLUSIVE
    assert judge(MISSING, V6_12, REFUSED, None).kind is Kind.INCONCLUSIVE


def test_success_needs_the_return_value():
    assert judge(GOOD, V6_12, LOADED).kind is Kind.PASS
    assert judge(GOOD, V6_12, seen(retval=1)).kind is Kind.FAIL
    assert judge(GOOD, V6_12, seen(retval=None)).kind is Kind.FAIL
    assert judge(GOOD, V6_12, seen(stage="run", errno="EINVAL")).kind is Kind.FAIL


def test_what_never_reached_the_kernel_is_an_error():
    for stage in ("compile", "open", "agent"):
        assert (
            judge(MISSING, V6_12, seen(stage=stage, detail="x.c:1: error: no")).kind is Kind.ERROR
        )


def test_a_case_that_never_came_back_does_not_pass():
    assert judge(GOOD, V6_12, Observation(kernel_log=())).kind is Kind.FAIL
    assert judge(GOOD, V6_12, Observation()).kind is Kind.ERROR


def test_a_splat_beats_a_match():
    log = ("WARNING: CPU: 1 PID: 9 at kernel/bpf/btf.c:3840 btf_parse_fields+0x1/0x2",)
    verdict = judge(GOOD, V6_12, seen(kernel_log=log))
    assert verdict.kind is Kind.CRASH and "WARN" in verdict.reason


def test_a_stuck_cpu_beats_a_match():
    verdict = judge(GOOD, V6_12, seen(stuck=(2,), kernel_log=("NMI backtrace for cpu 2",)))
    assert verdict.kind is Kind.CRASH and "CPU 2 no longer schedules tasks" in verdict.reason
    assert verdict.evidence == ("NMI backtrace for cpu 2",)


def test_an_unreadable_kernel_log_is_an_error():
    assert judge(GOOD, V6_12, seen(kernel_log=None)).kind is Kind.ERROR


def test_a_lost_guest_is_a_crash_only_by_the_kernel_s_doing():
    lost = seen(lost="panic: ...", lost_is_crash=True, console="a\nb")
    assert judge(GOOD, V6_12, lost) == Verdict(Kind.CRASH, "panic: ...", ("a", "b"))
    assert judge(GOOD, V6_12, seen(lost="killed", lost_is_crash=False)).kind is Kind.ERROR


def test_no_clause_is_a_skip():
    assert judge(case('__kernel(">=7.0") __success'), V6_12, LOADED).kind is Kind.SKIP


def test_messages_must_come_in_order_and_not_msg_nowhere():
    ordered = case('__twin(t) __failure __msg("first") __msg("second")')
    in_order, reverse = (seen(REFUSED, log=log) for log in ("first\nsecond", "second\nfirst"))
    assert judge(ordered, V6_12, in_order, TWIN_PASSED).kind is Kind.PASS
    assert judge(ordered, V6_12, reverse, TWIN_PASSED).kind is Kind.FAIL
    forbidden = case('__twin(t) __failure __errno(EINVAL) __not_msg("is missing")')
    assert judge(forbidden, V6_12, REFUSED, TWIN_PASSED).kind is Kind.FAIL


def test_regular_expressions_only_in_double_braces():
    literal = case('__twin(t) __failure __msg("a.c")')
    assert judge(literal, V6_12, seen(REFUSED, log="abc"), TWIN_PASSED).kind is Kind.FAIL
    pattern = case('__twin(t) __failure __msg("{{a.c}}")')
    assert judge(pattern, V6_12, seen(REFUSED, log="abc"), TWIN_PASSED).kind is Kind.PASS


def test_known_bugs():
    buggy = case('__twin(t) __failure __msg("different lock") __known_bug("7c884339bbff", "<6.2")')
    assert judge(buggy, Version("6.1.176"), LOADED, TWIN_PASSED).kind is Kind.KNOWN
    assert judge(buggy, V6_12, LOADED, TWIN_PASSED).kind is Kind.FAIL
    refused = seen(REFUSED, log="unlock of different lock")
    fixed_early = judge(buggy, Version("6.1.176"), refused, TWIN_PASSED)
    assert fixed_early.kind is Kind.FAIL and "__known_bug" in fixed_early.reason


def test_a_known_bug_excuses_nothing_else():
    buggy = case('__twin(t) __failure __msg("different lock") __known_bug("7c884339bbff", "<6.2")')
    otherwise = seen(REFUSED, log="something else is wrong")
    assert judge(buggy, Version("6.1.176"), otherwise, TWIN_PASSED).kind is Kind.FAIL
    oops = seen(kernel_log=("BUG: KASAN: slab-use-after-free in f+0x0/0x0",))
    assert judge(buggy, Version("6.1.176"), oops, TWIN_PASSED).kind is Kind.CRASH


def test_a_known_bug_may_show_as_a_splat_but_not_as_a_lost_guest():
    buggy = case('__success __known_bug("f08619f06046", ">=6.11,<7.2")')
    warned = seen(kernel_log=("WARNING: CPU: 0 PID: 1 at kernel/bpf/btf.c:1 f+0x0/0x0",))
    assert judge(buggy, V6_12, warned).kind is Kind.KNOWN
    assert judge(buggy, V7_3, warned).kind is Kind.CRASH
    assert judge(buggy, V6_12, seen(lost="panic", lost_is_crash=True)).kind is Kind.CRASH


def test_the_telling_line_is_no_statistics_and_no_explanation():
    log = (
        "bpf_spin_unlock is missing\n=====\nVerification failed:\nReason: long\n"
        "processed 5 insns (limit 1000000)\n"
    )
    assert telling_line(log) == "bpf_spin_unlock is missing"
    assert telling_line("") == ""


@pytest.mark.parametrize(
    "release, kind", [("6.12.118", Kind.SKIP), ("6.15", Kind.ERROR), ("7.3.4", Kind.ERROR)]
)
def test_what_is_missing_must_be_newer_than_the_kernel(release, kind):
    needy = case('__needs(bpf_res_spin_lock, "6.15") __success')
    observation = Observation(missing=("bpf_res_spin_lock",), kernel_log=())
    verdict = judge(needy, Version(release), observation)
    assert verdict.kind is kind and "bpf_res_spin_lock" in verdict.reason


def test_what_is_missing_may_have_been_left_out_of_the_configuration():
    needy = case('__needs(bpf_lsm_file_open, "5.7", CONFIG_BPF_LSM) __success')
    observation = Observation(missing=("bpf_lsm_file_open",), kernel_log=())
    assert judge(needy, V6_12, observation).kind is Kind.ERROR
    verdict = judge(needy, V6_12, observation, options={"CONFIG_BPF_LSM": "n"})
    assert verdict.kind is Kind.SKIP and "CONFIG_BPF_LSM" in verdict.reason
    assert judge(needy, V6_12, observation, options={"CONFIG_BPF_LSM": "y"}).kind is Kind.ERROR
    verdict = judge(needy, V6_12, observation, options={"CONFIG_BPF_LSM": "inactive"})
    assert verdict.kind is Kind.SKIP and "not among the active" in verdict.reason


def test_each_of_several_options_may_have_been_left_out():
    needs = '__needs(bpf_lsm_socket_bind, "5.7", CONFIG_BPF_LSM, CONFIG_SECURITY_NETWORK)'
    observation = Observation(missing=("bpf_lsm_socket_bind",), kernel_log=())
    options = {"CONFIG_BPF_LSM": "y", "CONFIG_SECURITY_NETWORK": "n"}
    verdict = judge(case(f"{needs} __success"), V6_12, observation, options=options)
    assert verdict.kind is Kind.SKIP and "CONFIG_SECURITY_NETWORK" in verdict.reason
    options["CONFIG_SECURITY_NETWORK"] = "y"
    verdict = judge(case(f"{needs} __success"), V6_12, observation, options=options)
    assert verdict.kind is Kind.ERROR and "CONFIG_SECURITY_NETWORK" in verdict.reason


@pytest.mark.parametrize(
    "value, kind", [("n", "SKIP"), ("y", "FAIL"), ("n, but it is there", "FAIL")]
)
def test_exceptions_need_an_unwinder(value, kind):
    log = "JIT does not support calling kfunc bpf_throw#1"
    refused = seen(REFUSED, errno="ENOTSUPP", log=log)
    options = {"CONFIG_UNWINDER_ORC": value}
    assert judge(GOOD, V6_12, refused, options=options).kind is Kind(kind)


def test_a_refusal_beside_a_twin_that_does_not_apply_is_skipped():
    """It matches, but nothing shows what for."""
    twin = Verdict(Kind.SKIP, "the kernel was built without CONFIG_UNWINDER_ORC")
    verdict = judge(MISSING, V6_12, REFUSED, twin)
    assert verdict.kind is Kind.SKIP and "CONFIG_UNWINDER_ORC" in verdict.reason
    wrong = seen(REFUSED, log="another text")
    assert judge(MISSING, V6_12, wrong, twin).kind is Kind.FAIL


def test_an_option_that_nobody_named_excuses_nothing():
    needy = case('__needs(bpf_loop, "5.17") __success')
    observation = Observation(missing=("bpf_loop",), kernel_log=())
    assert judge(needy, V6_12, observation, options={"": "n"}).kind is Kind.ERROR


@pytest.mark.parametrize("options, kind", [({}, "ERROR"), ({"CONFIG_BPF_LSM": "n"}, "SKIP")])
def test_a_kind_of_program_that_the_kernel_lacks_says_nothing_of_the_lock(options, kind):
    text = 'SEC("lsm/file_open") __rule("r") __success\nint f(void *ctx) {}\n'
    lsm = annotation.read(text, Path("x.bpf.c")).scenarios[0]
    refused = seen(REFUSED, log="", bare=False)
    assert judge(lsm, V6_12, refused, options=options).kind is Kind(kind)
    assert judge(lsm, V6_12, seen(REFUSED, bare=True), options=options).kind is Kind.FAIL


def test_what_a_real_time_kernel_has_not_is_skipped_there_only():
    timer = case("__success")
    log = "bpf_timer cannot be used for PREEMPT_RT."
    refused = Observation(stage="prog_load", errno="EOPNOTSUPP", log=log, kernel_log=())
    verdict = judge(timer, V6_12, refused, options={"CONFIG_PREEMPT_RT": "y"})
    assert verdict.kind is Kind.SKIP and log in verdict.reason
    assert judge(timer, V6_12, refused, options={"CONFIG_PREEMPT_RT": "n"}).kind is Kind.FAIL
