# SPDX-License-Identifier: GPL-2.0-only
"""Generates docs/rules.md, the expected behaviour of each kernel, from the C files alone."""

from __future__ import annotations

from pathlib import Path
from typing import Dict, Iterable, Iterator, List, Sequence, Tuple

from packaging.version import Version

from harness.provision.catalogue import CHECKED
from harness.scenarios.programs import Programs
from harness.scenarios.scenario import Expectation, Refusal, Rule, Scenario, Topic, anchor
from harness.scenarios.versions import covers

# The kernels of the table: Debian's latest of each series when the rules were measured. The exact
# version matters if a stable series got the fix of a bug.

COMMAND = "spinlock report --rules -o docs/rules.md"
LINK = "https://git.kernel.org/torvalds/c/"


def markdown(programs: Programs) -> str:
    """Return the rule book: per rule its text, its commits, and a table of cases x kernels."""
    cases: Dict[str, List[Scenario]] = {}
    for scenario in programs.scenarios():
        cases.setdefault(scenario.rule, []).append(scenario)
    chapters = _chapters(programs, cases)
    count, rules = sum(map(len, cases.values())), [
        rule for chapter in chapters for rule in chapter[1]
    ]
    lines = [
        "# The rules of bpf_spin_lock",
        "",
        f"<!-- Generated from bpf_progs/*/*.bpf.c by `{COMMAND}`. Do not edit. -->",
        "",
        f"What {count} cases of {len(rules)} rules must do on {len(CHECKED)} kernels"
        f" ({', '.join(CHECKED.values())}). *loads*: the kernel must take the program. An errno: it"
        " must refuse it, when the program is loaded unless another stage is named, with that text"
        " in the verifier's log. ″: the same as one kernel before. –: that kernel has nothing of"
        " the kind. **BUG**: this is the rule, but that kernel is on record as breaking it; the"
        " commit mends it. First come the restrictions of the lock's first kernel, then what later"
        " kernels added; the version is that of the kernel that brought the rule.",
        "",
    ]
    for topic, of_topic in chapters:
        lines.append(f"* [{topic.name}](#{anchor(topic.name)})")
        for rule in of_topic:
            since = f"v{rule.since}: " if rule.since else ""
            lines.append(
                f"  * {since}[{rule.name}](#{anchor(rule.name)}): {len(cases.get(rule.name, ()))}"
            )
    for topic, of_topic in chapters:
        lines += ["", f"## {topic.name}", "", *([topic.text] if topic.text else [])]
        for rule in of_topic:
            lines += _rule(rule, cases.get(rule.name, ()), programs.directory.parent)
    lines += _refusals(programs.refusals(), programs.directory.parent)
    return "\n".join(lines) + "\n"


def _chapters(programs: Programs, named: Iterable[str]) -> List[Tuple[Topic, List[Rule]]]:
    """Return the rules by topic. Within a topic, they are in the order of kernel versions."""
    rules = programs.rules()
    declared = {rule.name for rule in rules}
    rules += [programs.rule(name) for name in named if name not in declared]
    rules.sort(key=lambda rule: Version(rule.since or "0"))  # those of one version stay in order
    topics = [*programs.topics(), Topic("Other rules", "", "")]
    names = {topic.name for topic in topics}
    chapters = [
        (
            topic,
            [r for r in rules if (r.topic if r.topic in names else topics[-1].name) == topic.name],
        )
        for topic in topics
    ]
    return [(topic, of_topic) for topic, of_topic in chapters if of_topic]


def _rule(rule: Rule, cases: Sequence[Scenario], root: Path) -> Iterator[str]:
    """Yield the lines on one rule. Paths in links are relative to `root`."""
    yield from ("", f"### {rule.name}", "")
    if rule.text or rule.commits:
        brought = f" Since v{rule.since}." if rule.since else ""
        yield from (f"{rule.text}{brought}", "")
        yield from (f"* {_cited(commit)}" for commit in rule.commits)
        yield ""
    if not cases:
        yield "Asked by tests of what programs do when they run; see `spinlock list`."
        return
    yield "| case | " + " | ".join(CHECKED) + " |"
    yield "|---" * (len(CHECKED) + 1) + "|"
    for case in cases:
        cells = [_cell(case, Version(version)) for version in CHECKED.values()]
        path = f"../{case.file.relative_to(root)}"
        yield f"| [{case.name}]({path}) | " + " | ".join(_ditto(cells)) + " |"


def _refusals(refusals: Sequence[Refusal], root: Path) -> Iterator[str]:
    """Yield the lines on refusals whose text several cases share."""
    if not refusals:
        return
    yield from ("", "## Refusals that cases share", "")
    yield "| refusal | kernels: what they say | why |"
    yield "|---|---|---|"
    for refusal in refusals:
        said = [f"{e.kernels or 'all'}: {_words(e)}" for e in refusal.clauses]
        why = [refusal.text, *map(_cited, refusal.commits)]
        path = f"../{Path(refusal.where.rpartition(':')[0]).relative_to(root)}"
        yield f"| [{refusal.name}]({path}) | {'<br>'.join(said)} | {'<br>'.join(why)} |"


def _ditto(cells: Sequence[str]) -> List[str]:
    """Replace a long cell that equals the cell before it by a ditto mark."""
    return [
        "″" if i and cell == cells[i - 1] and len(cell) > len("`loads`") else cell
        for i, cell in enumerate(cells)
    ]


def _cell(case: Scenario, release: Version) -> str:
    """Return the expected outcome of a case on one kernel."""
    expectation = case.expectation(release)
    if expectation is None or any(release < Version(need.since) for need in case.needs):
        return "–"
    words = _words(expectation)
    bug = next((bug for bug in case.known_bugs if covers(bug.kernels, release)), None)
    return f"{words} **BUG** [{bug.commit}]({LINK}{bug.commit})" if bug else words


def _words(expectation: Expectation) -> str:
    if expectation.accepted:
        return "loads"
    stage = "" if expectation.stage == "prog_load" else f"{expectation.stage} "
    texts = " … ".join(_code(message) for message in expectation.messages)
    return f"{stage}{expectation.errno or 'refused'}{': ' if texts else ''}{texts}"


def _code(message: str) -> str:
    """Return an expected text as code in a table cell. A regex is shown unchanged."""
    return f"`{message.replace('|', chr(92) + '|').replace('`', chr(39))}`"


def _cited(commit: str) -> str:
    """Return the citation of a commit in the C files with a link."""
    name, _, rest = commit.partition(" ")
    return f"[{name}]({LINK}{name}) {rest}"
