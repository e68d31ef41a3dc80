"""docs/rules.md: what each kernel must do, from the C files alone."""

from __future__ import annotations

import re
from typing import Dict, List, Sequence

from packaging.version import Version

from harness.catalogue import CHECKED
from harness.programs import Programs
from harness.scenario import Rule, Scenario, covers

# The kernels of the table: what Debian had of each minor when the rules were measured. The exact
# version matters where a stable series got the mend of a bug.

COMMAND = "spinlock report --rules -o docs/rules.md"
LINK = "https://git.kernel.org/torvalds/c/"


def markdown(programs: Programs) -> str:
    """Return the rule book: per rule its words, its commits, and its cases x the kernels."""
    declared: Dict[str, Rule] = {rule.name: rule for file in programs.files for rule in file.rules}
    cases: Dict[str, List[Scenario]] = {name: [] for name in declared}
    for scenario in programs.scenarios():
        cases.setdefault(scenario.rule, []).append(scenario)
    count = sum(map(len, cases.values()))
    lines = [
        "# The rules of bpf_spin_lock",
        "",
        f"<!-- Generated from bpf_progs/*/*.bpf.c by `{COMMAND}`. Do not edit. -->",
        "",
        f"What {count} cases of {len(cases)} rules must do on {len(CHECKED)} kernels"
        f" ({', '.join(CHECKED.values())}). *loads*: the kernel must take the program. An errno: it"
        " must refuse it, when the program is loaded unless another stage is named, with that text"
        " in the verifier's log. ″: the same as one kernel before. –: that kernel has nothing of"
        " the kind. **BUG**: this is the rule, but that kernel is on record as breaking it; the"
        " commit mends it.",
        "",
    ]
    lines += [f"* [{name}](#{anchor(name)}): {len(cases[name])}" for name in cases]
    for name, of_rule in cases.items():
        lines += ["", f"## {name}", ""]
        rule = declared.get(name)
        if rule is not None:
            lines += [rule.text, "", *(f"* {_cited(commit)}" for commit in rule.commits), ""]
        if not of_rule:
            lines.append("Asked by tests of what programs do when they run; see `spinlock list`.")
            continue
        lines.append("| case | " + " | ".join(CHECKED) + " |")
        lines.append("|---" * (len(CHECKED) + 1) + "|")
        for case in of_rule:
            path = f"../{case.file.relative_to(programs.directory.parent)}"
            cells = [_cell(case, Version(version)) for version in CHECKED.values()]
            lines.append(f"| [{case.name}]({path}) | " + " | ".join(_ditto(cells)) + " |")
    return "\n".join(lines) + "\n"


def _ditto(cells: Sequence[str]) -> List[str]:
    """Replace what is as on the kernel before, if it is long, by a mark that can be read past."""
    return [
        "″" if i and cell == cells[i - 1] and len(cell) > len("`loads`") else cell
        for i, cell in enumerate(cells)
    ]


def _cell(case: Scenario, release: Version) -> str:
    """Return what one kernel must do with a case."""
    expectation = case.expectation(release)
    if expectation is None or any(release < Version(need.since) for need in case.needs):
        return "–"
    if expectation.accepted:
        words = "loads"
    else:
        stage = "" if expectation.stage == "prog_load" else f"{expectation.stage} "
        texts = " … ".join(_code(message) for message in expectation.messages)
        words = f"{stage}{expectation.errno or 'refused'}{': ' if texts else ''}{texts}"
    bug = next((bug for bug in case.known_bugs if covers(bug.kernels, release)), None)
    return f"{words} **BUG** [{bug.commit}]({LINK}{bug.commit})" if bug else words


def _code(message: str) -> str:
    """Return an expected text as code in a cell of a table; a regular expression shows as it is."""
    return f"`{message.replace('|', chr(92) + '|').replace('`', chr(39))}`"


def _cited(commit: str) -> str:
    """Return a commit, cited as in the C files, with a link."""
    name, _, rest = commit.partition(" ")
    return f"[{name}]({LINK}{name}) {rest}"


def anchor(heading: str) -> str:
    """Return the anchor that Markdown gives to a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
