# SPDX-License-Identifier: GPL-2.0-only
"""Runs of a program and of its twin become verdicts on fields. Pure.

The model is what one CPU leaves: the same runs, one after the other, in several orders. Where all
orders leave the same value, any other one is an error of the program, or of its lock: a *loss*. A
field for which orders differ is not compared by itself; but two of them may always be equal, or have
the same sum or difference, and where a run has one section, this holds whenever the lock is free.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any, Dict, Iterable, Mapping, Optional, Sequence, Tuple

from harness.check.nature import Nature

Json = Dict[str, Any]

ACCUSED, MATTERS, NO_POWER = "ACCUSED", "the lock matters here", "no power"
UNKNOWN, UNCHANGED = "unknown", "not changed"
# What says more comes first: of two experiments the verdict that is kept.
RANK = (ACCUSED, MATTERS, NO_POWER, UNKNOWN, UNCHANGED)
_WORDS = (1, 2, 4, 8)
LEAST_APART = 3  # different pairs of values, for a relation to be no accident

Value = Optional[bytes]
Place = Tuple[str, str]  # (map, key in hexadecimal)


@dataclass(frozen=True)
class Part:
    """A field that is judged."""

    map: str
    field: str
    offset: int
    size: int

    def of(self, value: Optional[str]) -> Value:
        """Return it out of an element's value, in hexadecimal; None if there is no element."""
        if value is None:
            return None
        return bytes.fromhex(value)[self.offset : self.offset + self.size]


@dataclass(frozen=True)
class Seen:
    """What the guest told of one order; see guest/turns.py."""

    before: Mapping[str, Mapping[str, str]]
    halfway: Mapping[str, Mapping[str, str]]
    after: Mapping[str, Mapping[str, str]]
    seconds: float
    looks: Mapping[str, Mapping[str, Sequence[str]]] = field(default_factory=dict)

    @staticmethod
    def of_turns(facts: Json) -> "Seen":
        """Read the guest's answer of runs one after the other."""
        return Seen(facts["before"], facts["halfway"], facts["after"], facts["seconds"])

    @staticmethod
    def of_rounds(facts: Json) -> Tuple["Seen", ...]:
        """Read the guest's answer of runs all at once; looks are those of all rounds."""
        before, seconds = facts["before"], facts["seconds"]
        rest = [Seen(before, {}, after, seconds) for after in facts["rounds"][1:]]
        return (Seen(before, {}, facts["rounds"][0], seconds, facts["looks"]), *rest)


@dataclass(frozen=True)
class Experiment:
    """The same work, done in several ways."""

    nature: Nature
    serial: Tuple[Seen, ...]  # in several orders; in the first one all CPUs take turns
    together: Tuple[Seen, ...]
    twin: Tuple[Seen, ...]  # all at once, without the locks
    runs: int  # of all CPUs


@dataclass(frozen=True)
class Loss:
    """A value that no order of the runs leaves."""

    key: str
    expected: str  # a value, or words on two of them
    found: str
    lost: Optional[int] = None  # of a counter: how many runs are not in it

    def to_json(self) -> Json:
        """Return it as JSON."""
        return {
            "key": self.key,
            "expected": self.expected,
            "found": self.found,
            "lost_runs": self.lost,
        }


@dataclass(frozen=True)
class Least:
    """The least work that was seen to go wrong."""

    cpus: int
    runs: int  # of all of them
    loss: Loss


@dataclass(frozen=True)
class Proof:
    """What is to be said of a field."""

    map: str
    field: str
    verdict: str
    because: str = ""  # of UNKNOWN
    loss: Optional[Loss] = None  # of the program itself
    twin: Optional[Loss] = None  # of its twin
    least: Optional[Least] = None  # of ACCUSED, if it was looked for


@dataclass(frozen=True)
class Relation:
    """What two fields of an element have in common after every run, in every order."""

    first: Part
    second: Part
    sign: int  # of the second one: -1 the difference is constant, 1 the sum
    constant: int

    @property
    def words(self) -> str:
        """It in words."""
        first, second = self.first.field, self.second.field
        if self.sign < 0 and not self.constant:
            return f"{first} = {second}"
        return f"{first} {'+' if self.sign > 0 else '-'} {second} = {self.constant:,}"

    def holds(self, value: str) -> bool:
        """Tell whether it holds in an element's value."""
        return self._sum(self.first.of(value), self.second.of(value)) == self.constant

    def _sum(self, first: Value, second: Value) -> int:
        total = _number(first or b"") + self.sign * _number(second or b"")
        return total % (1 << 8 * self.first.size)


def relations(serial: Sequence[Seen], parts: Sequence[Part]) -> Tuple[Relation, ...]:
    """Return the relations of fields that differ from order to order."""
    found = []
    for first, second in combinations(parts, 2):
        if first.map != second.map or first.size != second.size or first.size not in _WORDS:
            continue
        values = [
            value
            for seen in serial
            for state in (seen.halfway, seen.after)
            for value in state.get(first.map, {}).values()
        ]
        for sign in (-1, 1):
            relation = Relation(first, second, sign, 0)
            sums = {relation._sum(first.of(v), second.of(v)) for v in values}
            apart = {(first.of(v), second.of(v)) for v in values}
            if len(sums) == 1 and len(apart) >= LEAST_APART:
                found.append(replace(relation, constant=sums.pop()))
                break
    return tuple(found)


def judge(done: Experiment, parts: Sequence[Part]) -> Tuple[Proof, ...]:
    """Return what an experiment says of each field."""
    proofs = [_judge(done, part) for part in parts]
    if done.nature.sections != 1 or done.nature.deletes:
        return tuple(proofs)
    named = {(each.map, each.field): number for number, each in enumerate(proofs)}
    for relation in relations(done.serial, parts):
        numbers = [named[part.map, part.field] for part in (relation.first, relation.second)]
        if all(proofs[number].verdict == UNKNOWN for number in numbers):
            for number in numbers:
                proofs[number] = _by_relation(done, relation, proofs[number])
    return tuple(proofs)


def _by_relation(done: Experiment, relation: Relation, proof: Proof) -> Proof:
    loss = _first_broken(done.together, relation)
    twin = _first_broken(done.twin, relation)
    verdict = ACCUSED if loss else MATTERS if twin else NO_POWER
    return Proof(proof.map, proof.field, verdict, "", loss, twin)


def _first_broken(runs: Sequence[Seen], relation: Relation) -> Optional[Loss]:
    for seen in runs:
        name = relation.first.map
        values = [*seen.after.get(name, {}).items()]
        values += [(key, v) for key, looks in seen.looks.get(name, {}).items() for v in looks]
        for key, value in values:
            if not relation.holds(value):
                first, second = relation.first.of(value), relation.second.of(value)
                found = f"{_shown(first or b'')} and {_shown(second or b'')}"
                return Loss(key, relation.words, found)
    return None


def lost(turn: Seen, together: Seen, parts: Sequence[Part], runs: int) -> bool:
    """Tell whether a counter has lost runs; both did as many."""
    alone = Experiment(Nature(1), (turn,), (together,), (), runs)
    for part in parts:
        for key in turn.after.get(part.map, {}):
            if _step(alone, part, key) and _first_loss(alone, (together,), part, [key]):
                return True
    return False


def combined(proofs: Iterable[Proof]) -> Tuple[Proof, ...]:
    """Return one verdict for each field: that which says most."""
    best: Dict[Tuple[str, str], Proof] = {}
    for proof in proofs:
        old = best.setdefault((proof.map, proof.field), proof)
        if RANK.index(proof.verdict) < RANK.index(old.verdict):
            best[proof.map, proof.field] = proof
    return tuple(best.values())


def _judge(done: Experiment, part: Part) -> Proof:
    everything = (*done.serial, *done.together, *done.twin)
    keys = sorted({key for seen in everything for key in seen.after.get(part.map, ())})
    changed = [key for key in keys if any(_changes(seen, part, key) for seen in everything)]
    if not changed:
        return Proof(part.map, part.field, UNCHANGED)
    sure = [key for key in changed if _expected(done, part, key) is not None]
    if not sure:
        why = "what it holds depends on the order or the time of the runs"
        return Proof(part.map, part.field, UNKNOWN, why)
    loss = _first_loss(done, done.together, part, sure)
    twin = _first_loss(done, done.twin, part, sure)
    if loss is not None:
        why = _doubt(done, part, loss)
        return Proof(part.map, part.field, UNKNOWN if why else ACCUSED, why, loss, twin)
    return Proof(part.map, part.field, MATTERS if twin else NO_POWER, "", None, twin)


def _value(seen: Seen, part: Part, key: str) -> Value:
    return part.of(seen.after.get(part.map, {}).get(key))


def _changes(seen: Seen, part: Part, key: str) -> bool:
    before = part.of(seen.before.get(part.map, {}).get(key))
    return (before or bytes(part.size)) != (_value(seen, part, key) or bytes(part.size))


def _expected(done: Experiment, part: Part, key: str) -> Value:
    """Return what every order leaves, None if they differ or leave no element."""
    left = {_value(seen, part, key) for seen in done.serial}
    return left.pop() if len(left) == 1 else None


def _first_loss(
    done: Experiment, runs: Sequence[Seen], part: Part, keys: Sequence[str]
) -> Optional[Loss]:
    for seen in runs:
        for key in keys:
            expected, found = _expected(done, part, key), _value(seen, part, key)
            if expected is not None and expected != found:
                return _loss(done, part, key, expected, found)
    return None


def _loss(done: Experiment, part: Part, key: str, expected: bytes, found: Value) -> Loss:
    if found is None:
        return Loss(key, _shown(expected), "no element")
    if part.size not in _WORDS:
        at = next(i for i in range(part.size) if expected[i] != found[i]) // 4 * 4
        where = f"bytes {at} to {min(at + 4, part.size) - 1}: "
        pieces = expected[at : at + 4], found[at : at + 4]
        return Loss(key, where + _shown(pieces[0]), _shown(pieces[1]))
    step = _step(done, part, key)
    lost = None
    if step:
        missing = (_number(expected) - _number(found)) % (1 << 8 * part.size)
        lost = missing // step if missing % step == 0 and missing // step <= done.runs else None
    return Loss(key, _shown(expected), _shown(found), lost)


def _step(done: Experiment, part: Part, key: str) -> int:
    """Return by how much a run moves a counter, 0 if it is none.

    Half of the runs move it by half of the way. Where runs move it by different amounts, it is 1.
    """
    turn = done.serial[0]
    begin = _number(part.of(turn.before.get(part.map, {}).get(key)) or b"")
    half = _number(part.of(turn.halfway.get(part.map, {}).get(key)) or b"")
    end = _number(_value(turn, part, key) or b"")
    size = 1 << 8 * part.size
    if end == begin or (half - begin) * 2 % size != (end - begin) % size:
        return 0
    whole = (end - begin) % size
    return whole // done.runs if whole % done.runs == 0 else 1


def _doubt(done: Experiment, part: Part, loss: Loss) -> str:
    """Return why a value that no order leaves may be meant; "" if it cannot be."""
    nature = done.nature
    if nature.deletes:
        return "elements are deleted, and what is counted in one that goes is meant to go"
    if nature.tickets:
        return "an atomic instruction hands out values, and their order is not that of the lock"
    if nature.loose and (part.map, part.field) not in nature.loose:
        names = ", ".join(sorted(f"{name}.{field}" for name, field in nature.loose))
        return f"it may depend on {names}, which is read without the lock"
    longest = max(seen.seconds for seen in done.serial)
    if nature.clock and max(seen.seconds for seen in done.together) > longest:
        return "the program asks for the time, and the run took longer than each of those before"
    if nature.sections > 1 and not _step(done, part, loss.key):
        return "the program takes the lock more than once, and others may run in between"
    return ""


def _number(data: bytes) -> int:
    return int.from_bytes(data, "little")


def _shown(data: bytes) -> str:
    return f"{_number(data):,}" if len(data) in _WORDS else data.hex()
