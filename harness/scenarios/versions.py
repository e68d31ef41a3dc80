# SPDX-License-Identifier: GPL-2.0-only
"""Kernel releases as comparable versions, and ranges of them. Pure."""

from __future__ import annotations

import operator
import re
from functools import lru_cache
from typing import Callable, Dict, List, Optional, Tuple

from packaging.version import Version

from harness.errors import UsageError


@lru_cache(maxsize=None)
def covers(kernels: str, release: Version) -> bool:
    """Tell whether a version range includes this release. The range "" includes all."""
    return all(compare(release, version) for compare, version in _bounds(kernels))


_Compare = Callable[[Version, Version], bool]
_COMPARE: Dict[str, _Compare] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}


@lru_cache(maxsize=None)
def _bounds(kernels: str) -> Tuple[Tuple[_Compare, Version], ...]:
    """Return the bounds of a range. packaging's SpecifierSet takes a second for those of all cases."""
    bounds = [re.fullmatch(r"\s*([<>=!]+)\s*([\d.]+)\s*", each) for each in kernels.split(",")]
    if not kernels:
        return ()
    if not all(bound and bound[1] in _COMPARE for bound in bounds):
        raise ValueError(f"'{kernels}' is no range of versions, as in '>=6.1,<6.13'")
    return tuple((_COMPARE[bound[1]], _version(bound[2])) for bound in bounds if bound)


@lru_cache(maxsize=None)  # a few dozen ranges are used hundreds of times
def is_range(kernels: str) -> bool:
    """Tell whether text is a valid range of versions that includes some kernel."""
    clause = r"\s*(<=?|>=?|==|!=)\s*\d{1,4}(\.\d{1,4})*\s*"
    if kernels and not re.fullmatch(rf"{clause}(,{clause})*", kernels):
        return False
    return any(covers(kernels, release) for release in releases(kernels))


@lru_cache(maxsize=None)
def meet(one: str, other: str) -> str:
    """Return the intersection of two ranges. See is_range() for whether it includes a kernel."""
    bounds = [bound for bound in f"{one},{other}".split(",") if bound]
    of_interest = releases(one, other)
    for bound in list(bounds):
        rest = [each for each in bounds if each is not bound]
        if all(
            covers(",".join(rest), release) == covers(",".join(bounds), release)
            for release in of_interest
        ):
            bounds = rest
    return ",".join(sorted(bounds, key=lambda bound: bound.startswith("<")))


@lru_cache(maxsize=None)  # hundreds of cases have the same clauses
def overlap(ranges: Tuple[str, ...]) -> Optional[Tuple[int, Version]]:
    """Return the number of a range that includes a release of an earlier one, and that release.

    None if no release is in two of the ranges.
    """
    for release in releases(*ranges):
        hits = [number for number, kernels in enumerate(ranges) if covers(kernels, release)]
        if len(hits) > 1:
            return hits[1], release
    return None


def releases(*ranges: str) -> List[Version]:
    """Return sample releases. Each of the ranges includes one, if it includes any release."""
    minors = [f"{major}.{minor}" for major in (5, 6, 7) for minor in range(20)]
    named = [v for kernels in ranges for v in re.findall(r"\d+(?:\.\d+)*", kernels)]
    return [_version(v) for name in (*minors, *named) for v in (name, f"{name}.1", f"{name}.999")]


_version = lru_cache(maxsize=None)(Version)  # to parse one takes longer than to compare it


def kernel_version(release: str, banner: str = "") -> Version:
    """Return the version of a kernel from `uname -r` and, if known, /proc/version (`banner`).

    The release of Debian's stable kernels is always such as 6.1.0. The banner has the upstream
    version: "Debian 6.1.176-1". A release candidate counts as its release, since 7.3-rc2 has the
    rules of v7.3. Raises UsageError if neither has a version.
    """
    debian = re.search(r" #\d+ .*\bDebian (\d+(?:\.\d+)+)", banner)  # not the compiler's before it
    match = debian or re.match(r"(\d+(?:\.\d+)*)", release)
    if not match:
        raise UsageError(f"'{release}' is not a kernel release: it must start with a number.")
    return Version(match.group(1))
