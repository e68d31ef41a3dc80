# SPDX-License-Identifier: GPL-2.0-only
"""Makes random programs: legal ones, and legal ones with damage. Pure; a seed decides all.

Generation keeps track of what each variable holds, so that most programs are legal in what is not
the lock's matter. Damage then breaks a rule, or seems to: the oracle knows.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from typing import Callable, Dict, Iterator, List, Optional, Set, Tuple

from harness.fuzz import ir, rules, seeds, world

_FROM_SEEDS = 0.2
_DAMAGED = 0.75
_OFTEN = 0.7
_CONFUSED = 0.08
_OTHER_TYPES, _ONLY_INNER = 0.15, 0.04
_HELPERS = (5, 7, 8)  # ktime_get_ns, get_prandom_u32, get_smp_processor_id
_DEEPEST = 4
_MOST_STATEMENTS = 60
_MOST_FUNCTIONS = 5

Known = Optional[Tuple[str, int]]  # of a variable: its map and an identity, if it is not NULL


@dataclass
class _Scope:
    """What is known at a place of the program that is being made."""

    kind: str  # of the function
    known: List[Known] = field(default_factory=lambda: [None] * ir.VARIABLES)
    fixed: Set[int] = field(default_factory=set)  # variables that are not assigned here
    held: int = -1  # the variable by which the lock was taken
    depth: int = 0
    input: bool = True  # there is a context to take bits from

    def inside(self) -> "_Scope":
        """Return a scope for a part of it."""
        return replace(self, known=list(self.known), fixed=set(self.fixed), depth=self.depth + 1)


class Generator:
    """Makes programs for one kernel; what it makes depends on the seed and the kernel's clauses."""

    def __init__(self, seed: int, kernel: rules.Kernel) -> None:
        self._random = random.Random(seed)
        self._kernel = kernel
        self._functions: List[ir.Function] = []
        self._weights: Dict[str, float] = {}
        self._bit = self._next_id = 0
        self._only_inner = False  # the program's maps with locks are inner ones

    def program(self) -> ir.Program:
        """Return the next program."""
        while True:
            made = self._program()
            if ir.is_valid(made):
                made = ir.trimmed(made)
                if ir.size(made) <= _MOST_STATEMENTS:
                    return made

    def _program(self) -> ir.Program:
        chance = self._random
        if chance.random() < _FROM_SEEDS:
            made = chance.choice(self._seeds())
            made = replace(made, often=chance.random() < _OFTEN)
            return damage(made, chance, 1 + chance.randrange(2))
        made = self._legal()
        if not self._only_inner and chance.random() < _DAMAGED:
            made = damage(made, chance, 1 + chance.randrange(3))
        return made

    def _seeds(self) -> List[ir.Program]:
        return [each for each in seeds.PROGRAMS if self._can(each)]

    def _can(self, program: ir.Program) -> bool:
        """Tell whether the kernel has what a program needs."""
        needs = {type(statement) for statement in ir.everything(program)}
        lacks = {
            ir.Inner: not self._kernel.inner_maps,
            ir.ForEach: not self._kernel.for_each,
            ir.BpfLoop: not self._kernel.bpf_loop,
        }
        return not any(lacks.get(need) for need in needs)

    def _legal(self) -> ir.Program:
        chance = self._random
        self._functions, self._bit, self._next_id = [], 0, 0
        names = [name for name in _MAKERS if self._offered(name)]
        self._weights = {name: chance.choice((0.0, 0.5, 1, 1, 3)) for name in names}
        self._weights["section"] = chance.choice((1, 3, 5))
        self._weights["lookup"] = chance.choice((1, 3))
        kind = "sched_cls"
        self._only_inner = self._kernel.inner_maps and chance.random() < _ONLY_INNER
        if self._only_inner:
            kind = chance.choice(rules.REFUSED_TYPES)
            self._weights.update(inner=3, direct=0, for_each=0)
        elif chance.random() < _OTHER_TYPES:
            kind = chance.choice([name for name in world.TYPES if name not in rules.REFUSED_TYPES])
        self._functions.append(ir.Function(ir.MAIN, ()))
        scope = _Scope(ir.MAIN)
        begin = self._inner(scope) if self._only_inner else self._lookup(scope)
        body = begin + self._body(scope, 3 + chance.randrange(6))
        self._functions[0] = ir.Function(ir.MAIN, body)
        if not world.TYPES[kind].packets:
            self._functions = [
                replace(f, body=ir.rewritten(f.body, _without_packets)) for f in self._functions
            ]
        return ir.Program(kind, tuple(self._functions), chance.random() < _OFTEN)

    def _offered(self, name: str) -> bool:
        has = {
            "inner": self._kernel.inner_maps,
            "for_each": self._kernel.for_each,
            "bpf_loop": self._kernel.bpf_loop,
        }
        return has.get(name, True)

    # -- bodies -----------------------------------------------------------------------------------

    def _body(self, scope: _Scope, length: int) -> ir.Body:
        out: ir.Body = ()
        for _ in range(length):
            out += self._some(scope)
        return out

    def _some(self, scope: _Scope) -> ir.Body:
        """Return one or a few statements that are legal here."""
        names = [name for name in self._weights if self._fits(name, scope)]
        weights = [self._weights[name] for name in names]
        if not any(weights):
            return ()
        return _MAKERS[self._random.choices(names, weights)[0]](self, scope)

    def _fits(self, name: str, scope: _Scope) -> bool:
        if scope.held >= 0 and name not in _UNDER_LOCK:
            return False
        if name in ("branch", "repeat", "shift") and not scope.input:
            return False
        if name == "static" and scope.held >= 0 and not self._kernel.static_calls:
            return False
        if name in _NESTING and scope.depth >= _DEEPEST:
            return False
        if name in _CALLING and len(self._functions) >= _MOST_FUNCTIONS:
            return False
        if name == "packet":
            return scope.kind == ir.MAIN
        if name == "global" and scope.kind != ir.MAIN:
            return False  # each needs a frame of its own for variables, of 512 bytes in all
        if name in _OF_VALUES:
            return any(scope.known)
        return True

    def _var(self, scope: _Scope) -> Optional[int]:
        """Return a variable to assign, never the one that the lock was taken by."""
        free = [v for v in range(ir.VARIABLES) if v not in scope.fixed and v != scope.held]
        return self._random.choice(free) if free else None

    def _value(self, scope: _Scope, locked: bool = False) -> Optional[int]:
        """Return a variable that is not NULL; `locked`: whose map has locks."""
        found = [
            var
            for var, known in enumerate(scope.known)
            if known and (not locked or world.MAPS[known[0]].layout.lock >= 0)
        ]
        return self._random.choice(found) if found else None

    def _new(self) -> int:
        self._next_id += 1
        return self._next_id

    # -- statements -------------------------------------------------------------------------------

    def _lookup(self, scope: _Scope) -> ir.Body:
        names = [name for name, kind in world.MAPS.items() if not kind.inner]
        if self._only_inner:
            names = ["plain"]
        name = self._random.choice(names)
        key = self._random.randrange(world.MAPS[name].entries if name != "plain" else 1)
        return self._checked(scope, name, lambda var: ir.Lookup(var, name, key))

    def _inner(self, scope: _Scope) -> ir.Body:
        element = self._random.randrange(2)
        key = self._random.randrange(2)
        return self._checked(scope, "outer", lambda var: ir.Inner(var, "outer", element, key))

    def _checked(self, scope: _Scope, name: str, look: Callable[[int], ir.Statement]) -> ir.Body:
        """Return a lookup and a check for NULL."""
        var = self._var(scope)
        if var is None:
            return ()
        scope.known[var] = (name, self._new())
        if self._random.random() < 0.6 and scope.kind in (ir.MAIN, ir.GLOBAL):
            return (look(var), ir.IfSet(var, (), (ir.Exit(),)))
        inner = scope.inside()
        body = self._body(inner, 1 + self._random.randrange(3)) if scope.depth < _DEEPEST else ()
        _merge(scope, [inner], body)
        scope.known[var] = None
        return (look(var), ir.IfSet(var, body, ()))

    def _check(self, scope: _Scope) -> ir.Body:
        """A check for NULL of what is none."""
        var = self._value(scope)
        assert var is not None
        inner = scope.inside()
        body = self._body(inner, self._random.randrange(3))
        _merge(scope, [inner], body)
        return (ir.IfSet(var, body, ()),)

    def _direct(self, scope: _Scope) -> ir.Body:
        var = self._var(scope)
        if var is None:
            return ()
        number = 0 if self._kernel.same_address else self._new()
        scope.known[var] = ("single", -1 - number)
        return (ir.Direct(var, "single"),)

    def _copy(self, scope: _Scope) -> ir.Body:
        var, of = self._var(scope), self._value(scope)
        if var is None or of is None or var == of:
            return ()
        scope.known[var] = scope.known[of]
        return (ir.Copy(var, of),)

    def _access(self, scope: _Scope) -> ir.Body:
        var = self._value(scope)
        assert var is not None
        known = scope.known[var]
        assert known is not None
        layout = world.MAPS[known[0]].layout
        size = self._random.choice((1, 2, 4, 8))
        free = [
            at
            for at in range(0, layout.size - size + 1, size)
            if layout.lock < 0 or at + size <= layout.lock or at >= layout.lock + 4
        ]
        kind = self._random.choice((ir.Load, ir.Store, ir.Atomic))
        if kind is ir.Atomic and size < 4:
            kind = ir.Load
        return (kind(var, self._random.choice(free), size),)

    def _hand(self, scope: _Scope) -> ir.Body:
        var = self._value(scope)
        assert var is not None
        known = scope.known[var]
        assert known is not None
        places = {world.BEHIND: (0, 16), world.FRONT: (8,), world.PLAIN: (0,)}
        return (ir.Pass(var, self._random.choice(places[world.MAPS[known[0]].layout])),)

    def _helper(self, scope: _Scope) -> ir.Body:
        return (ir.Helper(self._random.choice(_HELPERS)),)

    def _packet(self, scope: _Scope) -> ir.Body:
        return (ir.LoadAbsolute(),)

    def _shift(self, scope: _Scope) -> ir.Body:
        """A place in the value that is not known, before the lock or behind it."""
        var, of = self._var(scope), self._value(scope)
        if var is None or of is None or var == of:
            return ()
        scope.known[var] = None
        known = scope.known[of]
        assert known is not None
        at = {world.BEHIND: 16, world.FRONT: 8, world.PLAIN: 0}[world.MAPS[known[0]].layout]
        mask = self._random.choice((1, 3, 7))
        access = self._random.choice((ir.Load, ir.Store))(var, at, 1)
        return (ir.Copy(var, of), ir.Shift(var, mask), access)

    def _section(self, scope: _Scope) -> ir.Body:
        """A lock, what is done under it, and the unlock, perhaps by another way."""
        var = self._value(scope, locked=True)
        if var is None:
            return ()
        known = scope.known[var]
        assert known is not None
        at = world.MAPS[known[0]].layout.lock
        scope.held = var
        body = self._body(scope, self._random.randrange(4))
        if self._random.random() < _CONFUSED:
            return self._confused(scope, var, at, body)
        same = [v for v in range(ir.VARIABLES) if scope.known[v] == known]
        by = self._random.choice(same)
        scope.held = -1
        lock, unlock = ir.Lock(var, at), ir.Unlock(by, at)
        way = self._random.random()
        if way < 0.15 and scope.input:
            leave = (ir.Exit(),) if scope.kind == ir.MAIN else ()
            then: ir.Body = (unlock, *leave)
            orelse: ir.Body = () if leave else (unlock,)
            after = (unlock,) if leave else ()
            return (lock, *body, ir.If(self._a_bit(), then, orelse), *after)
        if way < 0.3 and self._kernel.static_calls and len(self._functions) < _MOST_FUNCTIONS:
            number = self._function(ir.STATIC, (unlock,))
            return (lock, *body, ir.Call(number))
        return (lock, *body, unlock)

    def _confused(self, scope: _Scope, var: int, at: int, body: ir.Body) -> ir.Body:
        """A section that is left by a variable which another element may have got on one way."""
        known, by = scope.known[var], self._var(scope)
        assert known is not None
        rivals = [
            each
            for each, other in enumerate(scope.known)
            if other and other != known and other[0] == known[0]
        ]
        scope.held = -1
        lock, unlock = ir.Lock(var, at), ir.Unlock(var, at)
        if not rivals or by is None or not scope.input:
            return (lock, *body, unlock)
        scope.known[by] = None
        wrong = ir.Copy(by, self._random.choice(rivals))
        ways = ((wrong,), ()) if self._random.random() < 0.3 else ((), (wrong,))
        branch = ir.If(self._a_bit(), *ways)
        return (ir.Copy(by, var), branch, lock, *body, ir.Unlock(by, at))

    def _a_bit(self) -> int:
        self._bit = (self._bit + 1) % ir.BITS
        return self._bit

    def _branch(self, scope: _Scope) -> ir.Body:
        parts = [scope.inside(), scope.inside()]
        then = self._body(parts[0], self._random.randrange(3))
        orelse = self._body(parts[1], self._random.randrange(3))
        _merge(scope, parts, then + orelse)
        return (ir.If(self._a_bit(), then, orelse),)

    def _repeat(self, scope: _Scope) -> ir.Body:
        body = self._round(scope, scope.kind, 1 + self._random.randrange(3))
        return (ir.Repeat(2 + self._random.randrange(2), body),)

    def _round(self, scope: _Scope, kind: str, length: int, value: Optional[str] = None) -> ir.Body:
        """Return a body that runs many times: what it assigns is not known at its begin."""
        inner = scope.inside()
        inner.kind = kind
        for var in range(ir.VARIABLES):
            if var == scope.held or self._random.random() < 0.5:
                inner.fixed.add(var)
            elif var not in inner.fixed:
                inner.known[var] = None
        begin: ir.Body = ()
        to = self._var(inner)
        if value and to is not None:
            inner.known[to] = (value, self._new())
            begin = (ir.Value(to),)
        body = begin + self._body(inner, length)
        _merge(scope, [inner], body)
        return body

    def _static(self, scope: _Scope) -> ir.Body:
        number = self._function(ir.STATIC, ())
        inner = scope.inside()
        inner.kind = ir.STATIC
        body = self._body(inner, 1 + self._random.randrange(3))
        self._functions[number] = ir.Function(ir.STATIC, body)
        scope.known = inner.known
        return (ir.Call(number),)

    def _global(self, scope: _Scope) -> ir.Body:
        number = self._function(ir.GLOBAL, ())
        inner = _Scope(ir.GLOBAL, depth=scope.depth + 1, input=False)
        body = self._lookup(inner) + self._body(inner, 1 + self._random.randrange(3))
        self._functions[number] = ir.Function(ir.GLOBAL, body)
        return (ir.Call(number),)

    def _for_each(self, scope: _Scope) -> ir.Body:
        number = self._function(ir.EACH, ())
        name = self._random.choice(("hash", "front", "array"))
        body = self._round(scope, ir.EACH, 1 + self._random.randrange(3), name)
        self._functions[number] = ir.Function(ir.EACH, body)
        return (ir.ForEach(name, number),)

    def _bpf_loop(self, scope: _Scope) -> ir.Body:
        number = self._function(ir.LOOP, ())
        body = self._round(scope, ir.LOOP, 1 + self._random.randrange(3))
        self._functions[number] = ir.Function(ir.LOOP, body)
        return (ir.BpfLoop(number),)

    def _function(self, kind: str, body: ir.Body) -> int:
        self._functions.append(ir.Function(kind, body))
        return len(self._functions) - 1


_MAKERS: Dict[str, Callable[[Generator, _Scope], ir.Body]] = {
    "lookup": Generator._lookup,
    "inner": Generator._inner,
    "direct": Generator._direct,
    "copy": Generator._copy,
    "access": Generator._access,
    "check": Generator._check,
    "hand": Generator._hand,
    "helper": Generator._helper,
    "packet": Generator._packet,
    "shift": Generator._shift,
    "section": Generator._section,
    "branch": Generator._branch,
    "repeat": Generator._repeat,
    "static": Generator._static,
    "global": Generator._global,
    "for_each": Generator._for_each,
    "bpf_loop": Generator._bpf_loop,
}
_UNDER_LOCK = ("copy", "access", "check", "shift", "branch", "repeat", "static", "direct")
_NESTING = ("branch", "check", "repeat", "static", "global", "for_each", "bpf_loop")
_CALLING = ("static", "global", "for_each", "bpf_loop")
_OF_VALUES = ("copy", "access", "check", "hand", "shift", "section")


def _merge(scope: _Scope, parts: List[_Scope], body: ir.Body) -> None:
    """Forget what a variable is that a part of the program may have assigned."""
    for statement in ir.statements(body):
        if isinstance(statement, (ir.Call, ir.ForEach, ir.BpfLoop)):
            scope.known = [k if v == scope.held else None for v, k in enumerate(scope.known)]
        elif isinstance(statement, _ASSIGNING):
            scope.known[statement.var] = None


_FINDING = (ir.Lookup, ir.Inner, ir.Direct, ir.Value)
_AT = (ir.Lock, ir.Unlock, ir.Load, ir.Store, ir.Atomic, ir.Pass)
_ASSIGNING = (ir.Lookup, ir.Inner, ir.Direct, ir.Value, ir.Copy, ir.Clear, ir.Move, ir.Shift)


def _without_packets(statement: ir.Statement) -> ir.Body:
    return () if isinstance(statement, ir.LoadAbsolute) else (statement,)


# -- damage ------------------------------------------------------------------------------------------


def damage(program: ir.Program, chance: random.Random, times: int) -> ir.Program:
    """Return the program with some changes, each of a random kind at a random place."""
    for _ in range(times):
        program = chance.choice(_DAMAGES)(program, chance)
    return program


_Wanted = Callable[[ir.Statement], bool]


def _edit(
    program: ir.Program,
    chance: random.Random,
    change: Callable[[ir.Statement], ir.Body],
    wanted: _Wanted = lambda statement: True,
) -> ir.Program:
    """Change one random statement that is wanted. No global function gets a branch: it has no input."""
    places = [
        (number, at)
        for number, function in enumerate(program.functions)
        for at, statement in enumerate(_innermost_first(function.body))
        if wanted(statement)
    ]
    if not places:
        return program
    number, left = chance.choice(places)
    function = program.functions[number]

    def visit(statement: ir.Statement) -> ir.Body:
        nonlocal left
        left -= 1
        if left != -1:
            return (statement,)
        changed = change(statement)
        branches = any(isinstance(each, ir.If) for each in ir.statements(changed))
        return (statement,) if branches and function.kind == ir.GLOBAL else changed

    edited = replace(function, body=ir.rewritten(function.body, visit))
    functions = (*program.functions[:number], edited, *program.functions[number + 1 :])
    return replace(program, functions=functions)


def _innermost_first(body: ir.Body) -> Iterator[ir.Statement]:
    """Yield all statements in the order in which ir.rewritten() visits them."""
    for statement in body:
        for name in ir.body_names(type(statement)):
            yield from _innermost_first(getattr(statement, name))
        yield statement


def _places(program: ir.Program) -> List[ir.Statement]:
    """Return the locks and unlocks of a program."""
    return [s for s in ir.everything(program) if isinstance(s, (ir.Lock, ir.Unlock))]


def _intruder(program: ir.Program, chance: random.Random) -> ir.Statement:
    """Return a statement that may break a rule where it is put."""
    places = _places(program)
    some = chance.choice(places) if places else ir.Lock(0, 8)
    var, at = getattr(some, "var"), getattr(some, "at")
    other = _assigned(program, chance)
    return chance.choice(
        (
            ir.Lock(var, at),
            ir.Unlock(var, at),
            ir.Unlock(var, at),
            ir.Copy(var, other),
            ir.Copy(var, other),
            ir.Clear(var),
            ir.Helper(chance.choice(_HELPERS)),
            ir.Exit(),
            ir.Load(var, at, 4),
            ir.Store(var, at, 4),
            ir.Pass(var, at),
            ir.Move(var, chance.choice((-8, 4, 8))),
        )
    )


def _assigned(program: ir.Program, chance: random.Random) -> int:
    """Return a variable, most often one that some lookup is put into."""
    found = [s.var for s in ir.everything(program) if isinstance(s, _FINDING)]
    if not found or chance.random() < 0.1:
        return chance.randrange(ir.VARIABLES)
    return chance.choice(found)


def _delete(program: ir.Program, chance: random.Random) -> ir.Program:
    return _edit(program, chance, lambda statement: ())


def _unwrap(program: ir.Program, chance: random.Random) -> ir.Program:
    """Replace a statement with bodies by one of them."""

    def change(statement: ir.Statement) -> ir.Body:
        names = ir.body_names(type(statement))
        return getattr(statement, chance.choice(names)) if names else (statement,)

    return _edit(program, chance, change)


def _rename(program: ir.Program, chance: random.Random) -> ir.Program:
    """Let a statement use another variable."""

    def change(statement: ir.Statement) -> ir.Body:
        names = [name for name in ("var", "of") if hasattr(statement, name)]
        if not names:
            return (statement,)
        return (replace(statement, **{chance.choice(names): _assigned(program, chance)}),)

    return _edit(program, chance, change)


def _displace(program: ir.Program, chance: random.Random) -> ir.Program:
    """Let a statement go to another place of the value."""

    def change(statement: ir.Statement) -> ir.Body:
        if not isinstance(statement, _AT):
            return (statement,)
        return (replace(statement, at=chance.choice((0, 4, 8, 10, 12, 16, 20))),)

    return _edit(program, chance, change)


def _insert(program: ir.Program, chance: random.Random) -> ir.Program:
    new = _intruder(program, chance)
    return _edit(program, chance, lambda statement: (new, statement))


def _insert_on_one_way(program: ir.Program, chance: random.Random) -> ir.Program:
    """Insert a statement on the way of a branch that the verifier walks second, or first."""
    new = _intruder(program, chance)
    bit = chance.randrange(ir.BITS)
    branch = ir.If(bit, (), (new,)) if chance.random() < 0.6 else ir.If(bit, (new,), ())
    return _edit(program, chance, lambda statement: (branch, statement))


def _on_one_way(program: ir.Program, chance: random.Random) -> ir.Program:
    """Put a statement on one way of a branch only."""
    bit = chance.randrange(ir.BITS)
    return _edit(program, chance, lambda statement: (ir.If(bit, (statement,), ()),))


def _wrap(program: ir.Program, chance: random.Random) -> ir.Program:
    """Lock before a statement and unlock after it."""
    places = _places(program)
    if not places:
        return program
    some = chance.choice(places)
    var, at = getattr(some, "var"), getattr(some, "at")
    return _edit(program, chance, lambda s: (ir.Lock(var, at), s, ir.Unlock(var, at)))


def _is(*kinds: type) -> _Wanted:
    return lambda statement: isinstance(statement, kinds)


def _keep_locked(program: ir.Program, chance: random.Random) -> ir.Program:
    """Take an unlock away, or return before it."""
    bit = chance.randrange(ir.BITS)
    leave: ir.Body = (ir.Exit(),)
    new = chance.choice(((), leave, (ir.If(bit, leave, ()),), (ir.If(bit, (), leave),)))
    return _edit(program, chance, lambda s: (*new, s) if new else (), _is(ir.Unlock))


def _under_lock(program: ir.Program, chance: random.Random) -> ir.Program:
    """Do after a lock what may not be done there."""
    calls = [s for s in ir.everything(program) if isinstance(s, ir.Calling)]

    def change(statement: ir.Statement) -> ir.Body:
        assert isinstance(statement, ir.Lock)
        var, at = statement.var, statement.at
        other = chance.randrange(ir.VARIABLES)
        news: List[ir.Statement] = [
            ir.Helper(chance.choice(_HELPERS)),
            ir.Lookup(other, "hash", 1),
            ir.Inner(other, "outer", 0, 0),
            ir.Pass(var, 0),
            ir.LoadAbsolute(),
            ir.Lock(var, at),
            ir.Atomic(var, at, 4),
            ir.Load(var, at, chance.choice((1, 2, 4))),
            ir.Store(var, at + chance.randrange(4), 1),
        ]
        return (statement, chance.choice([*news, *calls]))

    return _edit(program, chance, change, _is(ir.Lock))


def _wrap_call(program: ir.Program, chance: random.Random) -> ir.Program:
    """Lock before a function is called, and unlock after it."""
    locks = [s for s in ir.everything(program) if isinstance(s, ir.Lock)]
    if not locks:
        return program
    lock = chance.choice(locks)
    around = ir.Lock(lock.var, lock.at), ir.Unlock(lock.var, lock.at)
    calls = (ir.Call, ir.ForEach, ir.BpfLoop)
    return _edit(program, chance, lambda s: (around[0], s, around[1]), _is(*calls))


def _call_under_lock(program: ir.Program, chance: random.Random) -> ir.Program:
    """Call an empty function after a lock."""
    number = len(program.functions)
    calls: List[Tuple[str, ir.Statement]] = [
        (ir.STATIC, ir.Call(number)),
        (ir.GLOBAL, ir.Call(number)),
        (ir.EACH, ir.ForEach("hash", number)),
        (ir.LOOP, ir.BpfLoop(number)),
    ]
    kind, call = chance.choice(calls)
    called = replace(program, functions=(*program.functions, ir.Function(kind, ())))
    return _edit(called, chance, lambda s: (s, call), _is(ir.Lock))


def _take_another(program: ir.Program, chance: random.Random) -> ir.Program:
    """Let a lock's or unlock's variable be another element, on one way to it or on both."""

    def change(statement: ir.Statement) -> ir.Body:
        assert isinstance(statement, (ir.Lock, ir.Unlock))
        copy = ir.Copy(statement.var, _assigned(program, chance))
        bit = chance.randrange(ir.BITS)
        ways: List[ir.Statement] = [copy, ir.If(bit, (copy,), ()), ir.If(bit, (), (copy,))]
        return (chance.choice(ways), statement)

    return _edit(program, chance, change, _is(ir.Lock, ir.Unlock))


def _touch_by_moved(program: ir.Program, chance: random.Random) -> ir.Program:
    """Reach for the lock through a pointer that was moved, by a known or an unknown number."""

    def change(statement: ir.Statement) -> ir.Body:
        assert isinstance(statement, ir.Lock)
        var, at, other = statement.var, statement.at, chance.randrange(ir.VARIABLES)
        moves = (ir.Move(other, 4), ir.Move(other, 0), ir.Shift(other, 3), ir.Shift(other, 7))
        moved = chance.choice(moves)
        start = at - moved.by if isinstance(moved, ir.Move) else at
        uses: List[ir.Statement] = [
            ir.Load(other, max(0, start), 4),
            ir.Store(other, start, 1),
            ir.Atomic(other, start, 4),
            ir.Lock(other, start),
            ir.Pass(other, start),
            ir.Load(other, max(0, start - 4), 8),
        ]
        return (ir.Copy(other, var), moved, chance.choice(uses), statement)

    return _edit(program, chance, change, _is(ir.Lock))


def _move(program: ir.Program, chance: random.Random) -> ir.Program:
    """Move a simple statement to another place."""
    simple = [
        s
        for s in ir.everything(program)
        if not ir.body_names(type(s)) and not isinstance(s, ir.Calling)
    ]
    if not simple:
        return program
    some = chance.choice(simple)
    gone = [False]

    def remove(statement: ir.Statement) -> ir.Body:
        if statement == some and not gone[0]:
            gone[0] = True
            return ()
        return (statement,)

    functions = tuple(replace(f, body=ir.rewritten(f.body, remove)) for f in program.functions)
    return _edit(replace(program, functions=functions), chance, lambda s: (s, some))


def _twice(program: ir.Program, chance: random.Random) -> ir.Program:
    """Repeat a statement."""
    return _edit(program, chance, lambda statement: (statement, statement))


def _retype(program: ir.Program, chance: random.Random) -> ir.Program:
    """Make it a program of another type."""
    return replace(program, type=chance.choice(list(world.TYPES)))


_DAMAGES = (
    _keep_locked,
    _keep_locked,
    _keep_locked,
    _under_lock,
    _under_lock,
    _under_lock,
    _wrap_call,
    _call_under_lock,
    _take_another,
    _take_another,
    _take_another,
    _touch_by_moved,
    _delete,
    _unwrap,
    _rename,
    _rename,
    _displace,
    _insert,
    _insert_on_one_way,
    _insert_on_one_way,
    _insert_on_one_way,
    _on_one_way,
    _wrap,
    _move,
    _twice,
    _retype,
    _retype,
)
