# SPDX-License-Identifier: GPL-2.0-only
"""Targets with a kernel under test: QEMU guests, a Vagrant machine, or this machine.

`choose.open_target()` returns a Target. A Target opens Sessions. A lost Session raises GuestLost
with the reason.
May import: `provision`, `judging.splat`, `judging.verdict`, `scenarios`, `guest.calls`, `paths`,
`progress`, `errors`.
"""
