# SPDX-License-Identifier: GPL-2.0-only
"""Two operations, interleaved in every way: a lock keeps the other one out at each point.

harness/explore/cases.py has the operations, explored.bpf.c the programs. One CPU runs at a time, so a
busy host changes nothing.
"""

import pytest

from harness.explore import cases, proof

RULE = "A held lock keeps others out at every point"
LOADERS = ("libbpf",)  # a schedule is one of machine code, which does not depend on the loader


@pytest.mark.parametrize("name", cases.ALL)
def test_schedules(guest, name):
    proof.conclude(guest, cases.ALL[name])
