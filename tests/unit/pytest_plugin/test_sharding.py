# SPDX-License-Identifier: GPL-2.0-only
"""What one machine of several takes, and how many guests it runs at once."""

from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from harness.errors import SetupError, UsageError
from harness.pytest_plugin import sharding
from harness.results import log

DATA = Path(__file__).parent.parent / "data" / "results.jsonl"


@given(st.dictionaries(st.text(), st.integers(1, 60), min_size=1), st.integers(1, 9))
def test_the_parts_are_disjoint_and_complete(sizes, parts):
    taken = [sharding.portion(sizes, part, parts) for part in range(1, parts + 1)]
    assert sorted(name for part in taken for name in part) == sorted(sizes)


def test_the_parts_have_about_as_many_cases_and_few_kernels():
    sizes = {f"{kernel} {file}": 10 for kernel in range(11) for file in range(30)}
    for part in (1, 2):
        taken = sharding.portion(sizes, part, 2)
        assert len(taken) == 165
        assert len({name.split()[0] for name in taken}) == 6


@pytest.mark.parametrize("text", ["", "0/2", "3/2", "1", "a/b", "1/2/3"])
def test_a_wrong_shard_is_refused(text):
    with pytest.raises(UsageError, match="such as 1/3"):
        sharding.shard(text)


def test_guests_are_no_more_than_memory_and_cpus_allow():
    assert sharding.bounded(2, 8000, 2) == (2, "")
    assert sharding.bounded(8, 8000, 4)[0] == 4 and "4 CPUs" in sharding.bounded(8, 8000, 4)[1]
    number, why = sharding.bounded(8, 4000, 16)
    assert (number, why[:17]) == (3, "-j 3 instead of 8")
    with pytest.raises(SetupError, match="900 MiB of memory"):
        sharding.bounded(1, 900, 2)
    with pytest.raises(UsageError):
        sharding.bounded(0, 9000, 2)


def test_what_a_killed_run_left_of_its_last_line_is_cut_off(tmp_path):
    file = tmp_path / "results.jsonl"
    assert not log.mend(file)
    whole = DATA.read_bytes()
    file.write_bytes(whole + b'{"name": "cut')
    assert log.mend(file) and file.read_bytes() == whole
    file.write_bytes(b'{"name": "cut')
    assert not log.mend(file) and file.read_bytes() == b""
    file.write_bytes(whole + b"\0" * 512)  # of a power cut
    assert log.mend(file) and file.read_bytes() == whole


@pytest.mark.parametrize("content", [b"a list of things to do", b"\x7fELF\n\x02\x01"])
def test_what_is_no_results_file_is_not_cut(tmp_path, content):
    file = tmp_path / "results.jsonl"
    file.write_bytes(content)
    with pytest.raises(UsageError, match="is no results file"):
        log.mend(file)
    assert file.read_bytes() == content
