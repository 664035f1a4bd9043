# SPDX-License-Identifier: Apache-2.0
"""The definition of the operator in plain PyTorch: differentiable, any device, readable before fast.

Every other backend is tested against this file. Coordinates, softmax and accumulation are float32 for storage of 32
bits or fewer and float64 for float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from ..backends import Support
from ..levels import Levels, host_levels

__all__ = [
    "SUPPORT",
    "attention_from_logits",
    "compute_dtype",
    "gradients",
    "gradients_fused",
    "locations_from_offsets",
    "run",
    "run_fused",
]

SUPPORT = Support(fallback_devices=("cuda", "xpu"), transforms=True)


def run(
    value: Tensor,  # [B, S, M, D]
    levels: Levels,  # L pairs (H, W)
    locations: Tensor,  # [B, Q, M, T, 2]
    weights: Tensor,  # [B, Q, M, T]
    points: Sequence[int],  # L counts, sum T
    mode: str,
) -> Tensor:  # [B, Q, M*D]
    compute = compute_dtype(value)
    batch, _, heads, channels = value.shape
    queries = locations.shape[1]
    sample = _SAMPLERS[mode]
    out = value.new_zeros((batch, queries, heads, channels), dtype=compute)
    for (height, width), pixels, span in _level_slices(host_levels(levels), points):
        sampled = sample(
            value[:, pixels].to(compute), height, width, locations[:, :, :, span].to(compute)
        )  # [B, Q, M, P, D]
        out = out + (sampled * weights[:, :, :, span, None].to(compute)).sum(3)
    return out.flatten(2).to(value.dtype)


def run_fused(
    value: Tensor,  # [B, S, M, D]
    levels: Levels,  # L pairs (H, W)
    reference: Tensor,  # [B, Q, 1|L, 2|4]
    offsets: Tensor,  # [B, Q, M, T, 2]
    logits: Tensor,  # [B, Q, M, T]
    points: Sequence[int],  # L counts, sum T
    mode: str,
    offset_scale: float,
    value_mask: Tensor | None,  # [B, S], True keeps
) -> Tensor:  # [B, Q, M*D]
    compute = compute_dtype(value)
    if value_mask is not None:
        value = value.masked_fill(~value_mask[:, :, None, None], 0)
    locations = locations_from_offsets(
        levels, reference.to(compute), offsets.to(compute), points, offset_scale
    )
    weights = attention_from_logits(logits.to(compute))
    return run(value, levels, locations, weights, points, mode)


def gradients(
    grad_output: Tensor,  # [B, Q, M*D]
    inputs: Sequence[Tensor],  # value, locations, weights
    levels: Levels,  # L pairs (H, W)
    points: Sequence[int],  # L counts, sum T
    mode: str,
    needs: Sequence[bool],  # one for each input
) -> list[Tensor | None]:  # one for each input
    def forward(value: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
        return run(value, levels, locations, weights, points, mode)

    return _gradients_of(forward, grad_output, inputs, needs)


def gradients_fused(
    grad_output: Tensor,  # [B, Q, M*D]
    inputs: Sequence[Tensor],  # value, reference, offsets, logits
    levels: Levels,  # L pairs (H, W)
    points: Sequence[int],  # L counts, sum T
    mode: str,
    offset_scale: float,
    value_mask: Tensor | None,  # [B, S], True keeps
    needs: Sequence[bool],  # one for each input
) -> list[Tensor | None]:  # one for each input
    def forward(value: Tensor, reference: Tensor, offsets: Tensor, logits: Tensor) -> Tensor:
        return run_fused(
            value, levels, reference, offsets, logits, points, mode, offset_scale, value_mask
        )

    return _gradients_of(forward, grad_output, inputs, needs)


def _gradients_of(
    forward: Callable[..., Tensor],
    grad_output: Tensor,
    inputs: Sequence[Tensor],
    needs: Sequence[bool],
) -> list[Tensor | None]:
    """One gradient for each input, None where it is not needed or (a discrete location) does not exist.

    Differentiable again where autograd asks for that, by ``create_graph=True``.
    """
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        leaves = [
            tensor.view_as(tensor) if create_graph and needed else tensor.detach()
            for tensor, needed in zip(inputs, needs, strict=True)
        ]
        for leaf, needed in zip(leaves, needs, strict=True):
            if needed and not leaf.requires_grad:
                leaf.requires_grad_()
        out = forward(*leaves)
    if not out.requires_grad:
        return [None] * len(leaves)
    differentiated = [leaf for leaf, needed in zip(leaves, needs, strict=True) if needed]
    grads = iter(
        torch.autograd.grad(
            out, differentiated, grad_output, allow_unused=True, create_graph=create_graph
        )
    )
    return [next(grads) if needed else None for needed in needs]


def attention_from_logits(
    logits: Tensor,  # [B, Q, M, T]
) -> Tensor:  # [B, Q, M, T]
    """One softmax over all T points of a head, whatever level they lie on."""
    return logits.softmax(-1) if logits.shape[-1] else logits


def locations_from_offsets(
    levels: Levels,  # L pairs (H, W)
    reference: Tensor,  # [B, Q, 1|L, 2|4]
    offsets: Tensor,  # [B, Q, M, T, 2]
    points: Sequence[int],  # L counts, sum T
    offset_scale: float,
) -> Tensor:  # [B, Q, M, T, 2]
    """Sampling locations in units of the level: 0..1 spans it.

    A 2-d reference (x, y) moves by ``offset / (W, H)``: offsets are pixels of the level. A 4-d reference (cx, cy, w, h)
    moves by ``offset / P_l * (w, h) * offset_scale``: offsets are fractions of the box.
    """
    sizes = host_levels(levels)
    located = []
    for level, (shape, _, span) in enumerate(_level_slices(sizes, points)):
        index = min(level, reference.shape[2] - 1)
        level_reference = reference[:, :, index, None, None]  # [B, Q, 1, 1, 2|4]
        offset = offsets[:, :, :, span]  # [B, Q, M, P, 2]
        if level_reference.shape[-1] == 2:
            height, width = shape
            located.append(level_reference + offset / offset.new_tensor([width, height]))
        else:
            step = level_reference[..., 2:] * (offset_scale / max(points[level], 1))
            located.append(level_reference[..., :2] + _finite_product(offset, step))
    return torch.cat(located, 3)


def _finite_product(a: Tensor, b: Tensor) -> Tensor:
    """``a * b``, without a gradient where it is not finite: a slope of 0 times an infinite factor would be NaN."""
    product = (a * b).detach()
    finite = torch.isfinite(product)
    return torch.where(finite, torch.where(finite, a, 0.0) * torch.where(finite, b, 0.0), product)


def _level_slices(
    sizes: Sequence[tuple[int, int]], points: Sequence[int]
) -> Iterator[tuple[tuple[int, int], slice, slice]]:
    """Per level: (H, W), its part of the S axis, its part of the T axis."""
    pixel, point = 0, 0
    for (height, width), count in zip(sizes, points, strict=True):
        yield (height, width), slice(pixel, pixel + height * width), slice(point, point + count)
        pixel, point = pixel + height * width, point + count


def compute_dtype(value: Tensor) -> torch.dtype:
    """Of coordinates, softmax and sums."""
    return torch.float64 if value.dtype == torch.float64 else torch.float32


def _sample_bilinear(
    level: Tensor,  # [B, H*W, M, D]
    height: int,
    width: int,
    locations: Tensor,  # [B, Q, M, P, 2]
) -> Tensor:  # [B, Q, M, P, D]
    """Four corners around pixel ``location * size - 0.5``; a corner outside contributes 0 by itself."""
    x = locations[..., 0] * width - 0.5
    y = locations[..., 1] * height - 0.5
    # NaN compares false, so a non-finite point is outside like any far point and gets neither value nor gradient.
    touches = (x > -1) & (x < width) & (y > -1) & (y < height)
    x, y = torch.where(touches, x, 0.0), torch.where(touches, y, 0.0)
    left, top = x.detach().floor(), y.detach().floor()
    wx, wy = x - left, y - top
    # Counted on as integers: from 2^24 on, the pixel after x0 may be no float32.
    x0, y0 = left.long(), top.long()

    def corner(cx: Tensor, cy: Tensor, weight: Tensor) -> Tensor:
        inside = touches & (cx >= 0) & (cx < width) & (cy >= 0) & (cy < height)
        pixels = _gather_pixels(level, torch.where(inside, cy * width + cx, 0))
        # Selecting, not multiplying by 0, keeps a NaN of a pixel that no point touches out of the result; selecting
        # before the product keeps it out of the gradient of the weight too.
        return torch.where(inside[..., None], pixels, 0.0) * weight[..., None]

    return (
        corner(x0, y0, (1 - wx) * (1 - wy))
        + corner(x0 + 1, y0, wx * (1 - wy))
        + corner(x0, y0 + 1, (1 - wx) * wy)
        + corner(x0 + 1, y0 + 1, wx * wy)
    )


def _sample_discrete(
    level: Tensor,  # [B, H*W, M, D]
    height: int,
    width: int,
    locations: Tensor,  # [B, Q, M, P, 2]
) -> Tensor:  # [B, Q, M, P, D]
    """The pixel ``trunc(location * size + 0.5)``, clamped to the border; no gradient to the location.

    This is round(location * size), not the nearest pixel center: published discrete weights rely on the half-pixel
    shift.
    """
    locations = locations.detach()
    finite = torch.isfinite(locations).all(-1)
    locations = torch.where(finite[..., None], locations, 0.0)
    x = _discrete_pixel(locations[..., 0], width)
    y = _discrete_pixel(locations[..., 1], height)
    pixels = _gather_pixels(level, y * width + x)
    return torch.where(finite[..., None], pixels, 0.0)


def _discrete_pixel(coordinate: Tensor, size: int) -> Tensor:
    """Clamped twice: as a number, so that the cast cannot overflow, and as an integer.

    The last pixel of a side of 2^24 or more may be no float32.
    """
    return (coordinate * size + 0.5).clamp(0, size).long().clamp(max=size - 1)


def _gather_pixels(
    level: Tensor,  # [B, H*W, M, D]
    index: Tensor,  # [B, Q, M, P]
) -> Tensor:  # [B, Q, M, P, D]
    batch, queries, heads, count = index.shape
    channels = level.shape[-1]
    pixel = index.transpose(1, 2).reshape(batch, heads, queries * count, 1)
    pixels = level.transpose(1, 2).gather(2, pixel.expand(-1, -1, -1, channels))
    return pixels.view(batch, heads, queries, count, channels).transpose(1, 2)


_SAMPLERS = {"bilinear": _sample_bilinear, "discrete": _sample_discrete}
