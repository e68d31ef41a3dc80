# SPDX-License-Identifier: GPL-2.0-only
"""The subcommands of `spinlock`, a module each: `declare` adds options, `run` returns an exit code."""

OK, FAILED, USAGE, SETUP, INTERRUPTED = 0, 1, 2, 4, 130
EXIT_CODES = (
    "Exit codes: 0 all passed, 1 failed or crashed, 2 usage, 3 inconclusive, 4 set-up error."
)
