# SPDX-License-Identifier: GPL-2.0-only
"""What an observation says in words."""

import pytest

from harness.judging.verdict import Observation
from harness.judging.wording import in_words, telling_line

REFUSED = Observation("prog_load", "EINVAL", "0: (95) exit\nlock is missing\nprocessed 9 insns")


@pytest.mark.parametrize(
    "seen, words",
    [
        (Observation(None), "loaded"),
        (Observation(None, retval=0), "loaded, returned 0"),
        (REFUSED, "refused at prog_load: EINVAL lock is missing"),
        (Observation("attach", "EBUSY"), "refused at attach: EBUSY"),
        (Observation("compile", detail="x.c:1: error"), "refused at compile: x.c:1: error"),
        (Observation("no_headers"), "refused at no_headers"),
        (Observation(missing=("bpf_a", "bpf_b")), "not asked: the kernel lacks bpf_a, bpf_b"),
        (Observation(lost="panic: it is dead", console="panic"), "panic: it is dead"),
    ],
)
def test_each_way_to_end_has_its_words(seen, words):
    assert in_words(seen) == words


def test_less_may_be_said():
    assert in_words(REFUSED, text=False) == "refused at prog_load: EINVAL"
    assert in_words(REFUSED, errno=False, text=False) == "refused at prog_load"
    assert in_words(Observation(None, retval=7), retval=False) == "loaded"


def test_an_explanation_below_the_log_is_not_what_tells():
    log = "R1 is no lock\nprocessed 3 insns\n\nVerification failed:\nTake the lock first."
    assert telling_line(log) == "R1 is no lock" and telling_line("") == ""
