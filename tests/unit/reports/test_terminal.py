# SPDX-License-Identifier: GPL-2.0-only
"""Reports made of results that real kernels gave (data/results.jsonl, trimmed)."""

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from harness import __main__ as command
from harness.errors import SetupError, UsageError
from harness.judging.verdict import Kind, Observation
from harness.provision import build, catalogue
from harness.reports import page, rulebook, terminal
from harness.results import matrix
from harness.scenarios import annotation, declarations
from harness.scenarios.programs import Programs

DATA = Path(__file__).parent.parent / "data" / "results.jsonl"
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def pivot():
    return matrix.Matrix(matrix.read([DATA]).results)


def result(pivot, name, column, loader="libbpf"):
    return pivot.cells[name, column, loader]


# -- reading ---------------------------------------------------------------------------------------


def test_the_newer_result_of_a_case_wins(tmp_path):
    line = json.loads(DATA.read_text().splitlines()[0])
    old, new = tmp_path / "old.jsonl", tmp_path / "new.jsonl"
    old.write_text(json.dumps({**line, "reason": "old"}) + "\n")
    new.write_text(json.dumps({**line, "reason": "new"}) + "\n")
    os.utime(old, (1, 1))
    for places in ([old, new], [new, old]):
        assert [r.reason for r in matrix.read(places).results] == ["new"]


def test_a_last_line_that_is_cut_off_is_left_out_and_said(tmp_path):
    lines = DATA.read_text().splitlines(keepends=True)
    file = tmp_path / "results.jsonl"
    file.write_text("".join(lines[:3]) + lines[3][:200])
    reading = matrix.read([tmp_path])
    assert len(reading.results) == 3
    assert "last line is cut off" in reading.notes[0]


@pytest.mark.parametrize(
    "content, words",
    [
        (None, "There are no results in"),
        ("", "holds no result"),
        ('{"name": "a"', "holds no result"),
        ("nonsense\n" * 2, ":1 is no result (it is no JSON)"),
        ("\x7fELF", ":1 is no result (it is no JSON)"),
        ("[" * 100000, ":1 is no result (it is no JSON)"),
        ('{"name": "a"}\n', ":1 is no result (it has no loader)"),
        ("[]\n", ":1 is no result (it cannot be [])"),
    ],
)
def test_a_file_that_cannot_be_used_is_said_in_a_sentence(tmp_path, content, words):
    file = tmp_path / "results.jsonl"
    if content is not None:
        file.write_text(content)
    with pytest.raises(UsageError, match=re.escape(words)):
        matrix.read([file])


@pytest.mark.parametrize(
    "change, words",
    [
        ({"format": 2}, "it has 'format', which only a newer harness may know"),
        ({"verdict": "MAYBE"}, 'verdict cannot be "MAYBE"'),
        ({"verdict": []}, "verdict cannot be []"),
        ({"name": 7}, "name cannot be 7"),
        ({"rule": None}, "rule cannot be null"),
        ({"evidence": "text"}, 'evidence cannot be "text"'),
        ({"evidence": [1]}, "evidence cannot be 1"),
        ({"facts": []}, "facts cannot be []"),
        ({"seconds": {"case": "long"}}, 'seconds cannot be "long"'),
        ({"known_bugs": [["a"]]}, 'known_bugs cannot be ["a"]'),
        ({"expected": [{"kernels": ""}]}, "expected has no what"),
    ],
)
def test_a_result_of_another_form_is_said_in_a_sentence(tmp_path, change, words):
    line = {**json.loads(DATA.read_text().splitlines()[0]), **change}
    file = tmp_path / "results.jsonl"
    file.write_text(json.dumps(line) + "\n")
    with pytest.raises(UsageError, match=re.escape(f":1 is no result ({words});")):
        matrix.read([file])


def test_results_of_a_loader_that_is_not_known_here_are_shown():
    result = replace(matrix.read([DATA]).results[0], loader="third")
    shown = matrix.to_json(matrix.Matrix([result]))
    assert shown["loaders"] == ["third"]
    assert shown["rules"][0]["cases"][0]["results"][0]["loader"] == "third"


def test_the_command_says_it_and_exits_2(tmp_path, capsys):
    assert command.main(["report", str(tmp_path / "nowhere")]) == 2
    assert "nowhere" in capsys.readouterr().err


# -- the matrix ------------------------------------------------------------------------------------


def test_kernels_stand_in_order_of_version_and_paths_last():
    names = ["7.3", "6.12-rt", "/tmp/bzImage", "5.10", "6.12", "6.1"]
    assert matrix.order(names) == ["5.10", "6.1", "6.12", "6.12-rt", "7.3", "/tmp/bzImage"]


def test_a_case_that_ran_says_more_than_one_that_was_skipped(pivot):
    passed = result(pivot, "missing_unlock", "6.12")
    skipped = matrix.Result(**{**passed.__dict__, "verdict": Kind.SKIP})
    assert matrix.worst([skipped, passed]) is passed
    assert matrix.worst([]) is None


def test_what_did_not_pass_is_listed_once_per_case_with_its_kernels(pivot):
    notable = [(r.name, r.verdict, kernels) for r, kernels in pivot.notable()]
    assert notable[0] == ("hang", Kind.CRASH, ["6.12"])
    assert notable.count(("unlock_of_other_lock_on_second_path", Kind.KNOWN, ["5.10"])) == 2


@pytest.mark.parametrize(
    "selection, cases",
    [
        (matrix.Selection(rule="unlock the LOCK"), {"unlock_of_other_lock_on_second_path"}),
        (matrix.Selection(rule="wrong_te"), {"wrong_text"}),
        (matrix.Selection(verdicts=("CRASH", "FAIL")), {"hang", "wrong_text"}),
        (
            matrix.Selection(kernels=("7.3",), loader="bcc"),
            {"missing_unlock", "lock_first", "unlock_of_other_lock_on_second_path"},
        ),
    ],
)
def test_selection(pivot, selection, cases):
    assert {r.name for r in selection.of(pivot.results)} == cases


@pytest.mark.parametrize(
    "selection, words",
    [
        (matrix.Selection(kernels=("6.2",)), "no kernel '6.2': they have 5.10, 6.12, 7.3"),
        (matrix.Selection(rule="of nobody"), "No result is left"),
    ],
)
def test_a_selection_of_nothing_is_refused(pivot, selection, words):
    with pytest.raises(UsageError, match=words):
        selection.of(pivot.results)


def test_the_end_of_a_path_tells_own_kernels_apart(pivot):
    paths = ["/home/me/linux/good/bzImage-a", "/home/me/linux/good/bzImage-b"]
    columns = dict(zip(sorted({result.column for result in pivot.results}), paths))
    own = [replace(r, column=columns[r.column]) for r in pivot.results if r.column in columns]
    head = terminal.terminal(matrix.Matrix(own), 120, False).splitlines()[0].split()
    assert head == ["…d/bzImage-a", "…d/bzImage-b"]


def test_eleven_kernels_fit_into_120_columns(pivot):
    one = result(pivot, "unlock_of_other_lock_on_second_path", "5.10").__dict__
    many = [matrix.Result(**{**one, "column": name}) for name in catalogue.all_names()]
    text = terminal.terminal(matrix.Matrix(many), 120, colour=False)
    assert max(map(len, text.splitlines())) <= 120
    assert text.splitlines()[0].split() == catalogue.all_names()
    assert text.splitlines()[2].split() == [one["name"], *["known"] * 11]


def test_loaders_that_differ_both_show(pivot):
    cells = dict(pivot.cells)
    bad = result(pivot, "lock_first", "6.12", "bcc").__dict__
    cells["lock_first", "6.12", "bcc"] = matrix.Result(**{**bad, "verdict": Kind.FAIL})
    text = terminal.terminal(matrix.Matrix(list(cells.values())), 120, colour=False)
    assert re.search(r"^  lock_first +ok +FA ok +ok", text, re.MULTILINE)


def test_json_holds_every_result(pivot):
    data = json.loads(json.dumps(matrix.to_json(pivot)))
    assert [k["name"] for k in data["kernels"]] == ["5.10", "6.12", "7.3"]
    seen = [r for rule in data["rules"] for case in rule["cases"] for r in case["results"]]
    assert len(seen) == len(pivot.results)
    wrong = next(r for r in seen if r["verdict"] == "FAIL")
    assert (wrong["stage"], wrong["errno"]) == ("prog_load", "EINVAL")
    assert wrong["expected"] == 'refused at prog_load, EACCES, "a text of no kernel"'


def test_markdown_counts_lists_and_folds_the_matrix(pivot):
    text = terminal.markdown(pivot)
    assert "| 6.12 | 6.12.118+deb13-cloud-amd64 |" in text
    assert "* **FAIL** `wrong_text` (libbpf) on 6.12: expected: errno EACCES" in text
    assert text.index("<details>") > text.index("**CRASH**")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert all(row.count("|") == rows[-1].count("|") for row in rows[-5:])


# -- a failure explains itself -----------------------------------------------------------------------


def test_a_failure_explains_itself(pivot):
    assert terminal.explain(result(pivot, "wrong_text", "6.12")).splitlines() == [
        "FAIL wrong_text [libbpf] on 6.12.118+deb13-cloud-amd64: expected: errno EACCES,"
        ' "a text of no kernel"; refused at prog_load: EINVAL bpf_spin_unlock is missing',
        "  rule     Wrong expectations",
        f"  source   {result(pivot, 'wrong_text', '6.12').where}",
        "  MATCHED    refused at prog_load",
        "  EXPECTED   errno EACCES",
        "  UNEXPECTED refused at prog_load: EINVAL bpf_spin_unlock is missing",
        '  EXPECTED   "a text of no kernel"',
        '  UNEXPECTED log: "bpf_spin_unlock is missing"',
        "  repeat   spinlock run wrong_text --loader libbpf --kernel 6.12 --programs tests/self/no",
    ]


def test_a_kernel_that_does_not_boot_shows_where_it_panicked():
    panic = [
        "[ 1.8] Kernel panic - not syncing: no root",
        *(f"[ 1.9] frame {n}" for n in range(20)),
    ]
    console = "\n".join(["[ 0.0] Booting", *panic])
    words = terminal.unable(SetupError("It panicked.", console)).splitlines()
    assert words[0] == "It panicked." and words[1:] == [f"  {line}" for line in panic[:12]]


def test_a_guest_that_says_nothing_shows_its_last_lines():
    console = "\n".join(f"line {n}" for n in range(20))
    words = terminal.unable(SetupError("It is silent.", console)).splitlines()
    assert words == ["It is silent.", *(f"  line {n}" for n in range(8, 20))]
    assert terminal.unable(SetupError("There is no kernel.")) == "There is no kernel."


def test_the_clause_that_applies_is_marked_among_all(pivot):
    text = terminal.explain(result(pivot, "unlock_of_other_lock_on_second_path", "5.10"))
    assert "  here ->  <6.2: refused at prog_load, EACCES" in text
    assert "           >=6.2: refused at prog_load, EINVAL" in text
    assert "  known    <6.2, see commit 7c884339bbff" in text


def test_the_whole_log_is_there_when_asked_for(pivot):
    failed = result(pivot, "wrong_text", "6.12")
    assert "verifier log:" not in terminal.explain(failed)
    assert failed.observation.log.splitlines()[0] in terminal.explain(failed, whole=True)


# -- the page ----------------------------------------------------------------------------------------


def test_the_page_needs_nothing_else_and_holds_every_result(pivot):
    text = page.html(pivot)
    assert not re.findall(r'(?:src|href)="|url\(|@import', text)
    data = json.loads(re.search(r'type="application/json" id="data">(.*?)</script>', text)[1])
    assert len(data["cells"]) == len(pivot.results)
    verdict, evidence = map(data["fields"].index, ("verdict", "evidence"))
    crash = next(c for c in data["cells"] if data["pool"][c[verdict]] == "CRASH")
    assert "soft lockup" in data["pool"][crash[evidence]][0]
    assert text.count("data-n=") >= len(pivot.results)


def test_nothing_in_a_result_can_end_the_script_or_add_an_element(pivot):
    evil = "</script><img src=x onerror=alert(1)>"
    one = {**result(pivot, "missing_unlock", "6.12").__dict__, "rule": evil, "reason": evil}
    text = page.html(matrix.Matrix([matrix.Result(**{**one, "name": evil, "rule_text": evil})]))
    assert "<img" not in text and text.count("</script>") == 2


def test_logs_are_cut_and_equal_ones_are_held_once(pivot):
    one = result(pivot, "missing_unlock", "6.12").__dict__
    long = "\n".join(f"line {number}" for number in range(5000))
    many = [
        matrix.Result(
            **{**one, "name": f"case_{number}", "observation": Observation("prog_load", log=long)}
        )
        for number in range(500)
    ]
    text = page.html(matrix.Matrix(many))
    assert text.count("line 4999") == 2  # the log, and its telling line
    assert "4988 lines before" in text and len(text) < 400_000


def test_the_command_writes_each_form(tmp_path, capsys):
    for form, words in (
        ("--markdown", "<details>"),
        ("--json", '"format": 1'),
        ("-v", "lock_first"),
    ):
        assert command.main(["report", str(DATA), form]) == 0
        assert words in capsys.readouterr().out
    assert command.main(["report", str(DATA), "--html", str(tmp_path / "page.html")]) == 0
    assert (tmp_path / "page.html").stat().st_size > 10_000


# -- the rule book -----------------------------------------------------------------------------------


def test_docs_rules_md_is_what_the_c_files_say():
    text = rulebook.markdown(Programs.read(build.PROGRAMS))
    written = (ROOT / "docs" / "rules.md").read_text(encoding="utf-8")
    assert text == written, f"docs/rules.md is out of date: run `{rulebook.COMMAND}`"


def test_the_rule_book_says_what_each_kernel_must_do():
    source = """
/*
 * Rule: A rule
 * Its prose.
 * commit 0123456789ab ("subject") (in v5.1)
 */
SEC("tc") __rule("A rule") __success
int legal(struct __sk_buff *skb) { return 0; }

SEC("tc") __rule("A rule") __twin(legal) __needs(bpf_loop, "5.17")
__known_bug("ba9876543210", ">=6.11,<6.12.107") __known_bug("ba9876543210", ">=6.13,<7.2")
__kernel("<6.13") __failure __errno(EINVAL) __msg("old | text")
__kernel(">=6.13") __failure __stage(map_create) __errno(EPERM)
int refused(struct __sk_buff *skb) { return 0; }
"""
    file = annotation.read(source, Path("/src/bpf_progs/rules/a.bpf.c"))
    text = rulebook.markdown(Programs(Path("/src/bpf_progs"), (file,)))
    assert "(../bpf_progs/rules/a.bpf.c)" in text
    assert "[0123456789ab](https://git.kernel.org/torvalds/c/0123456789ab)" in text
    rows = {
        row[1]: [re.sub(r"\(https.*?\)", "", cell).strip() for cell in row[2:]]
        for row in (
            re.split(r"(?<!\\)\|", line) for line in text.splitlines() if "a.bpf.c)" in line
        )
    }
    legal, refused = rows.values()
    assert legal[:11] == ["loads"] * 11
    assert refused[:4] == [
        "–",
        r"EINVAL: `old \| text`",
        "″",
        "map_create EPERM **BUG** [ba9876543210]",
    ]
    assert refused[9:11] == ["map_create EPERM", "″"]


def test_the_rule_book_is_in_the_order_of_its_topics_and_of_versions():
    def rule(name, version, topic=""):
        topic = f" * Topic: {topic}\n" if topic else ""
        commit = f'commit 0123456789ab ("subject") (in v{version})'
        return (
            f"/*\n * Rule: {name}\n{topic} * Its prose.\n * {commit}\n */\n"
            f'SEC("tc") __rule("{name}") __success\nint {name.lower()}(void *c) {{ return 0; }}\n'
        )

    topics = "/* Topic: First\n * Its words. */\n\n/* Topic: Empty */\n\n/* Topic: Second */\n"
    source = rule("A", "6.10") + rule("B", "6.10", "Second") + rule("C", "6.2", "Second")
    source += rule("D", "6.2", "Second") + rule("E", "7.0", "First")
    text = rulebook.markdown(
        Programs(
            Path("/src/bpf_progs"),
            (annotation.read(source, Path("/src/bpf_progs/rules/a.bpf.c")),),
            (declarations.read(topics, Path("/src/bpf_progs/include/topics.h")),),
        )
    )
    headings = [line for line in text.splitlines() if line.startswith("##")]
    assert headings == [
        *("## First", "### E", "## Second", "### C", "### D", "### B", "## Other rules", "### A")
    ]
    assert "* [First](#first)\n  * v7.0: [E](#e): 1\n* [Second](#second)\n  * v6.2: [C]" in text
    assert "## First\n\nIts words.\n\n### E\n\nIts prose. Since v7.0.\n" in text


def test_the_rule_book_has_the_refusals_that_cases_share():
    source = """
/*
 * Refusal: x
 * EINVAL "old | text"
 * since v6.13: map_create EPERM
 * Why.
 * commit 0123456789ab ("subject") (in v6.13)
 */
SEC("tc") __rule("A rule") __success
int legal(struct __sk_buff *skb) { return 0; }

SEC("tc") __rule("A rule") __twin(legal) __refused(x)
int refused(struct __sk_buff *skb) { return 0; }
"""
    file = annotation.read(source, Path("/src/bpf_progs/rules/a.bpf.c"))
    text = rulebook.markdown(Programs(Path("/src/bpf_progs"), (file,)))
    assert (
        r"| [x](../bpf_progs/rules/a.bpf.c) | <6.13: EINVAL: `old \| text`<br>>=6.13: map_create EPERM"
        " | Why.<br>[0123456789ab](https://git.kernel.org/torvalds/c/0123456789ab)"
        ' ("subject") (in v6.13) |\n'
    ) in text
