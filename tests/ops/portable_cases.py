# SPDX-License-Identifier: Apache-2.0
"""Cases, inputs and the tolerance that the tests of the portable forms share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from rtdetr_ops.testing.workloads import Workload, make_inputs

# Small levels under the noise of `make_inputs`: about half of the points lie outside or on a border.
RAGGED = Workload("ragged_rectangles", 2, 5, 3, ((7, 4), (3, 6), (2, 2)), (3, 0, 1), 4)
CASES = (
    Workload("even_squares", 2, 5, 2, ((8, 8), (4, 4)), (4, 4), 8),
    RAGGED,
    Workload("one_level_of_one_pixel", 1, 4, 2, ((1, 1),), (3,), 2),
    Workload("one_channel_one_head", 1, 7, 1, ((5, 2), (2, 3)), (1, 2), 1),
    Workload("first_and_last_level_unused", 1, 3, 2, ((2, 3), (4, 3), (1, 2)), (0, 5, 0), 4),
)


class FusedInputs(NamedTuple):
    """Tensors of one call of the fused entry."""

    value: Tensor  # [B, S, M, D]
    reference: Tensor  # [B, Q, 1|L, 2|4]
    offsets: Tensor  # [B, Q, M, T, 2]
    logits: Tensor  # [B, Q, M, T]
    value_mask: Tensor  # [B, S]


def plain_inputs(
    case: Workload, dtype: torch.dtype = torch.float32, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Value, locations and weights."""
    value, locations, weights = make_inputs(case, dtype, seed).leaves
    return value.detach(), locations.detach(), weights.detach()


def fused_inputs(
    case: Workload,
    dtype: torch.dtype = torch.float32,
    coordinates: int = 4,
    levels: int = 1,
    seed: int = 0,
) -> FusedInputs:
    """Inputs whose locations are those of `plain_inputs`: off the lines where pixels change."""
    value, locations, weights = plain_inputs(case, torch.float64, seed)
    random = torch.Generator().manual_seed(seed)
    shape = (case.batch, case.queries, levels, coordinates)
    reference = 0.2 + 0.6 * torch.rand(shape, generator=random, dtype=torch.float64)
    level_of = [level for level, count in enumerate(case.points) for _ in range(count)]
    # [B, Q, 1, T, 2|4]
    references = reference.expand(-1, -1, len(case.levels), -1)[:, :, None, level_of]
    if coordinates == 2:
        step = torch.tensor([case.levels[level][::-1] for level in level_of]).double().reciprocal()
    else:
        counts = torch.tensor([case.points[level] for level in level_of])
        step = references[..., 2:] * 0.5 / counts[:, None]
    offsets = (locations - references[..., :2]) / step
    mask = torch.rand(value.shape[:2], generator=random) > 0.3
    tensors = (tensor.to(dtype) for tensor in (value, reference, offsets, weights.log()))
    return FusedInputs(*tensors, mask)


def assert_as_exact(
    got: Tensor,
    reference: Callable[..., Tensor],
    inputs: Sequence[Tensor],
    case: Workload,
) -> None:
    """At most twice the error of the reference on ``inputs``, plus the rounding of a coordinate.

    Args:
        got: what is tested.
        reference: computes the same from ``inputs``, and the truth from ``inputs`` in float64.
        inputs: the tensors of the call, ``value`` first.
        case: its longest level says how much a coordinate rounds, in pixels.
    """
    same = reference(*inputs)
    truth = reference(*(_widen(tensor) for tensor in inputs))
    assert (got.dtype, got.shape) == (same.dtype, truth.shape)
    compute = torch.promote_types(inputs[0].dtype, torch.float32)
    rounding = 2 * torch.finfo(compute).eps * max(max(size) for size in case.levels)
    assert _distance(got, truth) <= 2 * _distance(same, truth) + rounding


def _widen(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor


def _distance(a: Tensor, b: Tensor) -> float:
    return (a.double() - b.double()).abs().max().item()
