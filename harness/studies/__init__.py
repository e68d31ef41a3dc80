# SPDX-License-Identifier: GPL-2.0-only
"""Questions that take many runs: how sure a twin shows, what a lock costs, which kernel broke a case.

May import: `running`, `results`, `machines`, `provision`, `judging`, `scenarios`, `guest.calls`,
`paths`, `errors`.
"""
