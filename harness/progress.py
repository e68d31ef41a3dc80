# SPDX-License-Identifier: GPL-2.0-only
"""The type of the callback that shows the progress of long work, one line per call."""

from typing import Callable

Progress = Callable[[str], None]
