# SPDX-License-Identifier: GPL-2.0-only
"""A kernel under test and a session on it: QEMU guests, Vagrant machines, this machine.

`choose.open_target()` gives a Target; a Target gives Sessions; a lost Session says why.
May import: `provision`, `judging.splat`, `judging.verdict`, `scenarios`, `guest.calls`, `paths`,
`progress`, `errors`.
"""
