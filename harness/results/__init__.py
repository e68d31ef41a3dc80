"""A case's Result, the file that stores it, and what several runs say together.

`results.jsonl` is the only stored truth; matrix, drift and expected failures are views of it.
May import: `judging`, `scenarios`, `paths`, `errors`.
"""
