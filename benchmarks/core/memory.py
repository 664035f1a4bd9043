# SPDX-License-Identifier: Apache-2.0
"""What the C library does with freed memory, for a while."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

from rtdetr.memory import M_MMAP_THRESHOLD, M_TOP_PAD, M_TRIM_THRESHOLD, keep_freed_memory

__all__ = ["memory_kept"]

LARGEST_DYNAMIC = 32 * 2**20
"""Where glibc's own adjustment of its threshold ends, in bytes; it trims at twice that."""


@contextmanager
def memory_kept() -> Iterator[None]:
    """As the ``rtdetr`` command runs; afterwards again what glibc does by itself in a process with large blocks."""
    if not keep_freed_memory():
        yield
        return
    yield
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(M_MMAP_THRESHOLD, LARGEST_DYNAMIC)
    mallopt(M_TRIM_THRESHOLD, 2 * LARGEST_DYNAMIC)
    mallopt(M_TOP_PAD, 0)
