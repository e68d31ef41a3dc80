# SPDX-License-Identifier: GPL-2.0-only
"""Records in the form of /dev/kmsg, and the lines they stand for."""

import pytest

from harness.guest.kmsg import lines_of


@pytest.mark.parametrize(
    "record, lines",
    [
        (b"4,1047,92817431,-;BUG: scheduling while atomic\n", ["BUG: scheduling while atomic"]),
        (
            b"4,1051,92817442,-;\\x0abut task is already holding lock:\n",
            ["", "but task is already holding lock:"],
        ),
        (b"6,211,1800026,-;virtio_blk: new disk\n SUBSYSTEM=block\n", ["virtio_blk: new disk"]),
        (b"6,212,1800027,-;a\\x5cx0a and \\xc3\\xa9\n", ["a\\x0a and \u00e9"]),
        (b"12,213,1800028,-;spinlock: begin two_sections\n", []),
        (b" DEVICE=b254:0\n", []),
    ],
)
def test_a_record_gives_the_lines_that_were_printed(record, lines):
    assert lines_of(record) == lines
