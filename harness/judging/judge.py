# SPDX-License-Identifier: GPL-2.0-only
"""Compares an Expectation with an Observation and returns an explained Verdict. Pure."""

from __future__ import annotations

from types import MappingProxyType
from typing import Mapping, Optional, Sequence

from packaging.version import Version

from harness.judging import configuration, jit, splat
from harness.judging.verdict import Kind, Observation, Verdict
from harness.judging.wording import in_words, telling_line
from harness.scenarios.scenario import Expectation, KnownBug, Need, Scenario, compile_message
from harness.scenarios.versions import covers

NO_HEADERS = "no_headers"  # the stage of a case that bcc could not try: no kernel headers

# Stages that a case fails at before the kernel under test is asked for anything.
_OUTSIDE_THE_KERNEL = {
    "compile": "the program does not compile",
    "open": "the loader did not accept the program",
    "agent": "the guest's agent could not carry out the check",
}


def judge(
    scenario: Scenario,
    release: Version,
    observation: Observation,
    twin: Optional[Verdict] = None,
    options: Mapping[str, str] = MappingProxyType({}),
) -> Verdict:
    """Judge one case.

    `twin` is the verdict of the scenario's legal twin, if it has one. `options` are the known
    options of the kernel's configuration, by name: "y", "n", "inactive" and so on.
    """
    broken = disturbed(observation)
    known = next((b for b in scenario.known_bugs if covers(b.kernels, release)), None)
    if broken is not None:
        if known is not None and observation.lost is None and _only_warned(observation):
            return Verdict(Kind.KNOWN, f"bug on record ({known.commit}): {broken.reason}")
        return broken
    untried = _untried(scenario, release, observation, options)
    if untried is not None:
        return untried
    expectation = scenario.expectation(release)
    if expectation is None:
        return Verdict(Kind.SKIP, f"no expectation for kernel {release}")
    verdict = compare(expectation, observation)
    interpreted = jit.refused(observation.log, options.get(jit.ENABLED))
    if verdict.kind is Kind.FAIL and interpreted is not None:
        return interpreted
    if verdict.kind is Kind.FAIL and observation.bare is False:
        return _unavailable(scenario.section, release, options)
    absent = configuration.left_out(observation.log, options)
    if absent is not None and verdict.kind is Kind.FAIL:
        return absent
    if verdict.kind is Kind.FAIL and options.get(_RT) == "y" and _is_for_rt(observation):
        # PREEMPT_RT refuses the program before the rule under test is checked.
        return Verdict(
            Kind.SKIP, f"the kernel was built with {_RT}: {telling_line(observation.log)}"
        )
    if known is not None:
        broke = expectation.accepted != (observation.stage is None)
        return _on_record(known, broke, release, verdict)
    if verdict.kind is Kind.PASS and not expectation.accepted and scenario.twin is not None:
        return _beside_twin(verdict, scenario.twin, twin)
    return verdict


def _untried(
    scenario: Scenario, release: Version, observation: Observation, options: Mapping[str, str]
) -> Optional[Verdict]:
    """Return the verdict of a case that never reached the kernel; None if it did."""
    if observation.stage in _OUTSIDE_THE_KERNEL:
        words = observation.detail or observation.errno or "no reason given"
        return Verdict(
            Kind.ERROR, f"{_OUTSIDE_THE_KERNEL[observation.stage]}: {_first(words)}", (words,)
        )
    if observation.stage == NO_HEADERS:
        return no_headers()
    if observation.stage == jit.STAYS_ON:
        return jit.stays_on(options)
    if observation.missing:
        return unmet(scenario.needs, release, observation.missing, options)
    return None


def _on_record(known: KnownBug, broke: bool, release: Version, verdict: Verdict) -> Verdict:
    """Adjust a verdict for a kernel with a bug on record.

    `broke` says that the kernel broke the rule: it refused where it must accept, or the reverse.
    """
    if broke:
        reason = f"bug on record ({known.commit}): {verdict.reason}"
        return Verdict(Kind.KNOWN, reason, verdict.evidence)
    if verdict.kind is Kind.FAIL:
        return verdict  # wrong, but not in the way that is on record
    return Verdict(
        Kind.FAIL,
        f"kernel {release} is on record as breaking this rule until {known.commit}, and does not:"
        " correct the range of __known_bug",
        verdict.evidence,
    )


def _beside_twin(refused: Verdict, name: str, twin: Optional[Verdict]) -> Verdict:
    """Return the verdict of an expected refusal. It counts only if the legal twin passed."""
    if twin is not None and twin.kind is Kind.PASS:
        return refused
    if twin is not None and twin.kind is Kind.SKIP:
        return Verdict(Kind.SKIP, f"its legal twin {name} does not apply: {twin.reason}")
    why = f"{twin.kind.value}: {twin.reason}" if twin else "it was not run"
    return Verdict(
        Kind.INCONCLUSIVE,
        f"refused as expected, but maybe for another reason: its legal twin {name} did not pass"
        f" ({why})",
        refused.evidence,
    )


def no_headers() -> Verdict:
    """Return the verdict of bcc on a kernel without headers."""
    return Verdict(Kind.SKIP, "the kernel has no headers, which bcc needs: use libbpf")


def not_booted_with(words: str, target: str) -> Verdict:
    """Return the verdict of a test that must boot a guest, on a target that boots none."""
    return Verdict(Kind.SKIP, f"needs a guest booted with {words}: --target {target} boots none")


def not_stepped(target: str, why: str) -> Verdict:
    """Return the verdict of a case that runs one CPU at a time, on a target that cannot."""
    return Verdict(Kind.SKIP, f"cannot be stepped with --target {target}: {why}")


def no_lock(since: str, release: Version) -> Verdict:
    """Return the verdict of a program type that may not take locks on this kernel yet."""
    return Verdict(
        Kind.SKIP, f"programs of this kind may lock since v{since}, and on kernel {release} may not"
    )


def unmet(
    needs: Sequence[Need], release: Version, missing: Sequence[str], options: Mapping[str, str]
) -> Verdict:
    """Judge a case whose needs are `missing` from the kernel's BTF.

    SKIP if the kernel is too old for them or was built without them, else ERROR. The probe respects
    backports by distributions. The version check exposes a probe that is wrong.
    """
    absent = [need for need in needs if need.name in missing]
    for need in absent:
        if release < Version(need.since):
            continue
        option = configuration.off(need.options, options)
        if option:
            return _skip_for(option)
        if "inactive" in map(options.get, need.options):
            return Verdict(Kind.SKIP, "the kernel's LSM for BPF is not among the active ones")
        return Verdict(
            Kind.ERROR,
            f"kernel {release} is not older than v{need.since} and its BTF has no {need.name}:"
            f" is {' or '.join(need.options) or 'an option of its configuration'} off?",
        )
    words = ", ".join(f"{need.name} (since v{need.since})" for need in absent)
    return Verdict(Kind.SKIP, f"needs {words}, which kernel {release} does not have")


def _skip_for(option: str) -> Verdict:
    return Verdict(Kind.SKIP, f"the kernel was built without {option}")


# Program types that a kernel may be built without, by the start of their SEC() name.
_OPTIONS = (
    ("lsm", "CONFIG_BPF_LSM"),
    ("lwt_", "CONFIG_LWTUNNEL_BPF"),
    ("cgroup", "CONFIG_CGROUP_BPF"),
    ("sockops", "CONFIG_CGROUP_BPF"),
    ("netfilter", "CONFIG_NETFILTER_BPF_LINK"),
    ("lirc_mode2", "CONFIG_BPF_LIRC_MODE2"),
    ("sk_skb", "CONFIG_NET_SOCK_MSG"),
    ("sk_msg", "CONFIG_NET_SOCK_MSG"),
    ("struct_ops", "CONFIG_BPF_JIT"),
    *((kind, "CONFIG_BPF_EVENTS") for kind in ("kprobe", "uprobe", "raw_tp", "tp_btf")),
    *((kind, "CONFIG_BPF_EVENTS") for kind in ("tracepoint", "perf_event")),
    *((kind, "CONFIG_DYNAMIC_FTRACE") for kind in ("fentry", "fexit", "fmod_ret")),
)
_RT = "CONFIG_PREEMPT_RT"
OPTION_NAMES = tuple(
    sorted({_RT, jit.ALWAYS_ON, *configuration.OPTIONS, *(option for _, option in _OPTIONS)})
)


def _is_for_rt(observation: Observation) -> bool:
    """Tell whether the verifier refused timers because the kernel is PREEMPT_RT."""
    words = "bpf_timer cannot be used for PREEMPT_RT"
    return observation.errno == "EOPNOTSUPP" and words in observation.log


def _unavailable(section: str, release: Version, options: Mapping[str, str]) -> Verdict:
    """Return the verdict of a program type of which the kernel rejects even an empty program."""
    option = next((name for start, name in _OPTIONS if section.startswith(start)), "")
    if options.get(option) == "n":
        return _skip_for(option)
    return Verdict(
        Kind.ERROR,
        f"kernel {release} takes no program of this kind ({section}), not even an empty one:"
        f" is {option or 'an option of its configuration'} off?",
    )


def disturbed(observation: Observation) -> Optional[Verdict]:
    """Return CRASH or ERROR for a lost guest, a stuck CPU or a splat; None if there was none.

    This outranks all else that the case showed.
    """
    if observation.lost is not None:
        kind = Kind.CRASH if observation.lost_is_crash else Kind.ERROR
        return Verdict(kind, observation.lost, tuple(observation.console.splitlines()[:40]))
    if observation.stuck:
        numbers = ", ".join(str(cpu) for cpu in observation.stuck)
        return Verdict(
            Kind.CRASH,
            f"CPU {numbers} no longer schedules tasks: are its interrupts off, or its preemption?",
            observation.kernel_log or (),
        )
    if observation.kernel_log is None:
        return Verdict(Kind.ERROR, "the kernel log could not be read, so a splat could not be seen")
    found = splat.find(observation.kernel_log)
    if found is not None:
        return Verdict(
            Kind.CRASH, f"{found.kind} in the kernel log: {found.line}", observation.kernel_log
        )
    return None


def _only_warned(observation: Observation) -> bool:
    """Tell whether the first splat is a WARN. A bug on record excuses no other kind of splat."""
    found = splat.find(observation.kernel_log or ())
    return found is not None and found.kind == "WARN"


def compare(expectation: Expectation, observation: Observation) -> Verdict:
    """Return PASS or FAIL, with a MATCHED or EXPECTED line per part of the expectation."""
    lines = []
    ok = True

    def check(holds: bool, expected: str, seen: str) -> None:
        nonlocal ok
        ok = ok and holds
        lines.append(f"MATCHED    {expected}" if holds else f"EXPECTED   {expected}")
        if not holds:
            lines.append(f"UNEXPECTED {seen}")

    seen = in_words(observation)
    if expectation.accepted:
        check(observation.stage is None, "loads", seen)
        if expectation.retval is not None and observation.stage is None:
            returned = f"returned {observation.retval}"
            check(
                observation.retval == expectation.retval, f"returns {expectation.retval}", returned
            )
    else:
        check(observation.stage == expectation.stage, f"refused at {expectation.stage}", seen)
        if expectation.errno is not None:
            check(observation.errno == expectation.errno, f"errno {expectation.errno}", seen)
        position = 0
        for message in expectation.messages:
            match = compile_message(message).search(observation.log, position)
            position = match.end() if match else position
            check(match is not None, f'"{message}"', f'log: "{telling_line(observation.log)}"')
        for message in expectation.absent:
            match = compile_message(message).search(observation.log)
            check(match is None, f'no "{message}"', f'log: "{match.group() if match else ""}"')
    if ok:
        return Verdict(Kind.PASS, seen, tuple(lines))
    failed = [line.split(None, 1)[1] for line in lines if line.startswith("EXPECTED")]
    return Verdict(Kind.FAIL, f"expected: {', '.join(failed)}; {seen}", tuple(lines))


def _first(text: str) -> str:
    """Return the first line of a tool's output that has "error" in it, else its first line."""
    lines = [line for line in text.splitlines() if line.strip()]
    return next((line for line in lines if "error" in line), lines[0] if lines else "")
