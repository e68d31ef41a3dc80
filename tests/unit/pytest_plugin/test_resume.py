# SPDX-License-Identifier: GPL-2.0-only
"""What an interrupted run keeps when it goes on."""

import ast
import dataclasses
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

import harness
from harness.errors import UsageError
from harness.judging.verdict import Kind
from harness.provision import build
from harness.pytest_plugin import resume
from harness.results import matrix
from harness.results.result import Build

DATA = Path(__file__).parent.parent / "data" / "results.jsonl"
HELD = matrix.read([DATA]).results[-1]
COLUMN = matrix.column(HELD)


def with_facts(**facts):
    return dataclasses.replace(HELD, facts={**HELD.facts, **facts})


def sorted_out(tmp_path, result, **now):
    resume.source_digest.cache_clear()
    return resume.outdated([result], {COLUMN: now}, tmp_path, tmp_path)


def test_what_differs_is_said_and_what_one_side_does_not_know_is_not():
    old = with_facts(cpus=4, kernel_package="6.12.117-1")
    new = {"cpus": 2, "kernel_package": "6.12.118-1", "qemu": "QEMU emulator version 7.2"}
    assert resume.differences(old.facts, old.facts) == []
    said = ["package 6.12.117-1, now 6.12.118-1", "CPUs 4, now 2"]
    assert resume.differences(old.facts, new) == said


def test_results_of_another_kernel_package_do_not_hold(tmp_path):
    old = with_facts(kernel_package="6.12.117-1")
    found = sorted_out(tmp_path, old, kernel_package="6.12.118-1")
    assert found == {COLUMN: ([old], ["package 6.12.117-1, now 6.12.118-1"])}
    assert sorted_out(tmp_path, old, kernel_package="6.12.117-1") == {}


def test_a_kernel_that_is_not_run_any_more_keeps_its_results(tmp_path):
    old = with_facts(cpus=4)
    assert resume.outdated([old], {"another": {"cpus": 2}}, tmp_path, tmp_path) == {}


@pytest.mark.parametrize(
    "file, changed, holds",
    [
        ("one.bpf.c", "one.bpf.c", False),
        ("one.bpf.c", "spinlock.h", False),
        ("one.bpf.c", "include/refusals.h", False),
        ("one.bpf.c", "two.bpf.c", True),
        ("test_it.py", "driven/three.bpf.c", False),
        ("test_it.py", "two.bpf.c", False),  # which of them a test loads only the test knows
        ("test_it.py", "other.py", True),
    ],
)
def test_a_changed_source_costs_the_results_that_it_may_concern(tmp_path, file, changed, holds):
    for folder in ("include", "driven"):
        (tmp_path / folder).mkdir()
    for name in (
        "one.bpf.c",
        "two.bpf.c",
        "driven/three.bpf.c",
        "spinlock.h",
        "include/refusals.h",
    ):
        (tmp_path / name).write_text(name)
    for name in ("test_it.py", "other.py"):
        (tmp_path / name).write_text(name)
    resume.source_digest.cache_clear()
    old = with_facts(**resume.sources(tmp_path / file, tmp_path, tmp_path))
    assert old.facts["source"] == file
    (tmp_path / changed).write_text("changed")
    found = sorted_out(tmp_path, old)
    assert found == ({} if holds else {COLUMN: ([old], [f"{file} has changed"])})


def test_results_that_were_judged_otherwise_do_not_hold(tmp_path):
    old = with_facts(judges_digest=resume.judges_digest())
    assert sorted_out(tmp_path, old) == {}
    other = with_facts(judges_digest="0123456789abcdef")
    assert sorted_out(tmp_path, other) == {
        COLUMN: ([other], ["the harness judges by other sources"])
    }


def test_each_judge_counts(tmp_path):
    package = Path(harness.__file__).parent
    for room in resume.JUDGES:
        shutil.copytree(package / room, tmp_path / room)
    assert resume.judges_digest(tmp_path) == resume.judges_digest()
    for module in ("judging/splat.py", "machines/target.py", "scenarios/versions.py"):
        resume.judges_digest.cache_clear()
        before = resume.judges_digest(tmp_path)
        with (tmp_path / module).open("a") as file:
            file.write("# changed")
        resume.judges_digest.cache_clear()
        assert resume.judges_digest(tmp_path) != before


def test_what_tests_judge_by_is_among_the_judges():
    used = set()
    for file in (Path(__file__).parents[2] / "lock").rglob("test_*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("harness."):
                used.add(node.module.split(".")[1])
    assert "judging" in used and used <= {*resume.JUDGES, "guest", "errors"}


def test_other_options_are_said_in_a_sentence():
    began = {"--kernel": ["5.10", "6.12"], "--loader": "libbpf", "--cpus": 4}
    assert resume.other_options(began, began) == ""
    now = {"--kernel": ["6.12"], "--loader": None, "--cpus": 4}
    assert resume.other_options(began, now) == (
        "resumed with other options than this run began with:"
        " --kernel 6.12, was 5.10 6.12; --loader not given, was libbpf."
    )
    assert resume.other_options({}, now) == "", "what it began with is not known"


def test_the_options_are_beside_the_results(tmp_path):
    resume.write_options(tmp_path, {"--cpus": 2})
    (tmp_path / "results.jsonl").write_bytes(DATA.read_bytes() + b'{"name": "cut')
    before, options = resume.read(tmp_path)
    assert options == {"--cpus": 2} and len(before) == len(matrix.read([DATA]).results)
    with pytest.raises(UsageError, match="no run in"):
        resume.read(tmp_path / "nowhere")


def in_column(**facts):
    return dataclasses.replace(with_facts(**facts), column=COLUMN, target="qemu")


def opened(name="qemu", kernel=COLUMN, **now):
    return SimpleNamespace(
        name=name, kernel=kernel, describe=lambda: now, headers=lambda: Path("/none")
    )


def test_what_no_longer_holds_goes_and_what_an_error_ended_too(tmp_path):
    held = in_column(kernel_package="6.12.117-1", source="")
    error = dataclasses.replace(held, name="another", verdict=Kind.ERROR)
    before = resume.Before([held, error], {"--cpus": 2})
    assert before.results == (held,)
    now = opened(kernel_package="6.12.117-1")
    said = before.keep_what_holds({"--cpus": 4}, [now], tmp_path, tmp_path)
    assert said == ["resumed with other options than this run began with: --cpus 4, was 2."]
    assert before.results == (held,)
    now = opened(kernel_package="6.12.118-1")
    (said,) = before.keep_what_holds({"--cpus": 2}, [now], tmp_path, tmp_path)
    assert said.startswith(
        f"{COLUMN}: not what it was when this run began (package 6.12.117-1, now"
    )
    assert said.endswith("1 result from before must be made again.")
    assert before.results == () and before.done() == set()


def test_a_target_says_nothing_of_results_that_another_made(tmp_path):
    before = resume.Before([in_column(kernel_package="6.12.117-1", source="")])
    for other in (opened("vagrant", kernel_package="1"), opened(kernel="5.10", kernel_package="1")):
        assert before.keep_what_holds({}, [other], tmp_path, tmp_path) == []
    assert len(before.results) == 1
    assert before.keep_what_holds({}, [opened(kernel_package="1")], tmp_path, tmp_path)


@pytest.mark.parametrize(
    "target, column, without_kernel",
    [("qemu", "6.12", True), ("qemu", "5.10", False), ("vagrant", "5.10", True)],
)
def test_what_is_done_is_known_by_its_kernel_or_as_what_runs(target, column, without_kernel):
    result = dataclasses.replace(HELD, target=target, column=column)
    done = resume.Before([result]).done()
    assert resume.key(HELD.name, column, HELD.loader) in done
    assert (resume.key(HELD.name, "", HELD.loader) in done) is without_kernel


CLANG = "clang version 14.0.6"


def built(loader="libbpf", compiler=CLANG, digest="0123456789abcdef"):
    result = in_column(source="")
    builds = (Build("one.bpf.c", "", "fedcba9876543210"), Build("one.bpf.c", "TWO", digest))
    return dataclasses.replace(result, loader=loader, compiler=compiler, builds=builds)


@pytest.mark.parametrize(
    "result, said",
    [
        (built(), None),
        (built(compiler="clang version 16.0.0"), f"compiler clang version 16.0.0, now {CLANG}"),
        (built(digest="another"), "what is built of one.bpf.c is another object"),
        (built("bcc", "bcc 0.26.0"), None),
        (built("bcc", "bcc 0.26.0", "another"), "what is built of one.bpf.c is another object"),
        (in_column(source=""), None),  # of an older harness
    ],
)
def test_what_another_compiler_made_or_is_another_object_runs_again(
    tmp_path, monkeypatch, result, said
):
    def source(file, unit, loader, include):
        assert file == tmp_path / "one.bpf.c" and include == Path("/none")
        digest = "0123456789abcdef" if unit else "fedcba9876543210"
        return SimpleNamespace(digest=digest)

    (tmp_path / "one.bpf.c").write_text("")
    monkeypatch.setattr(build, "compiler", lambda: CLANG)
    monkeypatch.setattr(build, "source", source)
    before = resume.Before([result])
    words = before.keep_what_holds({}, [opened()], tmp_path, tmp_path)
    assert before.results == (() if said else (result,))
    assert [said in each for each in words] == ([True] if said else [])


def test_what_does_not_compile_any_more_is_another_object(tmp_path, monkeypatch):
    def source(*arguments):
        raise build.CompileError("no")

    (tmp_path / "one.bpf.c").write_text("")
    monkeypatch.setattr(build, "compiler", lambda: CLANG)
    monkeypatch.setattr(build, "source", source)
    before = resume.Before([built()])
    (words,) = before.keep_what_holds({}, [opened()], tmp_path, tmp_path)
    assert "1 result from before must be made again" in words and before.results == ()


def test_what_differs_is_said_once_for_a_kernel():
    before = resume.Before([in_column(cpus=4)])
    assert before.differs(in_column(cpus=4)) == ""
    before = resume.Before([in_column(cpus=4)])
    assert "CPUs 4, now 2. The results from before are kept" in before.differs(in_column(cpus=2))
    assert before.differs(in_column(cpus=2)) == ""
