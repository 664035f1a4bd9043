# SPDX-License-Identifier: Apache-2.0
"""What the C library does with memory that a network has freed."""

from __future__ import annotations

import ctypes
import platform

__all__ = ["keep_freed_memory"]

# Parameters of glibc's mallopt.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3

LARGEST = 2**31 - 1
GROWTH = 64 * 2**20
"""Bytes by which the heap grows."""


def keep_freed_memory() -> bool:
    """Let this process keep what it frees, for the next call, instead of giving it back to the system.

    On the CPU each forward pass allocates its maps anew. glibc returns them to the system after the pass, which then
    clears every page again: 23,000 page faults for one 640x640 image, 5 to 10 % of its time, more where other processes
    do the same. Afterwards the process holds on to the most it ever needed. This concerns the whole process, so the
    ``rtdetr`` command calls it, and the library leaves it to you.

    Returns:
        Whether the C library is one that can be told.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = {M_MMAP_THRESHOLD: LARGEST, M_TRIM_THRESHOLD: LARGEST, M_TOP_PAD: GROWTH}
    return all(mallopt(parameter, value) == 1 for parameter, value in settings.items())
