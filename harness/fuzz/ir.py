# SPDX-License-Identifier: GPL-2.0-only
"""The language of the random programs, and its text form. Pure.

A program has a type, variables v0 … v5 that hold pointers into map values (or NULL, as at the
beginning), and functions. All but global functions share the variables of the main function.
The text form has a line per statement, `name field=value …`, and braces around bodies.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace
from typing import (
    Any,
    Callable,
    ClassVar,
    Dict,
    Iterator,
    List,
    Tuple,
    Type,
    get_type_hints,
)

from harness.errors import UsageError

VARIABLES = 6
BITS = 16  # of input: branches take one each
MOST_LOOPS = 8  # of a program: each has a counter in main's frame

# Kinds of functions. The values of `each` and `loop` functions are handed to bpf_for_each_map_elem()
# and bpf_loop(); main is the program itself.
MAIN, STATIC, GLOBAL, EACH, LOOP = "main", "static", "global", "each", "loop"
KINDS = (MAIN, STATIC, GLOBAL, EACH, LOOP)


@dataclass(frozen=True)
class Statement:
    """One statement; `word` is its name in the text form."""

    word: ClassVar[str] = ""

    def __init_subclass__(cls, word: str = "") -> None:
        cls.word = word
        WORDS[word] = cls


WORDS: Dict[str, Type[Statement]] = {}
Body = Tuple[Statement, ...]


@dataclass(frozen=True)
class Lookup(Statement, word="lookup"):
    """The variable is an element of a map, or NULL if that is not there."""

    var: int
    map: str
    key: int


@dataclass(frozen=True)
class Inner(Statement, word="inner"):
    """The variable is an element of the inner map that an outer one has at `element`, or NULL."""

    var: int
    map: str
    element: int
    key: int


@dataclass(frozen=True)
class Direct(Statement, word="direct"):
    """The variable is the only element of an array, by its address."""

    var: int
    map: str


@dataclass(frozen=True)
class Value(Statement, word="value"):
    """The variable is the element that an `each` function was called for; elsewhere NULL."""

    var: int


@dataclass(frozen=True)
class Copy(Statement, word="copy"):
    """A variable becomes what another is."""

    var: int
    of: int


@dataclass(frozen=True)
class Clear(Statement, word="clear"):
    """A variable becomes NULL."""

    var: int


@dataclass(frozen=True)
class Move(Statement, word="move"):
    """A constant is added to a variable."""

    var: int
    by: int


@dataclass(frozen=True)
class Shift(Statement, word="shift"):
    """A number that is not known is added to a variable: 0 … mask, a power of two less one."""

    var: int
    mask: int


@dataclass(frozen=True)
class Lock(Statement, word="lock"):
    """bpf_spin_lock(variable + at)."""

    var: int
    at: int


@dataclass(frozen=True)
class Unlock(Statement, word="unlock"):
    """bpf_spin_unlock(variable + at)."""

    var: int
    at: int


@dataclass(frozen=True)
class Load(Statement, word="load"):
    """Read `size` bytes at variable + at."""

    var: int
    at: int
    size: int


@dataclass(frozen=True)
class Store(Statement, word="store"):
    """Write `size` bytes at variable + at."""

    var: int
    at: int
    size: int


@dataclass(frozen=True)
class Atomic(Statement, word="atomic"):
    """Add to 4 or 8 bytes at variable + at, atomically."""

    var: int
    at: int
    size: int


@dataclass(frozen=True)
class Pass(Statement, word="pass"):
    """Hand the 8 bytes at variable + at to a helper that reads them: bpf_map_update_elem()."""

    var: int
    at: int


@dataclass(frozen=True)
class Helper(Statement, word="helper"):
    """Call a helper without arguments, by its number."""

    number: int


@dataclass(frozen=True)
class LoadAbsolute(Statement, word="load_absolute"):
    """BPF_LD_ABS, which reads the packet."""


@dataclass(frozen=True)
class If(Statement, word="if"):
    """Branch on a bit of the input. Each look at the input is a new one to the verifier."""

    bit: int
    then: Body
    orelse: Body


@dataclass(frozen=True)
class IfSet(Statement, word="if_set"):
    """Branch on whether a variable is not NULL."""

    var: int
    then: Body
    orelse: Body


@dataclass(frozen=True)
class Repeat(Statement, word="repeat"):
    """A bounded loop."""

    times: int
    body: Body


@dataclass(frozen=True)
class Call(Statement, word="call"):
    """Call a static or global function, by its place in the program."""

    function: int


@dataclass(frozen=True)
class ForEach(Statement, word="for_each"):
    """bpf_for_each_map_elem() with an `each` function."""

    map: str
    function: int


@dataclass(frozen=True)
class BpfLoop(Statement, word="bpf_loop"):
    """bpf_loop() with a `loop` function."""

    function: int


@dataclass(frozen=True)
class Exit(Statement, word="exit"):
    """Return 0 from the function."""


Calling = (Call, ForEach, BpfLoop)


@dataclass(frozen=True)
class Function:
    """A function: one of KINDS, and what it does."""

    kind: str
    body: Body


@dataclass(frozen=True)
class Program:
    """A program: its type by name, its functions (the first is main), and how it is loaded."""

    type: str
    functions: Tuple[Function, ...]
    often: bool = False  # BPF_F_TEST_STATE_FREQ: the verifier looks for equal states everywhere

    def __str__(self) -> str:
        return show(self)


# -- parts of programs -------------------------------------------------------------------------------


_HINTS: Dict[Any, Dict[str, Any]] = {}  # what _hints() and body_names() have found
_BODIES: Dict[Any, Tuple[str, ...]] = {}


def body_names(kind: Type[Statement]) -> Tuple[str, ...]:
    """Return the names of the fields of a kind of statement that are bodies."""
    if kind not in _BODIES:
        _BODIES[kind] = tuple(name for name, hint in _hints(kind).items() if hint is Body)
    return _BODIES[kind]


def _hints(kind: Type[Statement]) -> Dict[str, Any]:
    if kind not in _HINTS:
        hints = get_type_hints(kind)
        _HINTS[kind] = {field.name: hints[field.name] for field in fields(kind)}
    return _HINTS[kind]


def statements(body: Body) -> Iterator[Statement]:
    """Yield all statements of a body, also those inside others."""
    for statement in body:
        yield statement
        for name in body_names(type(statement)):
            yield from statements(getattr(statement, name))


def everything(program: Program) -> Iterator[Statement]:
    """Yield all statements of a program's functions."""
    for function in program.functions:
        yield from statements(function.body)


def size(program: Program) -> int:
    """Return the number of statements."""
    return sum(1 for _ in everything(program))


def rewritten(body: Body, change: Callable[[Statement], Body]) -> Body:
    """Return a body with each statement replaced by what `change` returns for it, innermost first."""
    out: List[Statement] = []
    for statement in body:
        inner = {
            name: rewritten(getattr(statement, name), change)
            for name in body_names(type(statement))
        }
        out.extend(change(replace(statement, **inner) if inner else statement))
    return tuple(out)


def is_left(body: Body) -> bool:
    """Tell whether every way through a body returns from the function."""
    return any(_leaves(statement) for statement in body)


def _leaves(statement: Statement) -> bool:
    if isinstance(statement, (If, IfSet)):
        return is_left(statement.then) and is_left(statement.orelse)
    return isinstance(statement, Exit) or (
        isinstance(statement, Repeat) and is_left(statement.body)
    )


def living(body: Body) -> Body:
    """Return a body without what comes after a return, which is no code of the program."""
    out: List[Statement] = []
    for statement in body:
        inner = {name: living(getattr(statement, name)) for name in body_names(type(statement))}
        out.append(replace(statement, **inner) if inner else statement)
        if _leaves(statement):
            break
    return tuple(out)


def called(program: Program) -> List[int]:
    """Return the functions that are called from main, directly or not, and main, in order.

    A call after a return does not count.
    """
    seen = {0}
    todo = [0]
    while todo:
        for statement in statements(living(program.functions[todo.pop()].body)):
            if isinstance(statement, Calling) and statement.function not in seen:
                seen.add(statement.function)
                todo.append(statement.function)
    return sorted(seen)


def trimmed(program: Program) -> Program:
    """Return the program without functions that nothing calls, and what comes after a return."""
    kept = called(program)
    place = {old: new for new, old in enumerate(kept)}

    def renumber(statement: Statement) -> Body:
        if isinstance(statement, Calling):
            return (replace(statement, function=place[statement.function]),)
        return (statement,)

    functions = tuple(
        replace(
            program.functions[old], body=rewritten(living(program.functions[old].body), renumber)
        )
        for old in kept
    )
    return replace(program, functions=functions)


# -- text --------------------------------------------------------------------------------------------


def show(program: Program) -> str:
    """Return the text form of a program."""
    lines = [f"program type={program.type} often={int(program.often)}"]
    for function in program.functions:
        lines.append(f"function kind={function.kind} {{")
        lines.extend(_lines(function.body, 1))
        lines.append("}")
    return "\n".join(lines) + "\n"


def _lines(body: Body, depth: int) -> Iterator[str]:
    indent = "  " * depth
    for statement in body:
        bodies = body_names(type(statement))
        words = [statement.word]
        for name in _hints(type(statement)):
            if name not in bodies:
                words.append(f"{name}={getattr(statement, name)}")
        yield indent + " ".join(words) + (" {" if bodies else "")
        for place, name in enumerate(bodies):
            inner = getattr(statement, name)
            if place and inner:
                yield indent + "} else {"
            yield from _lines(inner, depth + 1)
        if bodies:
            yield indent + "}"


def parse(text: str) -> Program:
    """Return the program of a text. Raises UsageError that names the line."""
    return _Parser(text).program()


class _Parser:
    def __init__(self, text: str) -> None:
        numbered = enumerate((line.partition("#")[0].split() for line in text.splitlines()), 1)
        self._lines = [(number, words) for number, words in numbered if words]
        self._at = 0

    def program(self) -> Program:
        words = self._next("program")
        if words[0] != "program":
            raise self._wrong("the first line must be `program type=…`")
        values = self._values(words[1:], {"type": str, "often": int}, {"often": 0})
        functions = []
        while self._at < len(self._lines):
            words = self._next("function")
            if words[0] != "function" or words[-1] != "{":
                raise self._wrong("`function kind=… {` was expected")
            kind = self._values(words[1:-1], {"kind": str}, {})["kind"]
            if kind not in KINDS:
                raise self._wrong(f"a function's kind is one of {', '.join(KINDS)}")
            body, last = self._body()
            if last != ["}"]:
                raise self._wrong("`}` was expected")
            functions.append(Function(kind, body))
        if [f.kind for f in functions].count(MAIN) != 1 or functions[0].kind != MAIN:
            raise UsageError("The first function of a program, and no other, is of kind main.")
        program = Program(values["type"], tuple(functions), bool(values["often"]))
        _check(program)
        return program

    def _body(self) -> Tuple[Body, List[str]]:
        """Return a body, and the line that ends it."""
        out: List[Statement] = []
        while True:
            words = self._next("}")
            if words[0] == "}":
                return tuple(out), words
            out.append(self._statement(words))

    def _statement(self, words: List[str]) -> Statement:
        kind = WORDS.get(words[0])
        if kind is None:
            raise self._wrong(f"there is no statement {words[0]!r}")
        hints, bodies = _hints(kind), body_names(kind)
        if bodies and words[-1] != "{":
            raise self._wrong("`{` was expected at the end")
        plain = {name: hint for name, hint in hints.items() if name not in bodies}
        values = self._values(words[1 : -1 if bodies else None], plain, {})
        for place, name in enumerate(bodies):
            values[name], last = self._body()
            if last == ["}"]:
                values.update(dict.fromkeys(bodies[place + 1 :], ()))
                break
            if last != ["}", "else", "{"] or place + 1 == len(bodies):
                raise self._wrong("`}` was expected")
        return kind(**values)

    def _values(
        self, words: List[str], wanted: Dict[str, Any], defaults: Dict[str, Any]
    ) -> Dict[str, Any]:
        values = dict(defaults)
        for word in words:
            match = re.fullmatch(r"(\w+)=([-\w]+)", word)
            if not match or match[1] not in wanted:
                raise self._wrong(f"{word!r} is none of: {', '.join(wanted) or 'nothing'}")
            try:
                values[match[1]] = wanted[match[1]](match[2])
            except ValueError:
                raise self._wrong(f"{word!r}: a number was expected") from None
        missing = [name for name in wanted if name not in values]
        if missing:
            raise self._wrong(f"{missing[0]}= is missing")
        return values

    def _next(self, wanted: str) -> List[str]:
        if self._at == len(self._lines):
            raise UsageError(f"The program ends where {wanted!r} was expected.")
        self._at += 1
        return self._lines[self._at - 1][1]

    def _wrong(self, what: str) -> UsageError:
        return UsageError(f"Line {self._lines[self._at - 1][0]}: {what}.")


def is_valid(program: Program) -> bool:
    """Tell whether a program is one of this language: damage may make recursion of a call."""
    try:
        _check(program)
    except UsageError:
        return False
    return True


_CALLED = {Call: (STATIC, GLOBAL), ForEach: (EACH,), BpfLoop: (LOOP,)}


def _check(program: Program) -> None:
    """Raise UsageError for what no program of this language has."""
    if sum(isinstance(each, Repeat) for each in everything(program)) > MOST_LOOPS:
        raise UsageError(f"A program has at most {MOST_LOOPS} loops.")
    for number, function in enumerate(program.functions):
        for statement in statements(function.body):
            for name in ("var", "of"):
                if not 0 <= getattr(statement, name, 0) < VARIABLES:
                    raise UsageError(f"{statement.word}: variables are 0 to {VARIABLES - 1}.")
            if isinstance(statement, Calling):
                callee = statement.function
                if not number < callee < len(program.functions):
                    raise UsageError(f"{statement.word}: a function calls only later ones.")
                kinds = _CALLED[type(statement)]
                if program.functions[callee].kind not in kinds:
                    raise UsageError(f"{statement.word}: it needs a function of kind {kinds[0]}.")
