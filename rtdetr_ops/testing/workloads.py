# SPDX-License-Identifier: Apache-2.0
"""Named shapes of real detectors and seeded inputs for them, shared by tests and benchmarks.

Letters: B batch, Q queries, M heads, L levels, P_l points on level l, T sum of P_l, D channels per
head, S sum of H_l*W_l.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

__all__ = [
    "LARGE_WORKLOADS",
    "TINY",
    "WORKLOADS",
    "Inputs",
    "Offsets",
    "Workload",
    "find_workload",
    "make_inputs",
]

Offsets = Literal["ring", "uniform"]

NOISE = 2.0
"""Standard deviation, in pixels of the level, of the noise on the ring."""

BORDER_MARGIN = 1e-3
"""Distance, in pixels, that every point keeps from the lines where the sampled pixels change.

On such a line two correct implementations may round to different pixels, and gradients with
respect to locations jump. float32 on the largest level here is off by some 3e-5 pixels.
"""


@dataclass(frozen=True)
class Workload:
    """One call of the operator.

    Args:
        name: readable id.
        batch: B.
        queries: Q; equal to S for a self-attention encoder.
        heads: M.
        levels: L pairs (H, W).
        points: P_l, one count per level.
        channels: D.
        mode: ``"bilinear"`` or ``"discrete"``.
    """

    name: str
    batch: int
    queries: int
    heads: int
    levels: tuple[tuple[int, int], ...]
    points: tuple[int, ...]
    channels: int
    mode: str = "bilinear"

    @property
    def pixels(self) -> int:
        """S."""
        return sum(height * width for height, width in self.levels)

    @property
    def taps(self) -> int:
        """T."""
        return sum(self.points)

    @property
    def is_encoder(self) -> bool:
        """Whether every pixel of the pyramid is a query."""
        return self.queries == self.pixels

    @property
    def is_ragged(self) -> bool:
        """Whether the levels have different point counts."""
        return len(set(self.points)) > 1

    def __str__(self) -> str:
        shape = f"B{self.batch}-Q{self.queries}-M{self.heads}-T{self.taps}"
        return f"{shape}-D{self.channels}-S{self.pixels}"


class Inputs(NamedTuple):
    """Tensors of one call; ``value``, ``locations`` and ``weights`` require gradients."""

    value: Tensor  # [B, S, M, D]
    locations: Tensor  # [B, Q, M, T, 2]
    weights: Tensor  # [B, Q, M, T], sum over T is 1
    grad_out: Tensor  # [B, Q, M*D]

    @property
    def leaves(self) -> tuple[Tensor, Tensor, Tensor]:
        """The differentiable tensors, in the order of the operator's arguments."""
        return self.value, self.locations, self.weights


_RTDETR_640 = ((80, 80), (40, 40), (20, 20))
_DEFORMABLE_800x1333 = ((100, 167), (50, 84), (25, 42), (13, 21))
_MASK2FORMER_1024 = ((128, 128), (64, 64), (32, 32))

WORKLOADS = (
    Workload("decoder_b1", 1, 300, 8, _RTDETR_640, (4, 4, 4), 32),
    Workload("decoder_b8", 8, 300, 8, _RTDETR_640, (4, 4, 4), 32),
    Workload("encoder_800x1333", 1, 22_223, 8, _DEFORMABLE_800x1333, (4, 4, 4, 4), 32),
    Workload("mask2former_1024", 1, 21_504, 8, _MASK2FORMER_1024, (4, 4, 4), 32),
    Workload("decoder_ragged", 1, 300, 8, _RTDETR_640, (3, 6, 3), 32),
    Workload("decoder_discrete", 1, 300, 8, _RTDETR_640, (4, 4, 4), 32, "discrete"),
)

_BEVFORMER_928x1600 = ((116, 200), (58, 100), (29, 50), (15, 25))

LARGE_WORKLOADS = (
    Workload("decoder_b32", 32, 300, 8, _RTDETR_640, (4, 4, 4), 32),
    Workload("encoder_800x1333_b2", 2, 22_223, 8, _DEFORMABLE_800x1333, (4, 4, 4, 4), 32),
    # BEVFormer base: six cameras with ten thousand bird's-eye cells each, and the grid of cells on itself.
    Workload("bevformer_spatial", 6, 10_000, 8, _BEVFORMER_928x1600, (8, 8, 8, 8), 32),
    Workload("bevformer_temporal", 2, 40_000, 8, ((200, 200),), (4,), 32),
)
"""Too large to time on a CPU."""

TINY = Workload("tiny", 1, 3, 2, ((4, 5), (2, 3)), (2, 2), 8)
"""Too small to measure a kernel with: what is left is the cost of the call."""


def find_workload(name: str) -> Workload:
    """The workload of that name.

    Raises:
        ValueError: there is none.
    """
    known = {workload.name: workload for workload in (*WORKLOADS, *LARGE_WORKLOADS, TINY)}
    if name not in known:
        raise ValueError(f"workload: expected one of {', '.join(known)}, got {name!r}")
    return known[name]


def make_inputs(
    workload: Workload, dtype: torch.dtype = torch.float32, seed: int = 0, offsets: Offsets = "ring"
) -> Inputs:
    """Seeded inputs; the same numbers for every ``dtype``, rounded to it.

    Locations stay float32 for 16-bit storage: a 16-bit coordinate cannot name a pixel of a large
    level.

    Args:
        workload: the shape.
        dtype: of ``value``, ``weights`` and ``grad_out``.
        seed: of the generator.
        offsets: ``"ring"`` puts the points on the rings that Deformable DETR starts from, plus some
            pixels of normal noise, around the query's own pixel (encoder) or a random box center
            (decoder): neighboring queries share pixels, as in a trained detector. ``"uniform"``
            spreads them over the whole level: the hardest case for caches.

    Raises:
        ValueError: ``offsets`` is neither.
    """
    random = torch.Generator().manual_seed(seed)
    batch, heads, channels = workload.batch, workload.heads, workload.channels
    value = _normal((batch, workload.pixels, heads, channels), random)
    weights = _normal((batch, workload.queries, heads, workload.taps), random).softmax(-1)
    grad_out = _normal((batch, workload.queries, heads * channels), random)
    if offsets not in _LOCATIONS:
        raise ValueError(f"offsets: expected one of 'ring', 'uniform', got {offsets!r}")
    locations = _away_from_pixel_borders(_LOCATIONS[offsets](workload, random), workload)
    coordinate = torch.promote_types(dtype, torch.float32)
    return Inputs(
        value.to(dtype).requires_grad_(),
        locations.to(coordinate).requires_grad_(),
        weights.to(dtype).requires_grad_(),
        grad_out.to(dtype),
    )


def _ring_locations(workload: Workload, random: torch.Generator) -> Tensor:  # [B, Q, M, T, 2]
    centers = _pixel_centers(workload) if workload.is_encoder else _box_centers(workload, random)
    ring = _ring(workload)  # [M, T, 2]
    noise = _normal((workload.batch, workload.queries, *ring.shape), random) * NOISE
    return centers[:, :, None, None] + (ring + noise) / _tap_sizes(workload)


def _uniform_locations(workload: Workload, random: torch.Generator) -> Tensor:  # [B, Q, M, T, 2]
    shape = (workload.batch, workload.queries, workload.heads, workload.taps, 2)
    return torch.rand(shape, generator=random, dtype=torch.float64)


_LOCATIONS = {"ring": _ring_locations, "uniform": _uniform_locations}


def _ring(workload: Workload) -> Tensor:  # [M, T, 2], pixels
    """Head m looks in direction 2*pi*m/M, its p-th point p+1 pixels (of the larger axis) away."""
    angle = torch.arange(workload.heads, dtype=torch.float64) * (2 * math.pi / workload.heads)
    direction = torch.stack([angle.cos(), angle.sin()], -1)  # [M, 2]
    direction = direction / direction.abs().amax(-1, keepdim=True)
    radius = torch.cat([torch.arange(1, count + 1) for count in workload.points])  # [T]
    return direction[:, None] * radius[:, None]


def _pixel_centers(workload: Workload) -> Tensor:  # [1, S, 2], 0..1 over the image
    grids = []
    for height, width in workload.levels:
        y = (torch.arange(height, dtype=torch.float64) + 0.5) / height
        x = (torch.arange(width, dtype=torch.float64) + 0.5) / width
        grids.append(torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).flatten(0, 1))
    return torch.cat(grids)[None]


def _box_centers(workload: Workload, random: torch.Generator) -> Tensor:  # [B, Q, 2]
    return torch.rand((workload.batch, workload.queries, 2), generator=random, dtype=torch.float64)


def _away_from_pixel_borders(
    locations: Tensor,  # [B, Q, M, T, 2]
    workload: Workload,
) -> Tensor:  # [B, Q, M, T, 2]
    """Both modes change pixels where ``location * size`` + 0.5 is an integer: keep clear of it."""
    sizes = _tap_sizes(workload)
    shifted = locations * sizes + 0.5
    whole = shifted.floor()
    return (whole + (shifted - whole).clamp(BORDER_MARGIN, 1 - BORDER_MARGIN) - 0.5) / sizes


def _tap_sizes(workload: Workload) -> Tensor:  # [T, 2]
    """(W, H) of the level each point lies on."""
    return torch.tensor(list(_sizes_per_tap(workload)), dtype=torch.float64)


def _sizes_per_tap(workload: Workload) -> Iterator[tuple[int, int]]:
    for (height, width), count in zip(workload.levels, workload.points, strict=True):
        yield from [(width, height)] * count


def _normal(shape: tuple[int, ...], random: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=random, dtype=torch.float64)
