# SPDX-License-Identifier: GPL-2.0-only
"""Kernel releases as comparable versions, and the ranges that speak of them. Pure."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import List

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from harness.errors import UsageError


@lru_cache(maxsize=None)
def covers(kernels: str, release: Version) -> bool:
    """Tell whether a version range, "" being every kernel, holds this release."""
    return SpecifierSet(kernels).contains(release, prereleases=True)


@lru_cache(maxsize=None)  # a few dozen ranges are written hundreds of times
def is_range(kernels: str) -> bool:
    """Tell whether text is a range of versions that a kernel can be in."""
    clause = r"\s*(<=?|>=?|==|!=)\s*\d{1,4}(\.\d{1,4})*\s*"
    if kernels and not re.fullmatch(rf"{clause}(,{clause})*", kernels):
        return False
    return any(covers(kernels, release) for release in releases(kernels))


@lru_cache(maxsize=None)
def meet(one: str, other: str) -> str:
    """Return the range of the kernels that two ranges share, which is no range if there is none."""
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


def releases(*ranges: str) -> List[Version]:
    """Return releases of which each range holds one if it holds any."""
    minors = [f"{major}.{minor}" for major in (5, 6, 7) for minor in range(20)]
    named = [v for kernels in ranges for v in re.findall(r"\d+(?:\.\d+)*", kernels)]
    return [Version(v) for name in (*minors, *named) for v in (name, f"{name}.1", f"{name}.999")]


def kernel_version(release: str, banner: str = "") -> Version:
    """Return the comparable version of a kernel from `uname -r` and, where known, /proc/version.

    Debian's stable kernels keep 6.1.0 in their release whatever they are made of; the banner has
    it: "Debian 6.1.176-1". Release candidates count as the release they lead to, because a rule
    that came in v7.3 is in 7.3-rc2. Raises UsageError when there is no version in either.
    """
    debian = re.search(r" #\d+ .*\bDebian (\d+(?:\.\d+)+)", banner)  # not the compiler's before it
    match = debian or re.match(r"(\d+(?:\.\d+)*)", release)
    if not match:
        raise UsageError(f"'{release}' is not a kernel release: it must start with a number.")
    return Version(match.group(1))
