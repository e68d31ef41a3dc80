# SPDX-License-Identifier: GPL-2.0-only
"""The oracle against a program that runs every way through a random program."""

import brute_force
import pytest
from hypothesis import assume, given, settings, strategies as st
from packaging.version import Version

from harness.fuzz import generate, ir, oracle, rules

NEW, OLD = rules.of(Version("6.18")), rules.of(Version("6.7"))


def judged(text, kernel=NEW, type="sched_cls"):
    program = ir.parse(f"program type={type}\nfunction kind=main {{\n{text}\n}}\n")
    return oracle.judge(program, kernel)


FOUND = "lookup var=0 map=hash key=1\nif_set var=0 {\n%s\n}"


@pytest.mark.parametrize(
    "text, reason",
    [
        ("lock var=0 at=8", rules.EXIT_LOCKED),
        ("unlock var=0 at=8", rules.NOT_LOCKED),
        ("lock var=0 at=8\nlock var=0 at=8", rules.SECOND_LOCK),
        ("lock var=0 at=8\nhelper number=5", rules.CALL_LOCKED),
        ("lock var=0 at=8\nload_absolute", rules.PACKET_LOCKED),
        ("load var=0 at=8 size=4", rules.LOCK_ACCESSED),
        ("store var=0 at=11 size=1", rules.LOCK_ACCESSED),
        ("pass var=0 at=8", rules.LOCK_PASSED),
        ("lock var=0 at=4", rules.NO_LOCK_THERE),
        ("shift var=0 mask=7\nlock var=0 at=8", rules.VARIABLE_LOCK),
        ("load var=1 at=0 size=4", rules.NULL),
        ("load var=0 at=24 size=4", rules.OUTSIDE),
        (
            "lookup var=1 map=hash key=1\nif_set var=1 {\nlock var=0 at=8\nunlock var=1 at=8\n}",
            rules.DIFFERENT_LOCK,
        ),
        ("if bit=1 {\nlock var=0 at=8\n}\nif bit=1 {\nunlock var=0 at=8\n}", rules.NOT_LOCKED),
    ],
)
def test_each_rule_is_known(text, reason):
    assert judged(FOUND % text) == oracle.Verdict(oracle.REFUSE, reason, judged(FOUND % text).rules)


def test_a_legal_section_is_accepted():
    legal = "lock var=0 at=8\nload var=0 at=12 size=4\nunlock var=0 at=8\npass var=0 at=16"
    assert judged(FOUND % legal).answer == oracle.ACCEPT


def test_a_type_that_may_not_lock_may_not_name_the_map():
    assert judged("lookup var=0 map=hash key=1", type="kprobe").reason == rules.PROGRAM_TYPE
    assert judged("lookup var=0 map=plain key=1", type="kprobe").answer == oracle.ACCEPT


def test_nor_lock_in_an_inner_map():
    text = "inner var=0 map=outer element=0 key=0\nif_set var=0 {\n%s\n}"
    section = text % "lock var=0 at=8\nunlock var=0 at=8"
    assert judged(section, type="kprobe").reason == rules.INNER_TYPE
    assert judged(section).answer == oracle.ACCEPT


def test_an_element_of_an_array_is_there_since_v6_14():
    text = "lookup var=0 map=array key=1\nstore var=0 at=0 size=8"
    assert judged(text, NEW).answer == oracle.ACCEPT
    assert judged(text, OLD).reason == rules.NULL


def test_a_global_function_has_no_input():
    text = "call function=1\n}\nfunction kind=global {\nif bit=1 {\nclear var=0\n}"
    assert judged(text).answer == oracle.UNKNOWN


def test_a_loop_that_needs_a_second_round_is_unknown_to_kernels_that_walk_one():
    text = (
        "bpf_loop function=1\n}\nfunction kind=loop {\n"
        "if_set var=0 {\nload var=0 at=24 size=8\n}\ndirect var=0 map=single"
    )
    assert judged(text, NEW).reason == rules.OUTSIDE
    assert judged(text, rules.of(Version("6.1"))).answer == oracle.UNKNOWN


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**9), st.sampled_from([NEW, OLD]))
def test_the_oracle_agrees_with_all_runs(seed, kernel):
    program = generate.Generator(seed, kernel).program()
    verdict = oracle.judge(program, kernel)
    try:
        seen = brute_force.outcome(program, kernel)
    except brute_force.TooMany:
        assume(False)
    if verdict.answer == oracle.UNKNOWN:
        limits = ("too many states", "far from the value")
        assert seen != "legal" or verdict.reason in limits or not kernel.lazy_globals
    else:
        # A callback may move a pointer by a little, out of the value in more rounds than are run.
        assume(verdict.reason != rules.OUTSIDE or seen == "broken")
        assert (verdict.answer == oracle.REFUSE) == (seen == "broken"), ir.show(program)
