# SPDX-License-Identifier: GPL-2.0-only
"""Parses the annotations of a C file into scenarios. Pure.

The vocabulary is documented once, at the top of ``bpf_progs/spinlock.h``.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

from harness.scenarios import declarations
from harness.scenarios.declarations import (
    ERRNOS,
    STAGES,
    AnnotationError,
    Comment,
    blank_comments,
    line_of,
    pattern,
    unquoted,
)
from harness.scenarios.scenario import (
    LOADERS,
    Declared,
    Expectation,
    KnownBug,
    Need,
    Program,
    Refusal,
    Scenario,
    SourceFile,
    nearest,
)
from harness.scenarios.versions import is_range, meet, overlap

CAPABILITIES = ("cap_bpf", "cap_net_admin", "cap_perfmon", "cap_sys_admin")


def read(text: str, path: Path, shared: Mapping[str, Refusal] = MappingProxyType({})) -> SourceFile:
    """Read the programs and scenarios of one C file. `shared` has the refusals of its headers.

    Raises AnnotationError ("file:line: error, remedy") at the first bad annotation.
    """
    code, comments = blank_comments(text)
    units = _units(code, path)
    declared = declarations.of(comments, text, path)
    refusals = {**shared, **{refusal.name: refusal for refusal in declared.refusals}}
    programs: List[Program] = []
    scenarios: List[Scenario] = []
    for section in re.finditer(r'^SEC\("([^"]+)"\)', code, re.MULTILINE):
        line = line_of(code, section.start())
        words = list(_annotations(code, section.end(), path))
        end = _header(code, section.end(), path)
        head = re.compile(r"\s*(\w+)\s*\(").match(code, end)
        if head is None:
            raise AnnotationError(f'{path}:{line}: no function follows SEC("{section.group(1)}").')
        name, unit = head.group(1), units[line - 1]
        programs.append(Program(name, section.group(1), line, unit))
        if words:
            draft = _draft(path, programs[-1], words, refusals)
            comment = _comment_above(comments, code, section.start())
            scenarios.append(_scenario(path, programs[-1], draft, comment))
    if not programs:
        raise AnnotationError(f'{path}:1: no program in this file; one starts with SEC("tc"), say.')
    return SourceFile(path, tuple(programs), tuple(scenarios), declared)


def check_together(files: Sequence[SourceFile], headers: Sequence[Declared] = ()) -> None:
    """Raise AnnotationError if files contradict each other or their headers."""
    _check_names(files)
    declared = [*headers, *(file.declared for file in files)]
    declarations.check_rules(declared)
    used = {name for file in files for case in file.scenarios for name in case.refusals}
    for refusal in declarations.refusals(declared).values():
        if refusal.name not in used:
            raise AnnotationError(
                f"{refusal.where}: no case is refused by {refusal.name}: write"
                f" __refused({refusal.name}) at one, or leave it out."
            )
    scenarios = {s.name: s for file in files for s in file.scenarios}
    for scenario in scenarios.values():
        if scenario.twin is not None:
            _check_twin(scenario, scenario.twin, scenarios)


def _check_names(files: Sequence[SourceFile]) -> None:
    seen: Dict[str, SourceFile] = {}
    for file in files:
        for program in file.programs:
            if program.name in seen:
                other = seen[program.name].path.name
                raise AnnotationError(
                    f"{file.path}:{program.line}: the program name '{program.name}' is taken"
                    f" by {other}; a scenario is run by its name, so it must be unique."
                )
            seen[program.name] = file


def _check_twin(scenario: Scenario, name: str, scenarios: Dict[str, Scenario]) -> None:
    said = f"{scenario.file}:{scenario.line}: __twin({name})"
    twin = scenarios.get(name)
    if twin is None:
        raise AnnotationError(f"{said} names no scenario{nearest(name, scenarios)}.")
    if all(not e.accepted for e in twin.expectations):
        raise AnnotationError(f"{said} must be refused itself; a twin is the legal case.")
    missing = [loader for loader in scenario.loaders if loader not in twin.loaders]
    if missing:
        raise AnnotationError(f"{said} cannot be loaded by {missing[0]}, this case can.")


@dataclass
class _Clause:
    """A clause that is being read."""

    line: int
    kernels: str = ""
    accepted: Optional[bool] = None
    stage: Optional[str] = None
    errno: Optional[str] = None
    messages: List[str] = field(default_factory=list)
    absent: List[str] = field(default_factory=list)
    retval: Optional[int] = None
    refusal: Optional[Refusal] = None


@dataclass
class _Draft:
    """A scenario that is being read: its clauses, and the annotations common to all of them."""

    where: str
    common: _Clause
    refusals: Mapping[str, Refusal]  # those that __refused() may name
    clauses: List[_Clause] = field(default_factory=list)
    rule: str = ""
    description: str = ""
    twin: Optional[str] = None
    loader: Optional[str] = None
    user: str = "root"
    user_stage: str = "prog_load"
    known_bugs: List[KnownBug] = field(default_factory=list)
    needs: List[Need] = field(default_factory=list)

    @property
    def clause(self) -> _Clause:
        return self.clauses[-1] if self.clauses else self.common


def _text(argument: str) -> str:
    """Return the value of C string literals. Adjacent literals are joined."""
    literals = re.findall(r'"((?:[^"\\]|\\.)*)"', argument)
    if not literals or re.sub(r'"(?:[^"\\]|\\.)*"|\s', "", argument):
        raise ValueError('needs text in double quotes, as in ("text")')
    return unquoted("".join(literals))


def _word(argument: str, allowed: Sequence[str] = ()) -> str:
    if not re.fullmatch(r"\w+", argument):
        raise ValueError("needs one word")
    if allowed and argument not in allowed:
        raise ValueError(
            f"knows {', '.join(allowed)}, not '{argument}'{nearest(argument, list(allowed))}"
        )
    return argument


def _range(argument: str) -> str:
    text = _text(argument)
    if not is_range(text):
        raise ValueError(
            'needs a range such as ("<6.9") or (">=5.15,<6.2"), in which a kernel can be, not'
            f' "{text}"'
        )
    return text


def _outcome(accepted: bool) -> Callable[[_Draft, str], None]:
    def read_outcome(draft: _Draft, _: str) -> None:
        if draft.clause.accepted is not None:
            raise ValueError("contradicts an outcome given before")
        draft.clause.accepted = accepted

    return read_outcome


def _single(attribute: str, convert: Callable[[str], object]) -> Callable[[_Draft, str], None]:
    def read_single(draft: _Draft, argument: str) -> None:
        if getattr(draft.clause, attribute) is not None:
            raise ValueError("is given twice")
        setattr(draft.clause, attribute, convert(argument))

    return read_single


def _of_scenario(attribute: str, convert: Callable[[str], object]) -> Callable[[_Draft, str], None]:
    def read_attribute(draft: _Draft, argument: str) -> None:
        setattr(draft, attribute, convert(argument))

    return read_attribute


def _retval(argument: str) -> int:
    try:
        value = int(argument, 0)
    except ValueError:
        raise ValueError(f"needs a number, not '{argument}'") from None
    if not -(1 << 31) <= value < 1 << 31:
        raise ValueError(f"needs what an int can hold, which {argument} is not")
    return value


def _errno_name(argument: str) -> str:
    if argument not in ERRNOS:
        raise ValueError(
            f"needs an errno by name, as in (EINVAL), not '{argument}'{nearest(argument, ERRNOS)}"
        )
    return argument


def _refused(draft: _Draft, argument: str) -> None:
    name = _word(argument)
    if name not in draft.refusals:
        raise ValueError(
            f"needs a refusal that this file or a header declares, which '{name}' is not"
            f"{nearest(name, draft.refusals)}"
        )
    _outcome(False)(draft, "")
    draft.clause.refusal = draft.refusals[name]


def _known_bug(draft: _Draft, argument: str) -> None:
    commit, comma, kernels = argument.partition(",")
    if not comma:
        raise ValueError('needs a commit and a range, as in ("07738bc566c3", "<7.0")')
    draft.known_bugs.append(KnownBug(_text(commit), _range(kernels)))


def _user(draft: _Draft, argument: str) -> None:
    who, comma, stage = (part.strip() for part in argument.partition(","))
    words = [word.strip() for word in who.split("+")]
    for word in words:
        _word(word, CAPABILITIES if len(words) > 1 else ("nobody", *CAPABILITIES))
    draft.user = "+".join(words)
    if comma:
        draft.user_stage = _word(stage, STAGES[: STAGES.index("attach")])


def _need(draft: _Draft, argument: str) -> None:
    name, _, rest = argument.partition(",")
    version, *options = (part.strip() for part in rest.split(","))
    since = _text(version)
    if not re.fullmatch(r"\d+\.\d+(\.\d+)?", since):
        raise ValueError(f'needs a name and a version, as in (bpf_loop, "5.17"), not "{since}"')
    for option in options:
        if not re.fullmatch(r"CONFIG_\w+", option):
            raise ValueError(f"needs an option by name, as in CONFIG_BPF_LSM, not '{option}'")
    draft.needs.append(Need(_word(name.strip()), since, tuple(options)))


# One row per annotation: whether it takes an argument, and its effect on the draft.
_VOCABULARY: Dict[str, Tuple[bool, Callable[[_Draft, str], None]]] = {
    "__rule": (True, _of_scenario("rule", _text)),
    "__description": (True, _of_scenario("description", _text)),
    "__twin": (True, _of_scenario("twin", _word)),
    "__loader": (True, _of_scenario("loader", lambda a: _word(a, LOADERS))),
    "__user": (True, _user),
    "__known_bug": (True, _known_bug),
    "__needs": (True, _need),
    "__success": (False, _outcome(True)),
    "__failure": (False, _outcome(False)),
    "__refused": (True, _refused),
    "__stage": (True, _single("stage", lambda a: _word(a, STAGES))),
    "__errno": (True, _single("errno", _errno_name)),
    "__msg": (True, lambda draft, a: draft.clause.messages.append(pattern(_text(a)))),
    "__not_msg": (True, lambda draft, a: draft.clause.absent.append(pattern(_text(a)))),
    "__retval": (True, _single("retval", _retval)),
    "__kernel": (True, lambda draft, a: None),  # starts a clause; see _annotations
}

# Words of C that may occur among the annotations.
_PLAIN_C = {
    "__noinline",
    "__always_inline",
    "__weak",
    "__hidden",
    "__u32",
    "__u64",
    "__attribute__",
}

_TOKEN = re.compile(
    r"\s*(?:(?P<word>__\w+)|(?P<type>(?:static|int|long|void|struct\s+\w+)\b)|(?P<star>\*))"
)


def _comment_above(comments: Sequence[Comment], code: str, start: int) -> str:
    """Return the text of the comment right above a position, or "".

    A comment with a declaration, such as a rule, does not count.
    """
    for comment in comments:
        between = code[comment.end : start]
        if (
            comment.end <= start
            and not between.strip()
            and between.count("\n") == 1
            and comment.text.startswith("/*")
        ):
            return "" if comment.declares else " ".join(comment.lines)
    return ""


def _units(code: str, path: Path) -> List[str]:
    """Return, for each line, the name of its UNIT block, or ""."""
    stack: List[str] = []
    result: List[str] = []
    for number, line in enumerate(code.splitlines(), 1):
        if line.lstrip().startswith("#"):
            _enter_or_leave(line, stack, f"{path}:{number}")
        result.append(next((name for name in stack if name), ""))
    return result


def _enter_or_leave(line: str, stack: List[str], where: str) -> None:
    """Note on a stack of blocks, UNIT ones by name, that a directive opens or closes one."""
    unit = re.match(r"\s*#\s*if\s+UNIT\((\w+)\)", line)
    if unit:
        if any(stack):
            raise AnnotationError(f"{where}: a UNIT block inside a UNIT block.")
        stack.append(unit.group(1))
    elif re.match(r"\s*#\s*if", line):
        stack.append("")
    elif re.match(r"\s*#\s*endif", line) and stack:
        stack.pop()


def _argument(code: str, start: int, where: str) -> Tuple[str, int]:
    """Return the text in the parentheses that open at a position, and the position of their end."""
    depth, position, quoted = 0, start, False
    while position < len(code):
        char = code[position]
        if quoted:
            if char == "\\":
                position += 1
            elif char == '"':
                quoted = False
        elif char == '"':
            quoted = True
        elif char == "(":
            depth += 1
        elif char == ")":
            depth -= 1
            if depth == 0:
                return code[start + 1 : position].strip(), position + 1
        position += 1
    raise AnnotationError(f"{where}: a parenthesis that is never closed.")


def _tokens(code: str, start: int, path: Path) -> Iterator[Tuple[str, int, int]]:
    """Yield the words between SEC() and the function's name as (word, start, end)."""
    position = start
    while True:
        token = _TOKEN.match(code, position)
        if token is None:
            return
        position = token.end()
        word = token.group("word")
        if word and position < len(code) and code[position] == "(":
            _, position = _argument(code, position, f"{path}:{line_of(code, position)}")
        yield word or "", token.start("word") if word else token.start(), position


def _header(code: str, start: int, path: Path) -> int:
    """Return the position of the function's name."""
    position = start
    for _, _, position in _tokens(code, start, path):
        pass
    return position


def _annotations(code: str, start: int, path: Path) -> Iterator[Tuple[str, Optional[str], int]]:
    """Yield the annotations after a SEC() as (word, argument or None, line)."""
    for word, begin, end in _tokens(code, start, path):
        if not word or word in _PLAIN_C:
            continue
        where = f"{path}:{line_of(code, begin)}"
        if word not in _VOCABULARY:
            raise AnnotationError(
                f"{where}: unknown annotation {word}{nearest(word, list(_VOCABULARY))}."
            )
        rest = code[begin + len(word) : end]
        argument = rest.strip()[1:-1].strip() if rest.strip() else None
        if (argument is not None) != _VOCABULARY[word][0]:
            need = "needs an argument" if _VOCABULARY[word][0] else "takes no argument"
            raise AnnotationError(f"{where}: {word} {need}.")
        yield word, argument, line_of(code, begin)


def _draft(
    path: Path,
    program: Program,
    words: Sequence[Tuple[str, Optional[str], int]],
    refusals: Mapping[str, Refusal],
) -> _Draft:
    draft = _Draft(f"{path}:{program.line}", _Clause(program.line), refusals)
    for word, argument, line in words:
        try:
            if word == "__kernel":
                draft.clauses.append(_Clause(line, kernels=_range(argument or "")))
            else:
                _VOCABULARY[word][1](draft, argument or "")
        except ValueError as error:
            raise AnnotationError(f"{path}:{line}: {word} {error}.") from None
    if not draft.rule:
        raise AnnotationError(f'{draft.where}: {program.name} names no rule; write __rule("...").')
    if draft.user_stage != "prog_load" and draft.loader != "libbpf":
        raise AnnotationError(
            f"{draft.where}: only a case of libbpf can leave maps and BTF to a user; bcc makes them"
            " as root: write __loader(libbpf)."
        )
    return draft


def _scenario(path: Path, program: Program, draft: _Draft, comment: str) -> Scenario:
    clauses = [_merge(draft.common, clause) for clause in draft.clauses] or [draft.common]
    expectations = tuple(
        expectation for clause in clauses for expectation in _expectations(path, clause)
    )
    _check_ranges(path, clauses)
    if draft.twin is None and any(not e.accepted for e in expectations):
        raise AnnotationError(
            f"{draft.where}: {program.name} can be refused but has no __twin(...), the legal program"
            " that shows the refusal has no other cause."
        )
    return Scenario(
        name=program.name,
        file=path,
        line=program.line,
        section=program.section,
        unit=program.unit,
        expectations=expectations,
        rule=draft.rule,
        description=draft.description,
        comment=comment,
        twin=draft.twin,
        loaders=(draft.loader,) if draft.loader else LOADERS,
        user=draft.user,
        user_stage=draft.user_stage,
        known_bugs=tuple(draft.known_bugs),
        needs=tuple(draft.needs),
        refusals=tuple(dict.fromkeys(c.refusal.name for c in clauses if c.refusal)),
    )


def _merge(common: _Clause, clause: _Clause) -> _Clause:
    """Complete a clause by the common annotations that it does not give itself."""
    return dataclasses.replace(
        clause,
        accepted=common.accepted if clause.accepted is None else clause.accepted,
        stage=clause.stage or common.stage,
        errno=clause.errno or common.errno,
        messages=common.messages + clause.messages,
        absent=common.absent + clause.absent,
        retval=common.retval if clause.retval is None else clause.retval,
        refusal=clause.refusal or common.refusal,
    )


def _expectations(path: Path, clause: _Clause) -> List[Expectation]:
    """Return the expectations of a clause: one, or one per text of the refusal that it names."""
    if clause.refusal is None:
        return [_expectation(path, clause)]
    said = f"{path}:{clause.line}: __refused({clause.refusal.name})"
    if clause.accepted:
        raise AnnotationError(f"{said} contradicts __success.")
    if clause.stage or clause.errno or clause.messages or clause.retval is not None:
        raise AnnotationError(
            f"{said} says all of the refusal: leave out __stage, __errno, __msg and __retval."
        )
    absent = tuple(clause.absent)
    narrowed = [
        dataclasses.replace(each, kernels=meet(each.kernels, clause.kernels), absent=absent)
        for each in clause.refusal.clauses
    ]
    return [each for each in narrowed if is_range(each.kernels)]


def _expectation(path: Path, clause: _Clause) -> Expectation:
    where = f"{path}:{clause.line}"
    if clause.accepted is None:
        raise AnnotationError(f"{where}: says neither __success nor __failure.")
    if clause.accepted and (clause.messages or clause.errno or clause.stage):
        raise AnnotationError(
            f"{where}: __success contradicts __msg, __errno or __stage, which speak of a refusal."
        )
    if not clause.accepted and clause.retval is not None:
        raise AnnotationError(
            f"{where}: __failure contradicts __retval: what is refused never runs."
        )
    if not clause.accepted and not clause.messages and not clause.errno:
        raise AnnotationError(
            f"{where}: __failure without __msg or __errno would be satisfied by any refusal."
        )
    return Expectation(
        kernels=clause.kernels,
        accepted=clause.accepted,
        stage=clause.stage or "prog_load",
        errno=clause.errno,
        messages=tuple(clause.messages),
        absent=tuple(clause.absent),
        retval=clause.retval,
    )


def _check_ranges(path: Path, clauses: Sequence[_Clause]) -> None:
    """Raise AnnotationError if two clauses apply to one kernel."""
    twice = overlap(tuple(clause.kernels for clause in clauses)) if len(clauses) > 1 else None
    if twice is not None:
        number, release = twice
        raise AnnotationError(
            f"{path}:{clauses[number].line}: two clauses speak about kernel {release};"
            " exactly one may."
        )
