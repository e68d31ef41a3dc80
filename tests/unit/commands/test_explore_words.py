# SPDX-License-Identifier: GPL-2.0-only
"""What `spinlock explore` cannot do is told in one sentence, before a guest boots."""

import pytest

from harness import __main__ as command


@pytest.mark.parametrize(
    "words, said",
    [
        (["nothing"], "no case 'nothing' to explore: counter"),
        (["counter", "--replay", "A"], "no move of a schedule"),
        (["counter", "--replay", "C:end"], "no actor C here"),
        (["--replay", "A:end"], "--replay goes with the NAME of one case"),
        (["counter", "--times", "3"], "--variant and --times go with --replay"),
        (["counter", "--replay", "A:end", "--times", "0"], "--times must be 1 or more"),
        (["counter", "--replay", "A:end", "--variant", "x"], "no variant 'x'"),
        (["interrupts_of_copy", "--replay", "A:end"], "no --replay"),
        (["counter", "--kernel", "9.99"], "9.99"),
    ],
)
def test_what_cannot_be_explored_is_told_in_one_sentence(words, said, capsys):
    assert command.main(["explore", *words]) == 2
    told = capsys.readouterr().err
    assert said in told and "Traceback" not in told
