# SPDX-License-Identifier: GPL-2.0-only
"""Reads declarations in comments of C files and headers: rules, topics, shared refusals. Pure.

Their syntax is documented at the top of ``bpf_progs/spinlock.h``.
"""

from __future__ import annotations

import bisect
import errno
import functools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple, TypeVar

from packaging.version import Version

from harness.errors import UsageError
from harness.scenarios.scenario import (
    Declared,
    Expectation,
    Refusal,
    Rule,
    Topic,
    commits,
    compile_message,
    nearest,
)

STAGES = ("btf_load", "map_create", "prog_load", "attach")
# The names that the guest reports. ENOTSUPP (524) exists in kernels only.
ERRNOS = sorted({*errno.errorcode.values(), "EOPNOTSUPP", "ENOTSUPP"} - {"ENOTSUP"})

_RULE, _TOPIC, _REFUSAL = "Rule:", "Topic:", "Refusal:"  # the start of a declaring comment
_COMMIT = re.compile(r"commit [0-9a-f]{12} \(")
_STRING = r'"((?:[^"\\]|\\.)*)"'
_TEXT = re.compile(
    r"(?:since v(?P<since>\d+\.\d+(?:\.\d+)?): *)?"
    r"(?:(?P<stage>[a-z]+_[a-z]+|attach) +)?(?P<errno>E[A-Z0-9]+)"
    rf"(?P<messages>(?: *{_STRING})*)$"
)


class AnnotationError(UsageError):
    """An invalid annotation. The message starts with ``file:line``."""


@dataclass(frozen=True)
class Comment:
    """A comment of a C file, and the positions of its first character and its end."""

    start: int
    end: int
    text: str

    @property
    def lines(self) -> List[str]:
        """The lines without stars; empty lines are left out."""
        lines = (line.strip().lstrip("*").strip() for line in self.text[2:-2].splitlines())
        return [line for line in lines if line]

    @property
    def declares(self) -> bool:
        """Tell whether the comment is a declaration, not a comment on the code below it."""
        return bool(self.lines) and self.lines[0].startswith((_RULE, _TOPIC, _REFUSAL))


def blank_comments(text: str) -> Tuple[str, List[Comment]]:
    """Return the code with its comments blanked, and the comments. Positions do not change."""
    comments: List[Comment] = []

    def blank(match: "re.Match[str]") -> str:
        if match.group().startswith('"'):
            return match.group()
        comments.append(Comment(match.start(), match.end(), match.group()))
        return re.sub(r"[^\n]", " ", match.group())

    return re.sub(r'"(?:[^"\\\n]|\\.)*"|/\*.*?\*/|//[^\n]*', blank, text, flags=re.DOTALL), comments


def line_of(code: str, position: int) -> int:
    """Return the line number of a position, from 1."""
    return bisect.bisect_left(_ends(code), position) + 1


@functools.lru_cache(
    maxsize=2
)  # files are read one after the other, each with thousands of positions
def _ends(code: str) -> List[int]:
    """Return the position of each line's end."""
    return [found.start() for found in re.finditer("\n", code)]


def unquoted(literal: str) -> str:
    """Return the value of the inside of a C string literal, with its escapes resolved."""
    escapes = {"n": "\n", "t": "\t"}
    return re.sub(r"\\(.)", lambda m: escapes.get(m.group(1), m.group(1)), literal)


def pattern(text: str) -> str:
    """Check an expected message and return it. Raises ValueError if it is empty or a bad regex."""
    if not text.strip():
        raise ValueError("is empty, which any log would satisfy")
    try:
        compile_message(text)
    except re.error as error:
        raise ValueError(f"holds a bad regular expression: {error}") from None
    return text


def read(text: str, path: Path) -> Declared:
    """Read the declarations in the text of a C file or header. Raises AnnotationError."""
    return of(blank_comments(text)[1], text, path)


def of(comments: Sequence[Comment], text: str, path: Path) -> Declared:
    """Return the declarations in the comments of a file. Raises AnnotationError."""
    return Declared(
        tuple(_each(_RULE, _rule, comments, text, path)),
        tuple(_each(_TOPIC, _topic, comments, text, path)),
        tuple(_each(_REFUSAL, _refusal, comments, text, path)),
    )


_Kind = TypeVar("_Kind", Rule, Topic, Refusal)


def _each(
    begins: str,
    make: Callable[[str, List[str], str], _Kind],
    comments: Sequence[Comment],
    text: str,
    path: Path,
) -> Iterator[_Kind]:
    for comment in comments:
        lines = comment.lines
        if lines and lines[0].startswith(begins):
            where = f"{path}:{line_of(text, comment.start)}"
            yield make(lines[0][len(begins) :].strip(), lines[1:], where)


def _prose(lines: Sequence[str]) -> str:
    """Return the text before the first cited commit."""
    return _COMMIT.split(" ".join(lines))[0].strip()


def _topic(name: str, lines: List[str], where: str) -> Topic:
    return Topic(name, _prose(lines), where)


def _rule(name: str, lines: List[str], where: str) -> Rule:
    topic = ""
    if lines and lines[0].startswith(_TOPIC):
        topic = lines.pop(0)[len(_TOPIC) :].strip()
    cited = commits(" ".join(lines))
    if not cited:
        raise AnnotationError(
            f'{where}: the rule names no commit; write: commit 0123456789ab ("subject") (in v5.1).'
        )
    return Rule(name, _prose(lines), cited, where, topic)


@dataclass(frozen=True)
class _Text:
    """The refusal text of kernels since a version; "": since the first kernel."""

    since: str
    stage: str
    errno: str
    messages: Tuple[str, ...]


def _refusal(name: str, lines: List[str], where: str) -> Refusal:
    if not re.fullmatch(r"\w+", name):
        raise AnnotationError(f'{where}: a refusal has one word for a name, not "{name}".')
    texts: List[_Text] = []
    while lines and (lines[0].startswith(("since", '"')) or _TEXT.match(lines[0])):
        line = lines.pop(0)
        while lines and lines[0].startswith('"'):
            line += " " + lines.pop(0)
        texts.append(_text(line, where))
    if not texts or any(line.startswith("since") for line in lines):
        raise AnnotationError(
            f"{where}: what is said of the refusal {name} comes first, a line for each text, as in:"
            ' EINVAL "text", and below it: since v6.13: EINVAL "new text".'
        )
    _check_versions(name, texts, where)
    return Refusal(name, tuple(_ranges(texts)), _prose(lines), commits(" ".join(lines)), where)


def _text(line: str, where: str) -> _Text:
    found = _TEXT.match(line)
    if found is None:
        raise AnnotationError(
            f"{where}: '{line}' is no text of a refusal; write one as in: since v6.13: map_create"
            ' EINVAL "text". Version, stage and texts may be left out.'
        )
    stage, name = found["stage"] or "prog_load", found["errno"]
    for word, known in ((stage, STAGES), (name, ERRNOS)):
        if word not in known:
            raise AnnotationError(f"{where}: there is no {word}{nearest(word, known)}.")
    try:
        messages = tuple(pattern(unquoted(m)) for m in re.findall(_STRING, found["messages"]))
    except ValueError as error:
        raise AnnotationError(f"{where}: a text of the refusal {error}.") from None
    return _Text(found["since"] or "", stage, name, messages)


def _check_versions(name: str, texts: Sequence[_Text], where: str) -> None:
    """Raise AnnotationError unless each kernel has exactly one text."""
    if texts[0].since:
        raise AnnotationError(
            f"{where}: the refusal {name} has no text for kernels before v{texts[0].since}: the"
            " first text stands without a version."
        )
    for before, text in zip(texts, texts[1:]):
        if not text.since:
            raise AnnotationError(
                f"{where}: the refusal {name} has two texts for the first kernels; the later one"
                " says since when, as in: since v6.13: EINVAL."
            )
        if before.since and Version(text.since) <= Version(before.since):
            raise AnnotationError(
                f"{where}: the refusal {name} has two texts for kernels since v{text.since}: each"
                " holds until the next, so versions rise from line to line."
            )


def _ranges(texts: Sequence[_Text]) -> Iterator[Expectation]:
    ends = [*(f"<{text.since}" for text in texts[1:]), ""]
    for text, end in zip(texts, ends):
        begin = f">={text.since}" if text.since else ""
        kernels = ",".join(bound for bound in (begin, end) if bound)
        yield Expectation(kernels, False, text.stage, text.errno, text.messages)


def refusals(declared: Iterable[Declared]) -> Dict[str, Refusal]:
    """Return all declared refusals by name. Raises AnnotationError for one declared twice."""
    found: Dict[str, Refusal] = {}
    for refusal in (refusal for each in declared for refusal in each.refusals):
        _once("refusal", refusal, found.get(refusal.name))
        found[refusal.name] = refusal
    return found


def check_rules(declared: Sequence[Declared]) -> None:
    """Raise AnnotationError if a rule or topic is declared twice, or a rule's topic is unknown."""
    topics: Dict[str, Topic] = {}
    for topic in (topic for each in declared for topic in each.topics):
        _once("topic", topic, topics.get(topic.name))
        topics[topic.name] = topic
    rules: Dict[str, Rule] = {}
    for rule in (rule for each in declared for rule in each.rules):
        _once("rule", rule, rules.get(rule.name))
        rules[rule.name] = rule
        if rule.topic and rule.topic not in topics:
            raise AnnotationError(
                f"{rule.where}: there is no topic '{rule.topic}'{nearest(rule.topic, topics)}."
            )


def _once(kind: str, new: _Kind, before: Optional[_Kind]) -> None:
    if before is not None:
        raise AnnotationError(
            f"{new.where}: the {kind} '{new.name}' is declared at {before.where}; once is enough."
        )
