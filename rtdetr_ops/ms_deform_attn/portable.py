# SPDX-License-Identifier: Apache-2.0
"""The operator written with operators every exporter knows: what an exported graph holds instead.

Two forms, with the contract of :mod:`.reference`:

* ``"gather"`` (default) reads pixels by index, one index per corner for the whole pyramid: the
  graph does not grow with the levels, and ``levels`` may stay a tensor. No GridSample, which
  TensorRT is known to miscompile.
* ``"grid_sample"`` samples each level with ``grid_sample``; ``levels`` must be host integers, or
  what torch.jit.trace takes for them. Discrete mode interpolates nothing and is a gather in this form too.

Coordinates, softmax and sums are float32 (float64 for a float64 value) whatever the storage. In
both forms a non-finite location contributes 0. A NaN or Inf in a pixel that no point touches stays
out of the result in the gather form; in the grid_sample form that is up to the runtime, which may
multiply a corner outside the level by 0 instead of skipping it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from ..levels import Levels, host_levels
from ..tracing import is_jit_tracing
from .export_form import current_form
from .reference import attention_from_logits, compute_dtype

__all__ = ["run", "run_fused"]


def run(
    value: Tensor,  # [B, S, M, D]
    levels: Levels,  # L pairs (H, W)
    locations: Tensor,  # [B, Q, M, T, 2]
    weights: Tensor,  # [B, Q, M, T]
    points: Sequence[int],  # L counts, sum T
    mode: str,
) -> Tensor:  # [B, Q, M*D]
    """As :func:`.reference.run`, in the form chosen."""
    compute = compute_dtype(value)
    lowering = _LOWERINGS[mode, current_form()]
    out = lowering(value, levels, locations.to(compute), weights.to(compute), points)
    return out.to(value.dtype)


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
    """As :func:`.reference.run_fused`, in the form chosen."""
    compute = compute_dtype(value)
    if value_mask is not None:
        value = value.masked_fill(~value_mask[:, :, None, None], 0)
    locations = _locations(levels, reference.to(compute), offsets.to(compute), points, offset_scale)
    weights = attention_from_logits(logits.to(compute))
    return run(value, levels, locations, weights, points, mode)


def _grid_sample_bilinear(
    value: Tensor,  # [B, S, M, D]
    levels: Levels,  # L pairs (H, W)
    locations: Tensor,  # [B, Q, M, T, 2]
    weights: Tensor,  # [B, Q, M, T]
    points: Sequence[int],  # L counts, sum T
) -> Tensor:  # [B, Q, M*D]
    if isinstance(levels, Tensor) and not is_jit_tracing():
        raise TypeError(
            "levels: the grid_sample form needs integers (H, W), got a tensor; "
            "pass integers or export the gather form"
        )
    batch, _, heads, channels = value.shape
    queries = locations.shape[1]
    if not any(points):
        return weights.new_zeros((batch, queries, heads * channels))
    grid = 2 * _confine(locations) - 1  # grid_sample spans a level with -1..1
    grid = grid.transpose(1, 2).flatten(0, 1)  # [B*M, Q, T, 2]
    planes = value.permute(0, 2, 3, 1).flatten(0, 1)  # [B*M, D, S]
    sampled, pixel, point = [], 0, 0
    for (height, width), count in zip(host_levels(levels), points, strict=True):
        if count:
            plane = planes[:, :, pixel : pixel + height * width].to(weights.dtype)
            # Not unflatten: torch's TorchScript exporter takes the shape of its result for a constant.
            plane = plane.reshape(batch * heads, channels, height, width)
            sampled.append(_sample_plane(plane, grid[:, :, point : point + count]))
        pixel, point = pixel + height * width, point + count
    folded = weights.transpose(1, 2).flatten(0, 1).unsqueeze(1)  # [B*M, 1, Q, T]
    out = (torch.cat(sampled, 3) * folded).sum(3)  # [B*M, D, Q]
    return out.reshape(batch, heads * channels, queries).transpose(1, 2)


def _sample_plane(
    plane: Tensor,  # [B*M, D, H, W]
    grid: Tensor,  # [B*M, Q, P, 2]
) -> Tensor:  # [B*M, D, Q, P]
    return grid_sample(plane, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _gather_bilinear(
    value: Tensor,  # [B, S, M, D]
    levels: Levels,  # L pairs (H, W)
    locations: Tensor,  # [B, Q, M, T, 2]
    weights: Tensor,  # [B, Q, M, T]
    points: Sequence[int],  # L counts, sum T
) -> Tensor:  # [B, Q, M*D]
    heads = value.shape[2]
    height, width, start = _point_geometry(levels, points, value.device)
    vectors, origin = _pixel_vectors(value), _origins(value, start)
    xs = _axis_corners(locations[..., 0], width)
    ys = _axis_corners(locations[..., 1], height)
    corners = [
        _weighted_sum(vectors, origin + (y * width + x) * heads, x_in & y_in, wx * wy * weights)
        for y, wy, y_in in ys
        for x, wx, x_in in xs
    ]
    return corners[0] + corners[1] + corners[2] + corners[3]


def _gather_discrete(
    value: Tensor,  # [B, S, M, D]
    levels: Levels,  # L pairs (H, W)
    locations: Tensor,  # [B, Q, M, T, 2]
    weights: Tensor,  # [B, Q, M, T]
    points: Sequence[int],  # L counts, sum T
) -> Tensor:  # [B, Q, M*D]
    heads = value.shape[2]
    height, width, start = _point_geometry(levels, points, value.device)
    x, y = locations[..., 0], locations[..., 1]  # [B, Q, M, T]
    finite = torch.isfinite(x) & torch.isfinite(y)
    x = _discrete_pixel(torch.where(finite, x, 0.0), width)
    y = _discrete_pixel(torch.where(finite, y, 0.0), height)
    index = _origins(value, start) + (y * width + x) * heads
    return _weighted_sum(_pixel_vectors(value), index, finite, weights)


def _axis_corners(
    coordinate: Tensor,  # [B, Q, M, T]
    size: Tensor,  # [T]
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """The two pixels around a point along an axis: number, weight, whether it is in the level."""
    position = _confine(coordinate) * size - 0.5
    low = position.floor()
    upper_weight = position - low
    lower = low.long()
    upper = lower + 1
    return [
        (lower, 1 - upper_weight, (lower >= 0) & (lower < size)),
        (upper, upper_weight, (upper >= 0) & (upper < size)),
    ]


def _discrete_pixel(
    coordinate: Tensor,  # [B, Q, M, T]
    size: Tensor,  # [T]
) -> Tensor:  # [B, Q, M, T]
    """``trunc(coordinate * size + 0.5)`` clamped to the border.

    Clamped twice: as a number, because a far coordinate overflows an integer, and as an integer, because the last pixel
    of a side of 2^24 or more may be no float32. The cast between truncates.
    """
    position = (coordinate * size + 0.5).clamp(min=0)
    return torch.minimum(torch.minimum(position, size.to(position.dtype)).long(), size - 1)


def _confine(coordinate: Tensor) -> Tensor:
    """Non-finite and far coordinates moved to -1.

    Points from -0.5 to 1.5 can touch a level, whatever its size: a point moved stays outside, and
    no pixel number overflows an integer.
    """
    return torch.where(coordinate.abs() < 2, coordinate, -1.0)


def _pixel_vectors(
    value: Tensor,  # [B, S, M, D]
) -> Tensor:  # [B*S*M + 1, D]
    """The channels of each pixel and head, then a vector of zeros for all that lies outside.

    Reading zeros is cheaper than masking what was read, and lets no NaN through.
    """
    vectors = value.flatten(0, 2)
    return torch.cat([vectors, vectors.new_zeros((1, value.shape[3]))])


def _origins(
    value: Tensor,  # [B, S, M, D]
    start: Tensor,  # [T], first pixel of the level
) -> Tensor:  # [B, 1, M, T]
    """The index among the vectors of the top-left pixel of each point's level."""
    batch, pixels, heads, _ = value.shape
    image = torch.arange(batch, device=value.device)[:, None, None, None]
    head = torch.arange(heads, device=value.device)[:, None]
    return (image * pixels + start) * heads + head


def _weighted_sum(
    vectors: Tensor,  # [N + 1, D]
    index: Tensor,  # [B, Q, M, T]
    inside: Tensor,  # [B, Q, M, T]; False reads the vector of zeros
    weights: Tensor,  # [B, Q, M, T]
) -> Tensor:  # [B, Q, M*D]
    """Sum of weighted vectors over T.

    Not a matrix product, which runtimes and autocast may compute in TF32 or half precision.
    """
    batch, queries, heads, points = index.shape
    index = torch.where(inside, index, vectors.shape[0] - 1)
    pixels = vectors.index_select(0, index.flatten()).to(weights.dtype)
    pixels = pixels.view(batch * queries * heads, points, vectors.shape[1])
    weighted = pixels * weights.flatten(0, 2).unsqueeze(2)
    return weighted.sum(1).view(batch, queries, heads * vectors.shape[1])


def _locations(
    levels: Levels,  # L pairs (H, W)
    reference: Tensor,  # [B, Q, 1|L, 2|4]
    offsets: Tensor,  # [B, Q, M, T, 2]
    points: Sequence[int],  # L counts, sum T
    offset_scale: float,
) -> Tensor:  # [B, Q, M, T, 2]
    """As :func:`.reference.locations_from_offsets`, for all levels at once."""
    device = offsets.device
    if reference.shape[2] != 1:
        level_of = _per_point(range(len(points)), points, device)
        reference = reference.index_select(2, level_of)
    reference = reference.unsqueeze(2)  # [B, Q, 1, 1|T, 2|4]
    if reference.shape[-1] == 2:
        height, width, _ = _point_geometry(levels, points, device)
        return reference + offsets / torch.stack([width, height], 1)
    scales = [offset_scale / max(count, 1) for count in points]
    scale = _per_point(scales, points, device, offsets.dtype).unsqueeze(1)
    return reference[..., :2] + offsets * (reference[..., 2:] * scale)


def _point_geometry(
    levels: Levels, points: Sequence[int], device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Height, width and first pixel of the level each of the T points lies on, int64 [T] each."""
    if isinstance(levels, Tensor):
        level_of = _per_point(range(len(points)), points, levels.device)
        area = levels[:, 0] * levels[:, 1]
        start = area.cumsum(0) - area
        columns = (levels[:, 0], levels[:, 1], start)
        height, width, start = (column.index_select(0, level_of).to(device) for column in columns)
        return height, width, start
    heights, widths = zip(*levels, strict=True)
    starts = accumulate((h * w for h, w in levels[:-1]), initial=0)
    height, width, start = (
        _per_point(column, points, device) for column in (heights, widths, starts)
    )
    return height, width, start


def _per_point(
    per_level: Iterable[float],  # L numbers
    points: Sequence[int],  # L counts, sum T
    device: torch.device,
    dtype: torch.dtype = torch.int64,
) -> Tensor:  # [T]
    """Each level's number, repeated for its points.

    Built of ``full`` because ``tensor`` warns under torch.jit.trace.
    """
    parts = [
        torch.full((count,), number, dtype=dtype, device=device)
        for number, count in zip(per_level, points, strict=True)
    ]
    return torch.cat(parts)


_LOWERINGS = {
    ("bilinear", "gather"): _gather_bilinear,
    ("bilinear", "grid_sample"): _grid_sample_bilinear,
    ("discrete", "gather"): _gather_discrete,
    ("discrete", "grid_sample"): _gather_discrete,
}
