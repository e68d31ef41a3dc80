# SPDX-License-Identifier: GPL-2.0-only
"""The Result of a case, the file that stores results, and views of several runs.

`record` builds a Result, `log` stores it, `matrix` reads it. `results.jsonl` is the only stored
truth; matrix, drift and expected failures are views of it, and `rejudge` judges it again.
May import: `judging`, `scenarios`, `paths`, `errors`.
"""
