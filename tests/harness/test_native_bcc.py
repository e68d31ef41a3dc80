# SPDX-License-Identifier: GPL-2.0-only
"""bcc outside the guest says what bcc in the guest says, of each kind of text, on each kernel.

In the guest each text takes seconds. So what no kernel has a part in is compared on one of them.
"""

import re

import pytest

from harness.guest import calls
from harness.machines import choose, session as sessions, target
from harness.provision import build
from harness.scenarios.programs import Programs
from harness.scenarios.versions import kernel_version

WHOLE, IN_PART = "6.12", ("5.10", "7.3")
KERNELS = (WHOLE, *IN_PART)
# Maps that a kernel refuses, programs that load and run, programs that it refuses; and layouts.
UNITS_IN_PART = (("map_refused", "lru_hash"), ("balance", ""))
UNITS = (*UNITS_IN_PART, ("map_refused", "read_only_array"), ("layout", ""))
# Texts that do not compile, that have no such program, and of which bcc would attach the program.
TEXTS = {
    "wrong": "int wrong(struct __sk_buff *skb) { return nothing; }",
    "absent": "",
    "kprobe__do_nanosleep": "int kprobe__do_nanosleep(struct pt_regs *ctx) { return 0; }",
}
BEYOND = {
    "perf output": """
        BPF_PERF_OUTPUT(events);
        int wanted(struct __sk_buff *skb) { u32 one = 1; events.perf_submit(skb, &one, 4); return 0; }
    """,
    "a tracepoint": "TRACEPOINT_PROBE(sched, sched_switch) { return args->prev_pid; }",
}
ADDRESS = re.compile(r"0x[0-9a-f]{9,}")
SAID = ("stage", "errno", "log", "detail", "retval", "bare", "stuck")


# With workers, the tests of a kernel go to one of them, which then boots it alone.
BY_KERNEL = [pytest.param(name, marks=pytest.mark.xdist_group(f"bcc {name}")) for name in KERNELS]


@pytest.fixture(scope="module", params=BY_KERNEL)
def guests(request):
    found = choose.open_target(target.Settings("qemu", request.param, 4), lambda message: None)
    yield found
    found.close()


def sources(guests, release):
    """Return (text, programs) of each unit, as a run would ask for them."""
    wanted = UNITS if guests.kernel == WHOLE else UNITS_IN_PART
    units = {}
    for scenario in Programs.read(build.PROGRAMS).scenarios():
        file = scenario.file.name.partition(".")[0]
        if (file, scenario.unit) in wanted and "bcc" in scenario.loaders:
            clause = scenario.expectation(release)
            run = clause is not None and clause.retval is not None
            trial = calls.Trial(scenario.name, scenario.section, scenario.user, run=run)
            units.setdefault((scenario.file, scenario.unit), []).append(trial)
    assert len(units) == len(wanted)
    for (path, unit), trials in units.items():
        yield build.source(path, unit, "bcc", guests.headers()).content.decode(), trials


def said(session, text, trials):
    """Return what is observed of programs, without addresses of the kernel; and by which bcc."""
    seen, built = {}, set()

    def note(event):
        if "end" in event:
            observation = event["observation"]
            built.add(observation["built"])
            seen[event["end"]] = {
                name: ADDRESS.sub("ADDRESS", str(observation.get(name))) for name in SAID
            }

    session.call(calls.Verify(calls.Source("bcc", text), trials), note)
    return seen, built


def test_both_ways_say_the_same(guests):
    with guests.session(warm=True) as session:
        facts = session.call(calls.Facts())
        release = kernel_version(facts["release"], facts["version"])
        texts = list(sources(guests, release))
        if guests.kernel == WHOLE:
            texts += [(text, [calls.Trial(name, "kprobe")]) for name, text in TEXTS.items()]
        outside = [said(session, *each) for each in texts]
        carry, session.carry = session.carry, sessions.no_bcc
        try:
            inside = [said(session, *each) for each in texts]
        finally:
            session.carry = carry
    stages = set()
    for (_, trials), (out, out_by), (seen, by) in zip(texts, outside, inside):
        assert list(out) == [trial.name for trial in trials]
        assert out == seen
        assert all(built.startswith("by bcc outside the guest") for built in out_by)
        assert all(built.startswith("by bcc in the guest") for built in by)
        stages.update(observation["stage"] for observation in seen.values())
    # The sample is worth something only as long as it has all of them.
    # bcc makes a refused map again without BTF before v6.2, so that only WHOLE has all of them.
    others = {"compile", "open", "map_create"} if guests.kernel == WHOLE else set()
    assert stages >= {"None", "prog_load"} | others


@pytest.mark.parametrize("guests", BY_KERNEL[:1], indirect=True)
@pytest.mark.parametrize("text", BEYOND.values(), ids=BEYOND)
def test_what_is_not_carried_is_done_in_the_guest(guests, text):
    with guests.session(warm=True) as session:
        _, built = said(session, text, [calls.Trial("wanted", "tc")])
    assert len(built) == 1
    assert built.pop().startswith("by bcc in the guest, as it needs ")
