# SPDX-License-Identifier: GPL-2.0-only
"""Findings: how they become small, are told apart, shown and kept."""

import pytest
from packaging.version import Version

from harness.errors import UsageError
from harness.fuzz import draft, findings, generate, ir, known, listing, lower, oracle, rules, shrink

KERNEL = rules.of(Version("6.12"))

TWO = """
program type=sched_cls
function kind=main {
  lookup var=0 map=hash key=1
  lookup var=1 map=hash key=2
  if_set var=0 {
    if_set var=1 {
      helper number=5
      lock var=0 at=8
      store var=0 at=0 size=8
      unlock var=1 at=8
    }
  }
}
"""


def finding(text=TWO, errno=0, release="6.12", log=""):
    program = ir.parse(text)
    verdict = oracle.judge(program, KERNEL)
    asked = findings.Asked(program, verdict, errno)
    like = known.find(program, verdict, Version(release))
    return findings.Finding(asked, log, like, after=7)


def test_a_finding_becomes_small_and_keeps_its_reason():
    made = generate.Generator(3, KERNEL)
    done = 0
    while done < 3:
        program = made.program()
        verdict = oracle.judge(program, KERNEL)
        if verdict.reason != rules.SECOND_LOCK:
            continue
        # A kernel that never finds a second lock answers all of these wrongly.
        small = shrink.shrink(program, KERNEL, lambda some: [True] * len(some))
        assert oracle.judge(small, KERNEL).reason == rules.SECOND_LOCK
        assert ir.size(small) <= 6
        done += 1


def test_what_the_kernel_answers_rightly_is_not_shrunk_to():
    program = ir.parse(TWO)

    def without_helper_it_is_right(some):
        return [any(isinstance(s, ir.Helper) for s in ir.everything(each)) for each in some]

    small = shrink.shrink(program, KERNEL, without_helper_it_is_right)
    assert any(isinstance(s, ir.Helper) for s in ir.everything(small))
    assert ir.size(small) < ir.size(program)


@pytest.mark.parametrize(
    "errno, differs, gave_up", [(0, True, False), (22, False, False), (7, False, True)]
)
def test_an_answer_differs_if_the_kernel_takes_what_it_must_refuse(errno, differs, gave_up):
    asked = finding(errno=errno).asked
    assert (asked.differs, asked.gave_up) == (differs, gave_up)


def test_what_is_on_record_is_known_by_kernel_reason_and_statements():
    assert finding(release="6.1").record.mended == "7c884339bbff"
    assert finding(release="6.12").record is None
    inside = TWO.replace("lookup var=1 map=hash key=2", "value var=1")
    program = ir.parse(inside)
    verdict = oracle.Verdict(oracle.REFUSE, rules.DIFFERENT_LOCK)
    assert known.find(program, verdict, Version("7.2")).mended == "71919742c83c"
    assert known.find(program, verdict, Version("7.3")) is None
    correct = oracle.Verdict(oracle.ACCEPT)
    assert known.find(program, correct, Version("6.1")).mended == "d0d78c1df9b1"
    assert known.find(program, correct, Version("6.12")) is None


def test_a_finding_says_what_differs():
    assert finding().words == (
        "accepted, but must be refused (different_lock): Unlock the lock that was taken"
    )
    legal = TWO.replace("unlock var=1", "unlock var=0")
    refused = finding(legal, 22, log="R1 is so\nprocessed 9 insns\n")
    assert refused.words == "refused with EINVAL, but breaks no rule: R1 is so"


def test_a_finding_is_kept_and_read_again(tmp_path):
    findings.save(tmp_path / "corpus", [finding()], "6.12.1")
    assert findings.corpus(tmp_path / "corpus") == [ir.parse(TWO)]
    assert findings.corpus(tmp_path / "none") == []
    (tmp_path / "corpus" / f"bad{findings.SUFFIX}").write_text("program")
    with pytest.raises(UsageError, match="type= is missing"):
        findings.corpus(tmp_path / "corpus")
    with pytest.raises(UsageError, match="Cannot read"):
        findings.read(tmp_path / "missing")


def test_the_listing_has_all_instructions():
    code = lower.lower(ir.parse(TWO))
    rows = listing.listing(code).splitlines()
    wide = sum(code.instructions[at] == 0x18 for at in range(0, len(code.instructions), 8))
    assert len(rows) == len(code.instructions) // 8 - wide
    assert "call helper#93" in listing.listing(code) and rows[-1].endswith("exit")


def test_every_statement_is_listed_and_drafted():
    made = generate.Generator(5, KERNEL)
    words = set()
    for _ in range(150):
        program = made.program()
        words |= {statement.word for statement in ir.everything(program)}
        assert listing.listing(lower.lower(program))
        assert draft.draft(program, oracle.judge(program, KERNEL))
    assert words == set(ir.WORDS)


def test_a_draft_has_the_rule_and_the_statements():
    text = draft.draft(ir.parse(TWO), oracle.judge(ir.parse(TWO), KERNEL))
    assert 'SEC("tc") __rule("Unlock the lock that was taken")' in text
    assert "bpf_spin_lock(v->v0 + 8);" in text and 'hash SEC(".maps");' in text
