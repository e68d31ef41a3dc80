# SPDX-License-Identifier: GPL-2.0-only
"""Answers of the verifier and the map code to the programs of a unit, one after the other."""

from __future__ import annotations

import os
import time
from typing import Any, Dict, Union

from harness.guest import calls, libbpf, uapi
from harness.guest.calls import Trial
from harness.guest.dispatch import answers
from harness.guest.loaders import Refused, Unit, Wanted, bare_program_loads, open_unit
from harness.guest.state import SETTLE_SECONDS, Json, State

_WITHOUT_PACKET = (
    uapi.BPF_PROG_TYPE_RAW_TRACEPOINT,
    uapi.BPF_PROG_TYPE_TRACING,
    uapi.BPF_PROG_TYPE_SYSCALL,
    uapi.BPF_PROG_TYPE_SK_LOOKUP,
)


@answers(calls.Verify)
def verify(state: State, call: calls.Verify) -> None:
    unit: Union[Unit, Refused, None] = None  # a refusal holds for every program of it
    for case in call.cases:
        state.emit({"begin": case.name})
        started = time.monotonic()
        seconds: Dict[str, float] = {}
        try:
            # Sent even if empty: the host then knows that the case before is over.
            state.emit({"late": state.begin(case.name)})
            if unit is None:
                unit = _opened(state, call)
                seconds["open"] = round(time.monotonic() - started, 4)
            observation = {**_answer(unit, case, seconds), "built": unit.built}
        except OSError as error:
            observation = {"stage": "agent", "detail": str(error)}
        finally:
            _let_go(unit, for_good=case is call.cases[-1])
        ended = time.monotonic()
        observation.update(state.aftermath(SETTLE_SECONDS, _runs(case)))
        seconds["settle"] = round(time.monotonic() - ended, 4)
        seconds["case"] = round(time.monotonic() - started, 4)
        state.emit({"end": case.name, "observation": {**observation, "seconds": seconds}})
        if observation["stuck"]:
            return  # the cases to come need another guest


def _opened(state: State, call: calls.Verify) -> Union[Unit, Refused]:
    try:
        return open_unit(call.source, state.ask, [case.name for case in call.cases])
    except Refused as refused:
        return refused


def _let_go(unit: Union[Unit, Refused, None], for_good: bool) -> None:
    """Unload the programs of a unit; close it too in the last case, whose log then has any splat."""
    if unit is None or isinstance(unit, Refused):
        return
    if for_good:
        unit.close()
    else:
        unit.unload()


def _answer(unit: Union[Unit, Refused], case: Trial, seconds: Dict[str, float]) -> Dict[str, Any]:
    """Load and run a program; return the observation, also of a refusal. Notes the time in seconds."""
    try:
        if isinstance(unit, Refused):
            raise unit
        return _observe(unit, case, seconds)
    except Refused as refused:
        facts = refused.facts()
        if refused.stage == "prog_load":
            facts["bare"] = bare_program_loads(case.section)
        return facts


def _runs(case: Trial) -> bool:
    """Tell whether a case does more than load its program."""
    return case.run or case.attach


def _observe(unit: Unit, case: Trial, seconds: Dict[str, float]) -> Json:
    """Load one program, and run or attach it if asked. Notes the time in seconds. Raises Refused."""
    wanted = Wanted(case.name, case.section, case.user, case.user_stage, _runs(case))
    started = time.monotonic()
    try:
        unit.load([wanted])
    finally:
        seconds["load"] = round(time.monotonic() - started, 4)
    fd = unit.program_fd(wanted.name)
    observation: Json = {"stage": None, "errno": None, "log": ""}
    if case.attach:
        try:
            os.close(libbpf.open_raw_tracepoint(fd))
        except OSError as error:
            raise Refused("attach", error.errno or 0) from None
    if case.run:
        kind, _ = libbpf.program_type(wanted.section)
        try:
            packet = b"" if kind in _WITHOUT_PACKET else libbpf.PACKET
            observation["retval"] = libbpf.test_run(fd, packet)
        except OSError as error:
            raise Refused("run", error.errno or 0) from None
    return observation
