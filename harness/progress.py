# SPDX-License-Identifier: GPL-2.0-only
"""How long work says what it is doing: one line at a time, to whatever shows it."""

from typing import Callable

Progress = Callable[[str], None]
