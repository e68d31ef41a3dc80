# SPDX-License-Identifier: GPL-2.0-only
"""Turns an observation into a verdict. Pure: no kernel, no file, no clock.

`verdict` has the two records, Observation and Verdict. `wording` puts them into words.
`judge` compares a case with its expectation. `splat` finds kernel complaints in logs.
`history`, `serialization` and `list_model` check the results of contended runs.
May import: `scenarios`, `errors`.
"""
