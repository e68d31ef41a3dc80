# SPDX-License-Identifier: GPL-2.0-only
"""Which rules of newer kernels a file breaks that loads today (`--next`).

Newer kernels that are fetched are asked. For the others the rule book speaks: what a file does is
compared with the scenarios that some kernel takes and a later one refuses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, Iterable, Iterator, List, Sequence, Tuple

from packaging.version import Version

from harness.check import since
from harness.check.examine import OnKernel, Source
from harness.check.linked import Linked
from harness.provision import catalogue, kernel_store
from harness.provision.elf import Map

_STORAGES = (19, 24, 28, 29, 32)  # of cgroups, sockets, inodes and tasks


@dataclass(frozen=True)
class Breach:
    """What a file does that a kernel takes and a later one refuses, by the rule book."""

    what: str  # in words
    scenario: str  # which does the same
    programs: Tuple[str, ...]  # that do it

    @property
    def rule(self) -> str:
        """The name of the rule."""
        return since.rule_of(self.scenario)

    @property
    def taken(self) -> str:
        """The kernels that take it, in words."""
        return "; ".join(map(str, since.spans(self.scenario)))


@dataclass(frozen=True)
class Coming:
    """What is known of newer kernels than the newest that was asked for."""

    base: str  # that newest kernel, as the user named it
    asked: Tuple[str, ...]  # newer ones whose answers are among the others
    left: Tuple[str, ...]  # newer ones that are not fetched
    breaches: Tuple[Breach, ...]  # of which a kernel that was not asked may make a refusal


def newest(rows: Sequence[OnKernel]) -> OnKernel:
    """Return what the newest kernel said."""
    return max(rows, key=lambda row: row.version)


def newer(base: OnKernel) -> Tuple[List[str], List[str]]:
    """Return the kernels of the catalogue with a later minor: those that are fetched, and the others."""
    later = [
        name for name in catalogue.all_names() if Version(name).release > base.version.release[:2]
    ]
    fetched = [name for name in later if kernel_store.cached(name) is not None]
    return fetched, [name for name in later if name not in fetched]


def breaches(source: Source, base: OnKernel, asked: Iterable[OnKernel]) -> Tuple[Breach, ...]:
    """Return what the rule book says that later kernels than `base` refuse, and none asked has shown.

    Of programs that load on `base` only.
    """
    loading = [name for name, seen in base.programs.items() if seen.refusal is None]
    found = []
    for what, scenario, programs in _doings(source):
        here = tuple(name for name in programs if name in loading)
        others = [row for row in asked if not since.takes(scenario, row.version)]
        if here and since.takes(scenario, base.version) and since.ends(scenario, base.version):
            if not others:
                found.append(Breach(what, scenario, here))
    return tuple(found)


def _doings(source: Source) -> Iterator[Tuple[str, str, Tuple[str, ...]]]:
    """Yield (what is done, the scenario that does it, programs) of all that can be read in an object."""
    functions = source.object.functions
    known = [name for name in source.programs if name in functions]
    uses = {name: Linked(functions, name) for name in known}
    for name, declared in source.object.maps.items():
        users = tuple(each for each in known if name in uses[each].maps())
        for what, scenario in _of_map(declared):
            yield f"map {name!r} has {what}", scenario, users
    for name, (holder, _) in source.extended().items():
        kind = functions[holder].section.partition("/")[0]
        scenario = {"socket": "extension_of_socket_filter_locks"}.get(kind, "")
        scenario = "extension_of_kprobe_locks" if kind in ("kprobe", "kretprobe") else scenario
        if scenario and uses[name].lock_kinds:
            yield f"an extension of a program for {kind!r} locks", scenario, (name,)


def _of_map(declared: Map) -> Iterator[Tuple[str, str]]:
    if len({lock.lock for lock in declared.locks}) > 1:
        yield "both kinds of lock in a value", "both_kinds_of_lock"
    elif len(declared.locks) > 1:
        yield f"{len(declared.locks)} locks in a value", of_two_locks(declared)
    for field in declared.fields if declared.locks and declared.type in _STORAGES else ():
        if field.kernel == "bpf_timer":
            yield "a timer beside its lock in local storage", "lock_beside_timer_in_storage"
        elif field.kernel == "bpf_wq":
            yield "a work queue beside its lock", "lock_beside_work_queue_in_storage"


def of_two_locks(declared: Map) -> str:
    """Return the scenario that has locks at the same places of a value."""
    inner = all("." in lock.name for lock in declared.locks)
    return "two_inner_locks" if inner else "lock_and_inner_lock"


# -- in words --------------------------------------------------------------------------------------


def lines(coming: Coming, rows: Sequence[OnKernel]) -> List[str]:
    """Say what newer kernels refuse of what loads on the newest that was asked for."""
    base = next(row for row in rows if row.kernel == coming.base)
    said = [f"kernels newer than {coming.base}"]
    for name, kernels, why in refused(coming, rows):
        said.append(f"  {name}: refused on {', '.join(kernels)}, as they were asked: {why}")
    if not refused(coming, rows) and coming.asked and base.good:
        said.append(f"  asked, and none refuses what loads on {coming.base}")
    for breach in coming.breaches:
        said.append(
            f"  {', '.join(breach.programs)}: by the rule book: {breach.what}; {breach.taken} take"
            f" that, others refuse it ({breach.rule})"
        )
    said.append(f"  asked: {', '.join(coming.asked) or 'none'}")
    if coming.left:
        hint = f"spinlock kernels fetch {' '.join(coming.left)}"
        said.append(f"  not fetched, so only looked up in the rule book: {', '.join(coming.left)}")
        said.append(f"  to ask them: {hint}")
    return said


def refused(coming: Coming, rows: Sequence[OnKernel]) -> List[Tuple[str, Tuple[str, ...], str]]:
    """Return (program, kernels, class of the refusal) of what loads on the base and not on newer ones."""
    base = next(row for row in rows if row.kernel == coming.base)
    found = []
    for name, seen in base.programs.items():
        by_class: Dict[str, List[str]] = {}
        for row in rows:
            if row.kernel in coming.asked and seen.refusal is None and base.problem is None:
                why = row.problem or row.programs[name].refusal
                if why is not None:
                    by_class.setdefault(why.name, []).append(row.kernel)
        found += [(name, tuple(kernels), of) for of, kernels in by_class.items()]
    return found
