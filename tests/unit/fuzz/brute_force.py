# SPDX-License-Identifier: GPL-2.0-only
"""Runs a random program's statements, once for each way through it. Knows no states, only runs."""

from harness.fuzz import ir, rules, world

ROUNDS = 3  # of a callback, at most
MOST_RUNS = 1500


class Broken(Exception):
    """This run breaks a rule."""


class Unclear(Exception):
    """Nobody knows what the verifier says to this run."""


class TooMany(Exception):
    """There are too many ways through this program."""


class _Leave(Exception):
    """The function ends."""


class _Element:
    """A looked-up element; each lookup is another."""

    def __init__(self, map, inner=False):
        self.map, self.inner = map, inner
        self.layout = world.MAPS[map].layout


class _Run:
    def __init__(self, program, kernel, ways):
        self.program, self.kernel, self.ways = program, kernel, ways
        self.at = 0
        self.vars = [None] * ir.VARIABLES  # (element, offset, reach)
        self.held = None
        self.direct = {}
        self.globals = []
        self.stack = []

    def choose(self, count):
        if self.at == len(self.ways):
            self.ways.append([0, count])
        self.at += 1
        return self.ways[self.at - 1][0]

    def function(self, number, value=None):
        kind = self.program.functions[number].kind
        self.stack.append((kind, value))
        try:
            self.body(self.program.functions[number].body)
        except _Leave:
            pass
        self.stack.pop()
        if self.held and (not self.stack or kind in (ir.EACH, ir.LOOP)):
            raise Broken
        if self.held and not self.kernel.static_calls:
            raise Broken

    def body(self, body):
        for statement in body:
            getattr(self, "do_" + statement.word)(statement)

    def outside_the_lock(self):
        if self.held:
            raise Broken

    def there(self, var):
        if self.vars[var] is None:
            raise Broken
        return self.vars[var]

    def touch(self, s, size):
        element, offset, reach = self.there(s.var)
        touched = range(offset + s.at, offset + s.at + reach + size)
        if not all(0 <= byte < element.layout.size for byte in touched):
            raise Broken
        lock = element.layout.lock
        if lock >= 0 and set(touched) & set(range(lock, lock + 4)):
            raise Broken

    def lock_at(self, s):
        element, offset, reach = self.there(s.var)
        if element.layout.lock < 0 or reach or offset + s.at != element.layout.lock:
            raise Broken
        return element

    def input(self):
        if self.stack[0][0] != ir.MAIN:
            raise Unclear

    def do_lookup(self, s):
        self.outside_the_lock()
        kind = world.MAPS[s.map]
        if kind.is_array and s.key >= kind.entries:
            raise Unclear
        sure = kind.is_array and self.kernel.array_is_there
        gone = not sure and self.choose(2)
        self.vars[s.var] = None if gone else (_Element(s.map), 0, 0)

    def do_inner(self, s):
        self.outside_the_lock()
        self.vars[s.var] = None if self.choose(2) else (_Element(s.map, inner=True), 0, 0)

    def do_direct(self, s):
        element = _Element(s.map)
        if self.kernel.same_address:
            element = self.direct.setdefault(s.map, element)
        self.vars[s.var] = (element, 0, 0)

    def do_value(self, s):
        element = self.stack[-1][1]
        self.vars[s.var] = (element, 0, 0) if element else None

    def do_copy(self, s):
        self.vars[s.var] = self.vars[s.of]

    def do_clear(self, s):
        self.vars[s.var] = None

    def do_move(self, s):
        if self.vars[s.var] is None:
            raise Unclear
        element, offset, reach = self.vars[s.var]
        self.vars[s.var] = (element, offset + s.by, reach)

    def do_shift(self, s):
        self.input()
        if self.vars[s.var] is None:
            raise Unclear
        element, offset, reach = self.vars[s.var]
        self.vars[s.var] = (element, offset, reach + s.mask)

    def do_lock(self, s):
        self.outside_the_lock()
        element = self.lock_at(s)
        if element.inner and self.program.type in rules.REFUSED_TYPES:
            raise Broken
        self.held = element

    def do_unlock(self, s):
        if self.held is not self.lock_at(s):
            raise Broken
        self.held = None

    def do_load(self, s):
        self.touch(s, s.size)

    do_store = do_load

    def do_atomic(self, s):
        if self.vars[s.var] and ((self.vars[s.var][1] + s.at) % s.size or self.vars[s.var][2]):
            raise Unclear
        self.touch(s, s.size)

    def do_pass(self, s):
        self.outside_the_lock()
        self.touch(s, 8)

    def do_helper(self, s):
        self.outside_the_lock()

    def do_load_absolute(self, s):
        if [kind for kind, _ in self.stack] != [ir.MAIN]:
            raise Unclear
        if not world.TYPES[self.program.type].packets:
            raise Unclear
        self.outside_the_lock()

    def do_if(self, s):
        self.input()
        self.body(s.orelse if self.choose(2) else s.then)

    def do_if_set(self, s):
        self.body(s.then if self.vars[s.var] else s.orelse)

    def do_repeat(self, s):
        for _ in range(s.times):
            self.body(s.body)

    def do_call(self, s):
        kind = self.program.functions[s.function].kind
        if self.held and not (kind == ir.STATIC and self.kernel.static_calls):
            raise Broken
        if kind == ir.GLOBAL:
            self.globals.append(s.function)
        else:
            self.function(s.function)

    def do_for_each(self, s):
        self.rounds(s.function, lambda: _Element(s.map))

    def do_bpf_loop(self, s):
        self.rounds(s.function, lambda: None)

    def rounds(self, function, element):
        self.outside_the_lock()
        for _ in range(self.choose(ROUNDS + 1)):
            self.function(function, element())

    def do_exit(self, s):
        raise _Leave


def outcome(program, kernel):
    """Return "broken" if a run breaks a rule, else "unclear" if one is, else "legal"."""
    maps = [s for s in ir.everything(program) if hasattr(s, "map")]
    named = [world.MAPS[s.map] for s in maps if not isinstance(s, ir.Inner)]
    if program.type in rules.REFUSED_TYPES and any(kind.layout.lock >= 0 for kind in named):
        return "broken"
    unclear = False
    todo, done, runs = [0], {0}, 0
    while todo:
        root = todo.pop()
        ways = []
        while True:
            runs += 1
            if runs > MOST_RUNS:
                raise TooMany
            run = _Run(program, kernel, ways)
            try:
                run.function(root)
            except Broken:
                return "broken"
            except Unclear:
                unclear = True
            for number in run.globals:
                if number not in done:
                    done.add(number)
                    todo.append(number)
            del ways[run.at :]
            while ways and ways[-1][0] + 1 == ways[-1][1]:
                ways.pop()
            if not ways:
                break
            ways[-1][0] += 1
    return "unclear" if unclear else "legal"
