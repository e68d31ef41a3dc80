# SPDX-License-Identifier: GPL-2.0-only
"""One case, run on a kernel: load it and observe, or drive it on many CPUs and collect histories.

May import: `machines`, `results`, `provision`, `judging`, `scenarios`, `guest.calls`,
`errors`.
"""
