# SPDX-License-Identifier: Apache-2.0
"""Hand-picked shapes and dtypes for the tests of the operator. Two are never combined without a reason."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from rtdetr_ops.testing.inputs import Case, Storage
from rtdetr_ops.testing.workloads import Workload

RAGGED = Workload("ragged_zero_count", 2, 5, 3, ((7, 4), (3, 6), (2, 2)), (3, 0, 1), 17)

SHAPES = (
    # A level that no point lies on; rectangles both ways; odd everything; a full vector of channels and a rest.
    RAGGED,
    # All counts and all sizes differ: a count read from the wrong level shows.
    Workload("all_counts_different", 1, 4, 2, ((5, 9), (6, 2), (4, 4), (1, 3)), (1, 2, 3, 5), 8),
    # The usual pyramid, the number of taps a multiple of every vector length.
    Workload("even", 2, 6, 4, ((8, 8), (4, 4), (2, 2), (1, 1)), (4, 4, 4, 4), 32),
    Workload("one_level", 2, 7, 2, ((6, 5),), (3,), 16),
    # Half of each cell reaches over the border.
    Workload("one_pixel_levels", 2, 9, 2, ((1, 1), (1, 1)), (2, 3), 8),
    Workload("one_row_and_one_column", 1, 9, 2, ((1, 9), (9, 1)), (3, 3), 8),
    Workload("first_and_last_level_unused", 1, 3, 2, ((2, 3), (4, 3), (1, 2)), (0, 5, 0), 4),
    # One query fills several blocks' worth of the usual number of taps.
    Workload("64_points_on_a_level", 1, 3, 2, ((9, 7), (4, 4)), (64, 2), 8),
    # More taps than a block holds: every query is a block of its own.
    Workload("taps_beyond_a_block", 1, 3, 1, ((5, 5), (3, 2), (2, 2)), (150, 149, 1), 4),
    # Heads and images of one: strides of size-1 axes mean nothing.
    Workload("one_of_each", 1, 1, 1, ((3, 3),), (1,), 1),
    # What is kept for a head must not outlive its image.
    Workload("images_of_one_head", 3, 5, 1, ((4, 5), (3, 3)), (2, 2), 8),
    # Too few heads and levels for the threads: levels are cut into strips, more than the level is high.
    Workload("strips_of_a_level", 1, 40, 1, ((3, 40),), (4,), 8),
    # 301 queries over two images: a block must not straddle the images; pixels are read often enough to be copied.
    Workload("odd_queries_many_blocks", 2, 301, 2, ((12, 11), (6, 5)), (3, 5), 16),
)

# So many points fall on each pixel of the last levels that all additions to it contend, and the queue of its tile in
# the CUDA backward runs over many times.
HOT = Workload("hot_levels", 2, 301, 2, ((9, 7), (1, 2), (1, 1)), (3, 4, 2), 24)

# Around every vector length, its multiples, and the common heads.
CHANNELS = (1, 7, 8, 16, 17, 24, 32, 40, 64, 96, 256)

F64, F32, BF16, F16 = torch.float64, torch.float32, torch.bfloat16, torch.float16

UNIFORM = (Storage(F64), Storage(F32), Storage(BF16), Storage(F16))
MIXED = (
    Storage(BF16, F32, F32),  # bf16 autocast: projections in bf16, softmax and locations in fp32
    Storage(F16, F32, F32),
    Storage(F32, F16, BF16),
    Storage(F32, F32, F16),
    Storage(F64, F32, F16),  # computes in fp64
    Storage(F32, F64, F64),  # computes in fp32
    Storage(BF16, F16, F32, F64),
)

each_shape = pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
each_mode = pytest.mark.parametrize("mode", ["bilinear", "discrete"])
each_uniform_dtype = pytest.mark.parametrize("storage", UNIFORM, ids=str)
each_storage = pytest.mark.parametrize("storage", UNIFORM + MIXED, ids=str)


def in_mode(case: Case, mode: str) -> Case:
    return replace(case, workload=replace(case.workload, mode=mode))


def with_channels(shape: Workload, channels: int) -> Workload:
    return replace(shape, channels=channels)


def with_storage_of(tensor: torch.Tensor, size: int) -> torch.Tensor:
    """A copy whose storage was resized under it, to a number of bytes; FSDP frees parameters by 0."""
    tensor = tensor.clone()
    tensor.untyped_storage().resize_(size)
    return tensor


def freed(tensor: torch.Tensor) -> torch.Tensor:
    """A copy whose memory is gone: whoever reads a number of it crashes."""
    return with_storage_of(tensor, 0)
