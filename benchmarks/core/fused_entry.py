# SPDX-License-Identifier: Apache-2.0
"""The fused entry: its inputs, and what the callers of a contender without one write around it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from core.peers import Contender, Kernel
from rtdetr_ops.testing.workloads import BORDER_MARGIN, Inputs, Workload

__all__ = ["FusedInputs", "bind_fused_entry", "fused_inputs"]

OFFSET_SCALE = 0.5


class FusedInputs(NamedTuple):
    """Tensors of one call; all but ``grad_out`` require gradients."""

    value: Tensor  # [B, S, M, D]
    reference: Tensor  # [B, Q, 1, 4]
    offsets: Tensor  # [B, Q, M, T, 2]
    logits: Tensor  # [B, Q, M, T]
    grad_out: Tensor  # [B, Q, M*D]

    @property
    def leaves(self) -> tuple[Tensor, ...]:
        """The differentiable tensors, in the order of the operator's arguments."""
        return self[:4]


def fused_inputs(workload: Workload, plain: Inputs, dtype: torch.dtype) -> FusedInputs:
    """The call whose points and weights are those of ``plain``, up to the rounding of its offsets.

    Boxes are a fifth of the image wide. They keep float32 at least; offsets and logits, which come
    out of projections, have the storage dtype.
    """
    centers = plain.locations.mean((2, 3))  # [B, Q, 2]
    boxes = torch.cat([centers, torch.full_like(centers, 0.2)], -1)[:, :, None]
    reference = boxes.to(torch.promote_types(dtype, torch.float32))
    anchor = reference.double()[:, :, None]  # [B, Q, 1, 1, 4]
    step = _fractions(workload, plain.value)[:, None] * anchor[..., 2:]  # [B, Q, 1, T, 2]
    offsets = ((plain.locations - anchor[..., :2]) / step).to(dtype)
    tensors = (
        plain.value.to(dtype),
        reference,
        _off_borders(offsets, anchor[..., :2], step, workload),
        plain.weights.log().to(dtype),
    )
    leaves = (tensor.detach().requires_grad_() for tensor in tensors)
    return FusedInputs(*leaves, plain.grad_out.to(dtype))


def bind_fused_entry(contender: Contender, workload: Workload) -> Kernel:
    """(value, reference, offsets, logits) -> [B, Q, M*D]: the contender's own, or softmax, locations, contender."""
    if contender.bind_fused is not None:
        return contender.bind_fused(workload)
    kernel = contender.bind(workload)
    # Made once here, which is kinder than real callers are: they multiply and divide one by one.
    fractions = _fractions(workload, torch.empty(0, dtype=torch.float32))[:, None]
    per_level = (len(workload.levels), workload.points[0])

    def unfused(value: Tensor, reference: Tensor, offsets: Tensor, logits: Tensor) -> Tensor:
        anchor = reference[:, :, None]  # [B, Q, 1, 1, 4]
        locations = anchor[..., :2] + offsets * fractions * anchor[..., 2:]
        weights = logits.softmax(-1)
        if contender.classic:
            locations, weights = (x.unflatten(3, per_level) for x in (locations, weights))
        return kernel(value, locations, weights)

    return unfused


def _fractions(workload: Workload, like: Tensor) -> Tensor:  # [T]
    """What part of a box one unit of an offset is."""
    per_tap = [OFFSET_SCALE / count for count in workload.points for _ in range(count)]
    return like.new_tensor(per_tap)


def _off_borders(offsets: Tensor, origin: Tensor, step: Tensor, workload: Workload) -> Tensor:
    """Lengthen the offsets that rounding put where the sampled pixels change; see BORDER_MARGIN."""
    sizes = [
        (width, height)
        for (height, width), count in zip(workload.levels, workload.points, strict=True)
        for _ in range(count)
    ]
    size = origin.new_tensor(sizes)  # [T, 2]
    for _ in range(100):
        pixel = (origin + offsets.double() * step) * size - 0.5
        near = (pixel - pixel.round()).abs() < BORDER_MARGIN / 2
        if not near.any():
            return offsets
        longer = offsets.double() * 1.01
        longer = longer + torch.full_like(longer, 0.01).copysign(longer)
        offsets = torch.where(near, longer.to(offsets.dtype), offsets)
    raise RuntimeError(f"no offsets off the pixel borders for {workload.name}")
