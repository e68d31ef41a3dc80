# SPDX-License-Identifier: GPL-2.0-only
"""Every annotated program of bpf_progs/: does the kernel accept and refuse what it must?"""


def test_verdict(scenario, loader, verdict):
    verdict(scenario, loader)
