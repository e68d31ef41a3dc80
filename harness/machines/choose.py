# SPDX-License-Identifier: GPL-2.0-only
"""Opens the target that the user chose."""

from __future__ import annotations

from typing import Any, Dict

from harness.errors import SetupError
from harness.machines import vagrant
from harness.machines.local import Local
from harness.machines.qemu import Qemu
from harness.machines.target import Settings, Target
from harness.progress import Progress

Json = Dict[str, Any]


def open_target(settings: Settings, progress: Progress) -> Target:
    """Return the target that the user chose. Raises SetupError if it cannot be opened."""
    if not settings.jit and settings.target not in (None, "qemu"):
        raise SetupError(
            f"--jit off needs a guest that is booted so: --target {settings.target} boots none."
        )
    if settings.target == "local":
        return Local(settings, progress)
    if settings.target == "vagrant" or (
        settings.target is None and settings.jit and vagrant.serves(settings)
    ):
        return vagrant.Vagrant(settings, progress)
    try:
        return Qemu(settings, progress)
    except SetupError as error:
        if settings.target is not None or settings.kernel is not None:
            raise
        message = f"There is no machine to test on: `vagrant up` starts one, or mend this: {error}"
        raise SetupError(message, error.console) from error
