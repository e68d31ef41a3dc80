# SPDX-License-Identifier: GPL-2.0-only
"""What an item says of its case: names, and with which others it belongs."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.provision import build
from harness.pytest_plugin import cases, run_options

KERNELS = ["5.10", "6.12"]
BOTH = pytest.mark.contends(both=True).mark
TABLE = pytest.mark.contends(both=("table",)).mark
ALONE = pytest.mark.contends.mark


def about_a_program(name="lock_it", file="lock.bpf.c", loader="libbpf", kernel="6.12"):
    case = SimpleNamespace(
        name=name, file=Path("/src/bpf_progs") / file, line=7, rule="Lock", description="It locks."
    )
    params = {"scenario": case, "loader": loader, "kernel": kernel}
    return SimpleNamespace(
        fixturenames=["scenario", "verdict"],
        callspec=SimpleNamespace(params=params),
        path=Path("/src/tests/test_verdicts.py"),
        location=("tests/lock/test_verdicts.py", 3, "test_verdict"),
    )


def run_time(loader="libbpf", kernel="6.12", **more):
    def test_hooks():
        """Each hook counts.

        And so on.
        """

    return SimpleNamespace(
        fixturenames=["guest"],
        callspec=SimpleNamespace(params={"driver": "xdp", "loader": loader, "kernel": kernel}),
        originalname="test_hooks",
        name="test_hooks[...]",
        obj=test_hooks,
        path=Path("/src/tests/lock/serialization/test_hooks.py"),
        location=("tests/lock/serialization/test_hooks.py", 11, "test_hooks"),
        **more,
    )


def unit_test():
    return SimpleNamespace(fixturenames=["tmp_path"], path=Path("/src/tests/unit/test_page.py"))


def test_a_case_is_called_by_its_program_or_by_its_test():
    assert cases.name(about_a_program()) == "lock_it"
    assert cases.name(run_time()) == "hooks_xdp"


def test_a_case_has_a_rule_a_place_and_a_description():
    assert cases.rule(about_a_program()) == "Lock"
    assert cases.where(about_a_program()) == "bpf_progs/lock.bpf.c:7"
    ours = build.PROGRAMS / "rules/balance.bpf.c"
    assert cases.where(about_a_program(file=ours)) == "bpf_progs/rules/balance.bpf.c:7"
    assert cases.description(about_a_program()) == "It locks."
    assert cases.rule(run_time(module=SimpleNamespace(RULE="Hooks"))) == "Hooks"
    assert cases.rule(run_time()) == cases.RUNTIME_RULE
    assert cases.where(run_time()) == "tests/lock/serialization/test_hooks.py:12"
    assert cases.description(run_time()) == "Each hook counts."


def test_what_runs_in_a_guest_is_told_from_a_unit_test():
    assert cases.needs_guest(about_a_program()) and cases.needs_guest(run_time())
    assert not cases.needs_guest(unit_test())


def test_kernels_have_their_turns_and_what_runs_through_bcc_comes_last():
    early, late = about_a_program(kernel="5.10"), run_time("bcc", "5.10")
    other, unit = about_a_program(loader="bcc"), unit_test()
    assert cases.in_turn([other, late, early, unit], KERNELS) == [unit, early, late, other]


def test_of_a_kernel_verdicts_come_first_through_libbpf_before_bcc_and_file_by_file():
    wanted = [
        about_a_program(file="a.bpf.c"),
        about_a_program("also", file="a.bpf.c"),
        about_a_program(file="a.bpf.c", loader="bcc"),
        about_a_program(file="b.bpf.c"),
        run_time(),
        run_time("bcc"),
    ]
    mixed = [wanted[place] for place in (5, 4, 0, 2, 1, 3)]
    assert cases.in_turn(mixed, KERNELS) == wanted


def test_files_come_so_that_rules_are_over_soon():
    def of(rule, file):
        item = about_a_program(file=file)
        item.callspec.params["scenario"].rule = rule
        return item

    first, second = of("Lock", "a.bpf.c"), of("Unlock", "b.bpf.c")
    late, later = of("Lock", "c.bpf.c"), of("Unlock", "d.bpf.c")
    assert cases.in_turn([first, second, later, late], KERNELS) == [first, late, second, later]


def test_a_worker_has_a_kernel_or_with_one_kernel_a_file():
    first, second = about_a_program(), about_a_program(file="other.bpf.c")
    assert cases.group(first, KERNELS) == cases.group(second, KERNELS) == "6.12-libbpf"
    assert cases.group(first, ["6.12"]) == "lock.bpf.c-libbpf"
    assert cases.group(run_time("bcc"), ["6.12"]) == "test_hooks.py-bcc"


def test_a_machine_takes_whole_requests():
    files = [f"{number}.bpf.c" for number in range(4) for _ in range(3)]
    items = [about_a_program(f"case{place}", file) for place, file in enumerate(files)]
    first, second = (cases.in_shard(items, part) for part in ("1/2", "2/2"))
    assert first == items[:6] and second == items[6:]


def contending(mark, driver="xdp", lock_path=""):
    item = run_time(get_closest_marker=lambda name: mark if name == "contends" else None)
    item.callspec.params.update(driver=driver, lock_path=lock_path)
    return item


def test_a_case_s_name_ends_in_the_path_that_its_guest_is_booted_for():
    assert cases.name(contending(BOTH)) == "hooks_xdp"
    assert cases.name(contending(BOTH, lock_path="queued")) == "hooks_xdp_queued"


@pytest.mark.parametrize(
    "mark, driver, queued",
    [(BOTH, "xdp", True), (ALONE, "xdp", False), (TABLE, "xdp", False), (TABLE, "table", True)],
)
def test_the_contests_that_matter_run_queued_unasked(mark, driver, queued):
    assert cases.matters_queued(contending(mark, driver, "queued")) == queued
    assert cases.matters_queued(contending(mark, driver))
    assert cases.contends(contending(mark)) and not cases.contends(contending(None))


@pytest.mark.parametrize(
    "option, both, paths",
    [
        (None, False, [""]),
        (None, True, ["", "queued"]),
        ("all", False, ["", "queued"]),
        ("queued", False, ["queued"]),
        ("test-and-set", True, [""]),
    ],
)
def test_lock_path_chooses_how_often_a_case_runs(option, both, paths):
    assert run_options.lock_paths(option, both) == paths
