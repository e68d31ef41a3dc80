# SPDX-License-Identifier: GPL-2.0-only
"""What to know of a file beside the refusals: its maps, its BTF, complaints of kernels. Pure."""

from __future__ import annotations

from typing import Dict, List, Tuple

from harness.check import bcc_source, coming, since
from harness.check.answer import Answer
from harness.check.examine import OnKernel, Source
from harness.check.linked import Linked
from harness.check.own_loader import Loader
from harness.check.refusal import WITHOUT_LOCKS


def head(answer: Answer) -> List[str]:
    """Say what was checked, and what to know of the maps and the BTF before reading on."""
    count = len(answer.programs)
    programs = f"{answer.source.name}: {count} program{'s' * (count != 1)}"
    if isinstance(answer.source, bcc_source.Text):
        kinds = [f"{name} as {answer.source.sections[name]}" for name in answer.programs]
        return [f"{programs}, through bcc: {', '.join(kinds)}"]
    if isinstance(answer.source, Loader):
        carried = ", ".join(answer.source.files) or "none"
        return [f"{answer.source.command}: the judge is this loader; files carried: {carried}"]
    maps = answer.maps
    locks = [f"{m.name}.{lock.name}" for m in maps.values() for lock in m.locks]
    locks += [
        f"{m.name}.{lock.name}" for outer in maps.values() if (m := outer.inner) for lock in m.locks
    ]
    lines = [f"{programs}, locks: {', '.join(locks) if locks else 'none in a map'}"]
    if answer.source.object.problem:
        lines.append(f"note: {answer.source.object.problem} Source lines may be missing.")
    assumed = sorted({name for row in answer.kernels for name in row.assumed})
    if assumed:
        lines.append(f"note: no size in the object, 1024 entries assumed: {', '.join(assumed)}")
    shrunk = sorted({name for row in answer.kernels for name in row.shrunk})
    if shrunk:
        lines.append(
            f"note: too large for a guest, loaded with fewer entries here: {', '.join(shrunk)}"
        )
    return lines + _without_btf(answer) + _locks_unseen(answer)


def _locks_unseen(answer: Answer) -> List[str]:
    """Say where programs load that use a map of which the kernel sees one lock of several."""
    lines = []
    for name, declared in answer.maps.items():
        if len(declared.locks) < 2:
            continue
        bugs: Dict[str, List[str]] = {}
        for row in answer.kernels:
            if any(row.programs[p].refusal is None for p in _users(answer, name, row)):
                scenario = coming.of_two_locks(declared)
                bugs.setdefault(since.bug_of(scenario, row.version), []).append(row.kernel)
        for bug, kernels in bugs.items():
            found = f" (a bug of the kernel on record: {bug})" if bug else ""
            lines.append(
                f"note: {', '.join(kernels)}: map {name!r} has {len(declared.locks)} locks in a value:"
                f" the kernel knows one at most, and copies the others like data{found}"
            )
    return lines


def _users(answer: Answer, name: str, row: OnKernel) -> List[str]:
    """Return the programs on a kernel that name a map."""
    assert isinstance(answer.source, Source)
    functions = answer.source.object.functions
    known = [each for each in row.programs if each in functions]
    return [each for each in known if name in Linked(functions, each).maps()]


def _without_btf(answer: Answer) -> List[str]:
    """Say where something loads because libbpf went on without BTF that the kernel refuses.

    Of a map only if there is a lock in it, which nobody knows of then.
    """
    alike: Dict[Tuple[str, str, Tuple[str, ...]], List[str]] = {}
    for row in answer.kernels:
        if any(seen.refusal is None for seen in row.programs.values()):
            for name, errno in row.btf_refused.items():
                if not name or (name in answer.maps and answer.maps[name].locks):
                    causes = row.causes if not name else ()
                    alike.setdefault((name, errno, causes), []).append(row.kernel)
    return [
        f"note: {', '.join(kernels)}: the kernel refuses the BTF of"
        f" {f'map {name!r}' if name else 'the object'} ({errno})"
        f"{' for ' + '; '.join(causes) if causes else ''}, and libbpf goes on without it:"
        f" {'its lock is unknown' if name else 'no lock, list or tree is known'} there"
        f"{_of_type(answer, name)}"
        for (name, errno, causes), kernels in alike.items()
    ]


def _of_type(answer: Answer, name: str) -> str:
    """Say of a map that no kernel lets hold a lock what other loaders make of it."""
    if not name or answer.maps[name].type not in WITHOUT_LOCKS:
        return ""
    return (
        "; a map of its type holds no lock, and loaders that do not try again without BTF"
        " (cilium/ebpf, bcc since v6.2) refuse it"
    )


def ends(answer: Answer) -> List[str]:
    """Say how the user's own loader ended on each kernel, kernels with the same end together."""
    alike: Dict[str, List[str]] = {}
    for row in answer.kernels:
        for seen in row.programs.values():
            if seen.told:
                alike.setdefault(seen.told, []).append(row.kernel)
    return [f"{', '.join(kernels)}: {told}" for told, kernels in alike.items()]


def outputs(answer: Answer) -> List[str]:
    """Return what the user's own loader printed, the same on several kernels once."""
    alike: Dict[str, List[str]] = {}
    for row in answer.kernels:
        for seen in row.programs.values():
            if seen.told and seen.log.strip():
                alike.setdefault(seen.log.rstrip(), []).append(row.kernel)
    return [f"it printed, on {', '.join(kernels)}:\n{text}" for text, kernels in alike.items()]


def warnings(answer: Answer) -> List[str]:
    """Say of what kernels complained, though they went on."""
    lines = []
    for row in answer.kernels:
        if row.warning:
            lines.append(
                f"the object's BTF or maps on {row.kernel}: the kernel complained:"
                f" {row.warning}{_on_record(row.warning, row)}"
            )
        lines += [
            f"{name} on {row.kernel}: the kernel complained:"
            f" {seen.warning}{_on_record(seen.warning, row)}"
            for name, seen in row.programs.items()
            if seen.warning
        ]
    return lines


def _on_record(complaint: str, row: OnKernel) -> str:
    commit = since.known_bug(complaint, row.version)
    return f" (a bug of the kernel on record: {commit})" if commit else ""
