# SPDX-License-Identifier: GPL-2.0-only
"""What a register may hold at a place of a program, and how instructions change it. Pure.

A Value is a union: a number within a range, a pointer into map values, into the stack, to a map, to
code. It always covers every run; what it says beyond the truth costs precision only. Elements have
names, so that a lock and a field are known to be of the same one: two places of one state with the
same name hold pointers to the same element, or something that is no pointer. A name of None says
that nothing is known of that. Likewise a link: places with the same link hold equal bits.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, FrozenSet, List, NamedTuple, Optional, Tuple

Range = Tuple[int, int]  # both ends included; 64 bits with sign
FULL: Range = (-(1 << 63), (1 << 63) - 1)
WORD: Range = (0, (1 << 32) - 1)
FAR = 1 << 40  # an offset that no value reaches
MOST_SPOTS = 12


class Spot(NamedTuple):
    """Where in values of a map a pointer may point to: any offset of a range."""

    map: str
    inner: bool
    low: int
    high: int


class StackSpot(NamedTuple):
    """Where in the stack frame of a depth a pointer may point to."""

    frame: int
    low: int
    high: int


class Value(NamedTuple):
    """All that a register or a stack slot may hold."""

    range: Optional[Range] = FULL  # as a number, or as anything that is not followed
    link: Any = None
    name: Any = None  # of the element that the spots are in
    spots: FrozenSet[Spot] = frozenset()
    stacks: FrozenSet[StackSpot] = frozenset()
    maps: FrozenSet[Tuple[str, bool]] = frozenset()  # pointers to maps: (name, inner)
    codes: FrozenSet[str] = frozenset()
    lost: bool = False  # a pointer to any value is possible as well

    @property
    def pure(self) -> bool:
        """Tell whether it is a number and nothing else."""
        return not (self.spots or self.stacks or self.maps or self.codes or self.lost)

    @property
    def constant(self) -> Optional[int]:
        """The number, if it is one and known."""
        if self.pure and self.range is not None and self.range[0] == self.range[1]:
            return self.range[0]
        return None


UNKNOWN = Value()
LOST = Value(lost=True)


def number(low: int, high: Optional[int] = None) -> Value:
    """Return a number, or one of a range."""
    return Value((low, low if high is None else high))


def join(left: Value, right: Value, name: Any) -> Value:
    """Return what covers both; the caller says what the element is called."""
    if left == right and left.name == name:
        return left
    ranges = [each.range for each in (left, right) if each.range is not None]
    hull = (min(r[0] for r in ranges), max(r[1] for r in ranges)) if ranges else None
    return Value(
        hull,
        left.link if left.link == right.link else None,
        name,
        _few(left.spots | right.spots),
        (
            left.stacks | right.stacks
            if len(left.stacks | right.stacks) <= MOST_SPOTS
            else _deep(left, right)
        ),
        left.maps | right.maps,
        left.codes | right.codes,
        left.lost or right.lost,
    )


def _few(spots: FrozenSet[Spot]) -> FrozenSet[Spot]:
    """Return one range for each map in place of too many offsets."""
    return spots if len(spots) <= MOST_SPOTS else _hulls(spots)


def _deep(left: Value, right: Value) -> FrozenSet[StackSpot]:
    return frozenset(StackSpot(s.frame, -512, 0) for s in left.stacks | right.stacks)


def widen(old: Value, new: Value, thresholds: List[int]) -> Value:
    """Return a value that covers the new one and changes a few more times at the most."""
    spots = new.spots
    if not spots <= old.spots:
        known = {(s.map, s.inner): s for s in _hulls(old.spots)}
        spots = frozenset(_stretched(known.get((s.map, s.inner)), s) for s in _hulls(spots))
    stacks = new.stacks
    if not stacks <= old.stacks:
        stacks = _deep(new, new)
    reach = new.range
    if reach is not None and old.range is not None and reach != old.range:
        low, high = reach
        if low < old.range[0]:
            low = max([t for t in thresholds if t <= low], default=FULL[0])
        if high > old.range[1]:
            high = min([t for t in thresholds if t >= high], default=FULL[1])
        reach = (low, high)
    return new._replace(range=reach, spots=spots, stacks=stacks)


def _hulls(spots: FrozenSet[Spot]) -> FrozenSet[Spot]:
    found: Dict[Tuple[str, bool], Spot] = {}
    for spot in spots:
        old = found.get((spot.map, spot.inner), spot)
        low, high = min(old.low, spot.low), max(old.high, spot.high)
        found[spot.map, spot.inner] = Spot(spot.map, spot.inner, low, high)
    return frozenset(found.values())


def _stretched(old: Optional[Spot], new: Spot) -> Spot:
    if old is None:
        return new
    low = new.low if new.low >= old.low else -FAR
    high = new.high if new.high <= old.high else FAR
    return new._replace(low=low, high=high)


# -- arithmetic ------------------------------------------------------------------------------------


def shift(value: Value, by: Range) -> Value:
    """Return a pointer moved by a number of bytes; its numbers are moved as well."""
    low, high = max(by[0], -FAR), min(by[1], FAR)
    moved = frozenset(
        s._replace(low=max(s.low + low, -FAR), high=min(s.high + high, FAR)) for s in value.spots
    )
    stacks = frozenset(
        StackSpot(s.frame, max(s.low + low, -FAR), min(s.high + high, FAR)) for s in value.stacks
    )
    reach = _fit(value.range[0] + by[0], value.range[1] + by[1]) if value.range else None
    return Value(reach, None, value.name, moved, stacks, value.maps, value.codes, value.lost)


def add(left: Value, right: Value) -> Value:
    """Return a sum."""
    if right.pure:
        return shift(left, right.range or FULL)
    if left.pure:
        return shift(right, left.range or FULL)
    both = join(shift(left, right.range or FULL), shift(right, left.range or FULL), None)
    return both._replace(range=FULL)


def subtract(left: Value, right: Value) -> Value:
    """Return a difference."""
    if right.pure and right.range is not None:
        return shift(left, (-right.range[1], -right.range[0]))
    return shift(left, FULL)


def _fit(low: int, high: int) -> Range:
    return (low, high) if FULL[0] <= low and high <= FULL[1] else FULL


def _multiply(left: Range, right: Range) -> Range:
    corners = [a * b for a in left for b in right]
    return _fit(min(corners), max(corners))


def _and(left: Range, right: Range) -> Range:
    tops = [r[1] for r in (left, right) if r[0] >= 0]
    return (0, min(tops)) if tops else FULL


def _or(left: Range, right: Range) -> Range:
    if left[0] < 0 or right[0] < 0:
        return FULL
    return (0, (1 << max(left[1], right[1]).bit_length()) - 1)


def _left(left: Range, right: Range) -> Range:
    if right[0] != right[1] or not 0 <= right[0] < 64:
        return FULL
    return _fit(left[0] << right[0], left[1] << right[0])


def _right(left: Range, right: Range) -> Range:
    if right[0] != right[1] or not 0 <= right[0] < 64:
        return (0, left[1]) if left[0] >= 0 else FULL
    if left[0] >= 0:
        return (left[0] >> right[0], left[1] >> right[0])
    return (0, ((1 << 64) - 1) >> right[0]) if right[0] else left


def _right_signed(left: Range, right: Range) -> Range:
    if right[0] != right[1] or not 0 <= right[0] < 64:
        return FULL
    return (left[0] >> right[0], left[1] >> right[0])


def _divide(left: Range, right: Range) -> Range:
    if right[0] != right[1] or right[0] <= 0:
        return (0, left[1]) if left[0] >= 0 and right[0] >= 0 else FULL
    if left[0] < 0:
        return _fit(0, ((1 << 64) - 1) // right[0])
    return (left[0] // right[0], left[1] // right[0])


def _modulo(left: Range, right: Range) -> Range:
    if right[0] > 0:
        return (0, min(right[1] - 1, left[1]) if left[0] >= 0 else right[1] - 1)
    return (0, left[1]) if left[0] >= 0 else FULL


_OPERATIONS: Dict[int, Callable[[Range, Range], Range]] = {
    0x00: lambda a, b: _fit(a[0] + b[0], a[1] + b[1]),
    0x10: lambda a, b: _fit(a[0] - b[1], a[1] - b[0]),
    0x20: _multiply,
    0x30: _divide,
    0x40: _or,
    0x50: _and,
    0x60: _left,
    0x70: _right,
    0x80: lambda a, _: _fit(-a[1], -a[0]),
    0x90: _modulo,
    0xA0: _or,
    0xC0: _right_signed,
}
_WITH_SIGN = (0x00, 0x10)  # whose 32-bit immediates are as good with their sign


def arithmetic(operation: int, left: Value, right: Value, wide: bool, signed: bool) -> Value:
    """Return the result of an instruction but a move; `signed` of a division with sign."""
    if wide and operation == 0x00:
        return add(left, right)
    if wide and operation == 0x10:
        return subtract(left, right)
    found = _OPERATIONS.get(operation)
    if found is None or signed or left.range is None or right.range is None:
        return UNKNOWN if wide else Value(WORD)
    if not (left.pure and right.pure):
        return UNKNOWN if wide else Value(WORD)
    if wide:
        return Value(found(left.range, right.range))
    return Value(_in_word(found, operation, left.range, right.range))


def _in_word(
    found: Callable[[Range, Range], Range], operation: int, left: Range, right: Range
) -> Range:
    left = word(left)
    if not (operation in _WITH_SIGN and right[0] == right[1]):
        right = word(right)
    if operation == 0xC0 and left[1] > WORD[1] >> 1:
        return WORD
    if operation in (0x60, 0x70, 0xC0) and not 0 <= right[0] == right[1] < 32:
        return WORD
    low, high = found(left, right)
    return (low, high) if WORD[0] <= low and high <= WORD[1] else WORD


def word(reach: Range) -> Range:
    """Return the range of the lower 32 bits."""
    if WORD[0] <= reach[0] and reach[1] <= WORD[1]:
        return reach
    if reach[0] == reach[1]:
        return (reach[0] & WORD[1],) * 2
    if -WORD[1] - 1 <= reach[0] and reach[1] < 0:
        return (reach[0] + WORD[1] + 1, reach[1] + WORD[1] + 1)
    return WORD


def extended(value: Value, bits: int) -> Value:
    """Return a number of few bits with its sign extended."""
    low, high = -(1 << bits - 1), (1 << bits - 1) - 1
    if value.pure and value.range and low <= value.range[0] and value.range[1] <= high:
        return value
    return number(low, high)


# -- conditions ------------------------------------------------------------------------------------

# Operation of a jump -> (relation, with sign).
_RELATIONS: Dict[int, Tuple[str, bool]] = {
    0x10: ("==", True),
    0x50: ("!=", True),
    0x20: (">", False),
    0x30: (">=", False),
    0xA0: ("<", False),
    0xB0: ("<=", False),
    0x60: (">", True),
    0x70: (">=", True),
    0xC0: ("<", True),
    0xD0: ("<=", True),
}
_NOT = {"==": "!=", "!=": "==", ">": "<=", "<=": ">", "<": ">=", ">=": "<"}
_MIRROR = {"==": "==", "!=": "!=", ">": "<", "<": ">", ">=": "<=", "<=": ">="}


def compare(
    operation: int, left: Value, right: Value, wide: bool, truth: bool
) -> Optional[Tuple[Value, Value]]:
    """Return what both sides are if a comparison is true (or false); None if it cannot be so."""
    if operation not in _RELATIONS:
        return left, right
    relation, signed = _RELATIONS[operation]
    relation = relation if truth else _NOT[relation]
    if not left.pure or not right.pure:
        if right.constant == 0 and relation in ("==", "!="):
            narrowed = _with_null(left, relation)
            return None if narrowed is None else (narrowed, right)
        return left, right
    if left.range is None or right.range is None:
        return left, right
    ranges = left.range, right.range
    seen = ranges if wide else tuple(_in_32(each, relation, signed) for each in ranges)
    first = _narrowed(seen[0], relation, seen[1], signed)
    second = _narrowed(seen[1], _MIRROR[relation], seen[0], signed)
    if first is None or second is None:
        return None
    return (
        left._replace(range=first if seen[0] == ranges[0] else ranges[0]),
        right._replace(range=second if seen[1] == ranges[1] else ranges[1]),
    )


def _in_32(reach: Range, relation: str, signed: bool) -> Range:
    """Return the range of the lower 32 bits as a comparison sees them."""
    low = word(reach)
    if not signed or relation in ("==", "!="):
        return low
    half = WORD[1] >> 1
    if reach[0] >= -half - 1 and reach[1] <= half:
        return reach
    if low[0] > half:
        return (low[0] - WORD[1] - 1, low[1] - WORD[1] - 1)
    return low if low[1] <= half else (-half - 1, half)


def _with_null(value: Value, relation: str) -> Optional[Value]:
    null = value.range is not None and value.range[0] <= 0 <= value.range[1]
    if relation == "==":
        if value.lost or null:
            return Value((0, 0), value.link)
        return None
    return value._replace(range=None) if value.range == (0, 0) else value


def _narrowed(reach: Range, relation: str, other: Range, signed: bool) -> Optional[Range]:
    low, high = reach
    if relation == "!=":
        if other[0] == other[1]:
            low += low == other[0]
            high -= high == other[0]
        return (low, high) if low <= high else None
    if not signed and (other[0] < 0 or (low < 0 and relation in (">", ">="))):
        return reach  # as numbers without sign, those below 0 are the largest
    if not signed and low < 0:
        low = 0
    if relation in ("<", "<=", "=="):
        high = min(high, other[1] - (relation == "<"))
    if relation in (">", ">=", "=="):
        low = max(low, other[0] + (relation == ">"))
    return (low, high) if low <= high else None
