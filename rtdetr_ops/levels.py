# SPDX-License-Identifier: Apache-2.0
"""The geometry arguments every entry shares: the feature pyramid ``levels`` and the point counts ``points``."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import TypeAlias

import torch
from torch import Tensor

__all__ = [
    "Levels",
    "check_level_start_index",
    "host_levels",
    "level_count",
    "normalize_levels",
    "normalize_points",
]

Levels: TypeAlias = Sequence[Sequence[int]] | Tensor
"""L pairs (H, W): host integers, or the classic int64 tensor [L, 2]."""


def normalize_levels(levels: Levels, pixels: int) -> Levels:
    """Check ``levels`` against S = ``pixels`` and return a tuple of (H, W), or the tensor when it must stay one.

    A tensor in host memory becomes integers. A tensor on an accelerator, or one that a compiler traces, stays a tensor:
    reading it would synchronize or break the graph.

    Raises:
        TypeError: ``levels`` is not a sequence of integer pairs or an int64 tensor.
        ValueError: a shape is not [L, 2], a size is not positive, or the sizes do not add up to S.
    """
    if isinstance(levels, Tensor):
        _check_level_tensor(levels)
        if levels.device.type != "cpu" or torch.compiler.is_compiling():
            return levels
        levels = levels.tolist()
    try:
        sizes = tuple((height, width) for height, width in levels)
    except (TypeError, ValueError):
        raise TypeError(
            f"levels: expected L pairs (H, W) of ints or an int64 tensor [L, 2], got {levels!r}"
        ) from None
    _check_sizes(sizes, pixels)
    return sizes


def host_levels(levels: Levels) -> Sequence[tuple[int, int]]:
    """``levels`` as host integers; a tensor on an accelerator is copied back, which waits for it."""
    return levels.tolist() if isinstance(levels, Tensor) else levels  # type: ignore[return-value]


def level_count(levels: Levels) -> int:
    return levels.shape[0] if isinstance(levels, Tensor) else len(levels)


def normalize_points(
    points: int | Sequence[int] | None, level_total: int, point_total: int
) -> tuple[int, ...]:
    """One point count per level.

    Args:
        points: the same count for every level, one count per level (0 allowed), or None to divide T evenly.
        level_total: L.
        point_total: T, the sum of the counts.

    Raises:
        TypeError: a count is not an integer.
        ValueError: counts are negative, are not L in number, or do not add up to T.
    """
    if points is None:
        if level_total == 0 or point_total % level_total:
            raise ValueError(
                f"points: T={point_total} does not divide evenly over L={level_total} levels; pass one count per level"
            )
        return (point_total // level_total,) * level_total
    counts = points if isinstance(points, Sequence) else (points,) * level_total
    if not all(isinstance(count, int) and not isinstance(count, bool) for count in counts):
        raise TypeError(f"points: expected an int or one int per level, got {points!r}")
    if len(counts) != level_total:
        raise ValueError(f"points: expected {level_total} counts, one per level, got {len(counts)}")
    if any(count < 0 for count in counts):
        raise ValueError(f"points: expected counts >= 0, got {list(counts)}")
    if sum(counts) != point_total:
        raise ValueError(
            f"points: expected counts that add up to T={point_total}, got {list(counts)}"
        )
    return tuple(counts)


def check_level_start_index(levels: Levels, level_start_index: Tensor) -> None:
    """Refuse start indices that ``levels`` do not imply, where looking is free: in host memory, outside a trace.

    Raises:
        ValueError: a start index is not the number of pixels of the levels before it.
    """
    tensors = [item for item in (levels, level_start_index) if isinstance(item, Tensor)]
    if torch.compiler.is_compiling() or any(item.device.type != "cpu" for item in tensors):
        return
    sizes = [(height, width) for height, width in host_levels(levels)]
    expected = [0, *accumulate(height * width for height, width in sizes)][:-1]
    actual = torch.as_tensor(level_start_index).tolist()
    if actual != expected:
        raise ValueError(
            f"level_start_index: expected {expected}, as levels of {sizes} imply, got {actual}"
        )


def _check_level_tensor(levels: Tensor) -> None:
    if levels.dtype != torch.int64:
        raise TypeError(f"levels: expected an int64 tensor, got {levels.dtype}")
    if levels.dim() != 2 or levels.shape[1] != 2:
        raise ValueError(f"levels: expected shape [L, 2], got {list(levels.shape)}")


def _check_sizes(sizes: tuple[tuple[int, int], ...], pixels: int) -> None:
    total = 0
    for size in sizes:
        for side in size:
            if not isinstance(side, (int, torch.SymInt)) and not torch.jit.is_tracing():
                raise TypeError(f"levels: expected pairs (H, W) of ints, got {size!r}")
            if side < 1:
                raise ValueError(f"levels: expected sizes (H, W) >= 1, got {size}")
        total += size[0] * size[1]
    if total != pixels:
        raise ValueError(
            f"levels: {list(sizes)} have {total} pixels in all, but value has S={pixels} (value is [B, S, M, D])"
        )
