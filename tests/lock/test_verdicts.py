# SPDX-License-Identifier: GPL-2.0-only
"""The kernel accepts or refuses every annotated program of bpf_progs/ as expected."""


def test_verdict(scenario, loader, verdict):
    verdict(scenario, loader)
