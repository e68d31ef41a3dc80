# SPDX-License-Identifier: GPL-2.0-only
"""What a guest is booted from: the userland and a kernel. What is missing of them is made in parallel."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Tuple

from harness.progress import Progress
from harness.provision import kernel_store, userland
from harness.provision.kernel_store import Kernel
from harness.provision.userland import Image


def ensure(kernel: str, progress: Progress) -> Tuple[Image, Kernel]:
    """Return the image and a kernel by its name. Each waits mostly for the network, or for one core.

    Raises UnknownKernel; SetupError if one of them cannot be made, of two errors the image's.
    """
    kernel_store.look(kernel)  # a wrong name is said before an image is built
    if userland.cached() is not None:
        return userland.ensure(progress), kernel_store.fetch(kernel, progress)
    with ThreadPoolExecutor(1) as other:
        fetched = other.submit(kernel_store.fetch, kernel, progress)
        image = userland.ensure(progress)
        return image, fetched.result()
