# SPDX-License-Identifier: Apache-2.0
"""A search for the fastest block sizes of the Triton kernels, for those who ask: ``RTDETR_OPS_TRITON_AUTOTUNE=1``.

The first call of each kind (counts of points, channels, dtypes, gradients) then tries all configurations, which takes
seconds and waits for the device; Triton keeps the answers in its cache on disk. Without the variable nothing is tried.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import triton

__all__ = ["tuned"]

NUMBERS = {False: (128, 256, 512, 1024, 2048), True: (64, 128, 256, 512)}
"""Whether there are few queries -> numbers of a block, queries times channels. No list is the other's: Triton keeps
what it finds under the list it chose from."""

WARPS = (1, 2, 4, 8)

NUMBERS_OF_A_LANE = range(2, 33)

KEY = ("T", "D", "COORDS", "REFERENCE_LEVELS", "FUSED", "DISCRETE", "HAS_MASK")
"""What a choice depends on, beside the dtypes; sizes of images are not among it."""

GRADIENTS = ("SCATTERS", "RECORDS", "POINTS_XY", "LOCATIONS", "ATTENTION")


@cache
def tuned(kernel: Any, block_d: int, few_queries: bool, lanes: int) -> Any:
    """``kernel``, choosing BLOCK_Q and its warps by itself."""
    adds = "sums" in kernel.arg_names  # each trial adds to them
    return triton.autotune(
        configs=[
            triton.Config({"BLOCK_Q": max(1, numbers // block_d)}, num_warps=warps)
            for numbers in NUMBERS[few_queries]
            for warps in WARPS
            if max(numbers, block_d) // (warps * lanes) in NUMBERS_OF_A_LANE
        ],
        key=[*KEY, *(GRADIENTS if adds else ())],
        reset_to_zero=["sums"] if adds else None,
        cache_results=True,
    )(kernel)
