# SPDX-License-Identifier: GPL-2.0-only
"""What is said when a kernel of several is done."""

from harness.judging.verdict import Kind
from harness.pytest_plugin.eta import Countdown
from harness.results.result import Result


def passed(kernel):
    return Result("lock_it", "libbpf", f"{kernel}.1", Kind.PASS, "", column=kernel)


def test_a_kernel_is_done_with_the_last_of_its_cases():
    countdown = Countdown(["5.10", "6.12"])
    countdown.expect(
        ["t.py::test_verdict[5.10-a-bcc]", "t.py::test_verdict[5.10-b-bcc]"]
        + ["t.py::test_verdict[6.12-a-bcc]", "t.py::test_verdict[6.12-b-bcc]", "unit.py::test_x"]
    )
    results = [passed("5.10")]
    assert countdown.ended("5.10", results, 0, 60.0) == ""
    results += [passed("5.10")]
    assert countdown.ended("5.10", results, 0, 120.0) == (
        "5.10: 2 PASS on 5.10.1; 1 of 2 kernels in 2.0 min, about 2.0 to go"
    )
    assert countdown.ended("another", results, 0, 120.0) == ""


def test_a_kernel_whose_name_begins_anothers():
    countdown = Countdown(["6.12", "6.12-rt"])
    countdown.expect(["[6.12-a-libbpf]", "[6.12-rt-a-libbpf]", "[6.12-rt-b-libbpf]"])
    assert "1 of 2 kernels" in countdown.ended("6.12", [passed("6.12")], 0, 60.0)
    assert countdown.ended("6.12-rt", [passed("6.12-rt")], 0, 60.0) == ""
    assert "2 of 2 kernels" in countdown.ended("6.12-rt", [passed("6.12-rt")], 0, 60.0)


def test_results_from_before_took_no_time():
    countdown = Countdown(["5.10", "6.12"])
    countdown.expect(["[5.10-a-bcc]", "[6.12-a-bcc]", "[6.12-b-bcc]"])
    results = [passed("5.10") for _ in range(10)]
    assert "about 4.0 to go" in countdown.ended("5.10", results, 9, 120.0)


def test_of_one_kernel_nothing_is_said():
    countdown = Countdown([None])
    countdown.expect(["[running-a-bcc]"])
    assert countdown.ended("None", [passed("None")], 0, 1.0) == ""
