# SPDX-License-Identifier: GPL-2.0-only
"""Studies of many runs: power of the broken twins, cost of a lock, bisection over kernels.

May import: `running`, `results`, `machines`, `provision`, `judging`, `scenarios`, `guest.calls`,
`paths`, `errors`.
"""
