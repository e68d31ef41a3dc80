# SPDX-License-Identifier: GPL-2.0-only
"""What `spinlock` can do, a module per command: `declare` what it takes, `run` it, return a code."""

OK, FAILED, USAGE, SETUP, INTERRUPTED = 0, 1, 2, 4, 130
EXIT_CODES = (
    "Exit codes: 0 all passed, 1 failed or crashed, 2 usage, 3 inconclusive, 4 set-up error."
)
