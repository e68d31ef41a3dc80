# SPDX-License-Identifier: GPL-2.0-only
"""Asks a kernel, by probes, for the features that its configuration leaves out."""

from __future__ import annotations

from pathlib import Path
from typing import Dict, Mapping

from harness.guest import calls
from harness.judging import configuration
from harness.machines.session import KernelRefusal, Session
from harness.provision import build

_PROBES = build.DRIVEN / "lacking.bpf.c"


def probed(session: Session, options: Mapping[str, str], headers: Path) -> Dict[str, str]:
    """Return options with what the kernel itself says of those that are off.

    A kernel with every option is asked nothing. Else what the session has loaded goes. Raises
    GuestLost, AgentError, CompileError, SetupError.
    """
    suspects = configuration.suspects(options)
    if not suspects:
        return dict(options)
    named = session.call(calls.Has([each.needs for each in suspects]))
    there: Dict[str, bool] = {}
    for each in suspects:
        if named[each.needs]:
            there[each.option] = there.get(each.option, False) or not _lacks(session, each, headers)
    return dict(configuration.probed(options, there))


def _lacks(session: Session, feature: configuration.Feature, headers: Path) -> bool:
    """Tell whether the kernel refuses the feature's probe, as one without the feature does."""
    source = build.source(_PROBES, "", "libbpf", headers)
    try:
        session.call(calls.Load(source.request(), [calls.Program(feature.probe, "tc")]))
    except KernelRefusal as refusal:
        return configuration.telling(feature, refusal.log) != ""
    return False
