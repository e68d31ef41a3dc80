# SPDX-License-Identifier: GPL-2.0-only
"""The SARIF log of an answer is valid by the schema of the standard, and points at the source."""

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from harness.check import classes, examine, lockset, proof, prove, sarif
from harness.check.answer import Answer
from harness.check.coming import Breach, Coming
from harness.check.examine import OnKernel, Outcome
from harness.check.refusal import Refusal
from harness.check.walk import Access
from harness.provision import elf

SCHEMA = json.loads((Path(__file__).parents[1] / "data/sarif-schema-2.1.0.json").read_text())
WHY = Refusal("missing-unlock", "no unlock", file="src/a b.c", line_number=3, source="return 0;")
RACY = Access(("m", False), "sum", "written", True, frozenset(), frozenset(), "one", "src/a b.c:7")
FIELDS = (
    lockset.Judged("m", "sum", lockset.NOT_PROTECTED, accesses=(RACY,), advice="Take the lock."),
    lockset.Judged("m", "count", lockset.PROTECTED),
    lockset.Judged("m", "last", lockset.UNKNOWN, "a call was not followed"),
)


def log(answer, file=Path("src/a b.c")):
    made = json.loads(json.dumps(sarif.to_sarif([(file, answer)], "1.2")))
    jsonschema.Draft4Validator(
        SCHEMA, format_checker=jsonschema.Draft4Validator.FORMAT_CHECKER
    ).validate(made)
    return made["runs"][0]


def answer(programs, problem=None, fields=(), required=("6.12",), warning=""):
    row = OnKernel("6.12", "6.12.1", programs, problem, warning=warning)
    source = examine.Source("a.o", b"", elf.Object({}, tuple(programs), {}))
    return Answer(source, tuple(programs), (row,), lockset.Findings(fields), required)


def test_a_refusal_points_at_its_line():
    run = log(answer({"one": Outcome(WHY), "two": Outcome()}))
    (result,) = run["results"]
    assert (result["ruleId"], result["level"]) == ("missing-unlock", "error")
    place = result["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == "src/a%20b.c" and place["region"]["startLine"] == 3
    assert result["locations"][0]["logicalLocations"] == [{"name": "one", "kind": "function"}]
    (rule,) = run["tool"]["driver"]["rules"]
    assert classes.BY_NAME["missing-unlock"].advice in rule["help"]["text"]
    assert "docs/refusals.md#missing-unlock" in rule["help"]["markdown"]


def test_a_kernel_that_is_not_required_makes_no_error():
    (result,) = log(answer({"one": Outcome(WHY)}, required=()))["results"]
    assert result["level"] == "warning"


def test_one_cause_in_two_places_is_two_results_of_one_rule():
    run = log(answer({"one": Outcome(WHY), "two": Outcome(replace(WHY, line_number=9))}))
    lines = [r["locations"][0]["physicalLocation"]["region"]["startLine"] for r in run["results"]]
    assert lines == [3, 9] and len(run["tool"]["driver"]["rules"]) == 1


def test_what_has_no_place_is_put_on_the_file():
    problem = Refusal("object", "libbpf refuses it")
    (result,) = log(answer({"one": Outcome()}, problem))["results"]
    place = result["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == "src/a%20b.c" and place["region"]["startLine"] == 1
    assert "logicalLocations" not in result["locations"][0]


def test_fields_that_are_not_protected_are_results_and_protected_ones_are_none():
    racy, unknown = log(answer({"one": Outcome()}, fields=FIELDS))["results"]
    assert (racy["ruleId"], racy["level"]) == ("not-protected", "warning")
    assert racy["message"]["text"] == "m.sum: NOT PROTECTED. Take the lock."
    assert racy["relatedLocations"][0]["message"]["text"] == "written without the lock"
    assert racy["locations"][0]["physicalLocation"]["region"]["startLine"] == 7
    assert (unknown["ruleId"], unknown["level"]) == ("unknown", "note")


def test_a_complaint_of_the_kernel_is_a_result():
    (result,) = log(answer({"one": Outcome()}, warning="WARNING: at btf.c"))["results"]
    assert result["ruleId"] == "kernel-warning" and "WARNING: at btf.c" in result["message"]["text"]


def test_nothing_to_say_is_a_valid_log():
    assert log(answer({"one": Outcome()}))["results"] == []


@pytest.mark.parametrize("name", classes.BY_NAME)
def test_every_class_makes_a_valid_rule(name):
    (result,) = log(answer({"one": Outcome(replace(WHY, name=name))}))["results"]
    assert result["ruleId"] == name and result["ruleIndex"] == 0


def test_a_file_elsewhere_has_a_uri_of_its_own(tmp_path):
    why = replace(WHY, file=str(tmp_path / "x.c"))
    (result,) = log(answer({"one": Outcome(why)}))["results"]
    uri = result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
    assert uri == (tmp_path / "x.c").as_uri()


def test_the_schema_refuses_what_is_no_sarif():
    made = sarif.to_sarif([(Path("a.c"), answer({"one": Outcome(WHY)}))], "1")
    made["runs"][0]["results"][0]["level"] = "fatal"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft4Validator(SCHEMA).validate(made)


def test_each_file_has_a_run_of_its_own():
    pair = [(Path(name), answer({"one": Outcome(WHY)})) for name in ("a.c", "b.c")]
    made = sarif.to_sarif(pair, "1")
    jsonschema.Draft4Validator(SCHEMA).validate(made)
    ids = [run["automationDetails"]["id"] for run in made["runs"]]
    assert ids == ["spinlock check/a.c/", "spinlock check/b.c/"]


def test_an_access_has_the_whole_path_of_its_source():
    code = [elf.Insn(0x95, 0, 0, 0, 0)]
    function = elf.Function("one", "tc", code, lines={0: ("src/deep/x.c", 7)})
    found = answer(
        {"one": Outcome()}, fields=(replace(FIELDS[0], accesses=(replace(RACY, where="x.c:7"),)),)
    )
    source = examine.Source("a.o", b"", elf.Object({"one": function}, ("one",), {}))
    (result,) = log(replace(found, source=source))["results"]
    place = result["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == "src/deep/x.c"


def test_what_runs_accuse_and_the_rule_book_says_are_results():
    loss = proof.Loss("00000000", "200", "117", 83)
    judged = proof.Proof("m", "sum", proof.ACCUSED, loss=loss)
    fine = proof.Proof("m", "count", proof.MATTERS)
    breach = Breach("map 'm' has 2 locks in a value", "two_inner_locks", ("one",))
    found = replace(
        answer({"one": Outcome()}, fields=FIELDS[:1]),
        proven={"6.12": prove.Proven(4, (judged, fine))},
        coming=Coming("6.12", (), ("7.3",), (breach,)),
    )
    _, accused, newer = log(found)["results"]
    assert (accused["ruleId"], accused["level"]) == ("accused", "error")
    assert "m.sum: in runs on 6.12, 117 where one CPU leaves 200." == accused["message"]["text"]
    assert accused["locations"][0]["physicalLocation"]["region"]["startLine"] == 7
    assert (newer["ruleId"], newer["level"]) == ("newer-kernels", "note")
    assert "One lock per value" in newer["message"]["text"]
