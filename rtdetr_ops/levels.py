# SPDX-License-Identifier: Apache-2.0
"""The geometry arguments every entry shares: the feature pyramid ``levels`` and the point counts ``points``."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import accumulate
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch._subclasses import FakeTensor

from . import environment
from .tensors import describe, is_freed
from .tracing import is_jit_tracing, is_traced

__all__ = [
    "Levels",
    "as_integer",
    "check_level_start_index",
    "host_levels",
    "level_count",
    "normalize_levels",
    "normalize_points",
]

Levels: TypeAlias = Sequence[Sequence[int]] | Tensor
"""L pairs (H, W): host integers, or the classic integer tensor [L, 2]."""


def normalize_levels(levels: Levels, value: Tensor) -> Levels:
    """Check ``levels`` against S of ``value`` and return a tuple of (H, W), or the tensor when it must stay one.

    A tensor in host memory becomes integers. One on an accelerator, or one that is traced, stays a tensor (of int64):
    reading it would synchronize, break the graph or make its numbers constants.

    Args:
        levels: L pairs (H, W).
        value: [B, S, M, D].

    Raises:
        TypeError: ``levels`` is not a sequence of integer pairs or a tensor of integers.
        ValueError: a shape is not [L, 2], a size is not positive, the sizes do not add up to S, or there is no memory.
    """
    if isinstance(levels, Tensor):
        if _is_readable(levels):
            _check_memory("levels", levels)
        levels = _check_level_tensor(levels)
        if levels.device.type == "meta" and not _is_symbolic(levels):
            levels = _any_sizes(levels, value)
        elif not _is_readable(levels):
            return levels
        else:
            levels = levels.tolist()
    sizes = _read_sizes(levels)
    _check_sizes(sizes, value.shape[1])
    return sizes


def host_levels(levels: Levels) -> Sequence[tuple[int, int]]:
    """``levels`` as host integers; a tensor on an accelerator is copied back, which waits for it.

    torch.jit.trace takes tensors of no axes for integers, and only those stay inputs of its graph.
    """
    if not isinstance(levels, Tensor):
        return levels  # type: ignore[return-value]
    if is_jit_tracing():
        return [(height, width) for height, width in levels.unbind()]
    return levels.tolist()


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
    counts = as_counts("points", points, level_total)
    if sum(counts) != point_total:
        raise ValueError(
            f"points: expected counts that add up to T={point_total}, got {list(counts)}"
        )
    return counts


def as_counts(name: str, counts: object, level_total: int) -> tuple[int, ...]:
    """One count per level, from one for all levels or one for each.

    Raises:
        TypeError: a count is not an integer.
        ValueError: counts are negative or not L in number.
    """
    each: Sequence[object] = (counts,) * level_total
    if isinstance(counts, (tuple, list)):
        each = counts
    elif as_integer(counts) is None:
        with suppress(
            TypeError, RuntimeError
        ):  # neither an integer nor several; a tensor without memory
            each = tuple(counts)  # type: ignore[arg-type]
    integers = [integer for integer in map(as_integer, each) if integer is not None]
    if len(integers) != len(each):
        raise TypeError(f"{name}: expected an int or one int per level, got {describe(counts)}")
    if len(integers) != level_total:
        raise ValueError(
            f"{name}: expected {level_total} counts, one per level, got {len(integers)}"
        )
    if any(count < 0 for count in integers):
        raise ValueError(f"{name}: expected counts >= 0, got {integers}")
    return tuple(integers)


def as_integer(number: object) -> int | None:
    """An int from anything that serves as one, such as numpy's; None for anything else, a bool included."""
    if type(number) is int:
        return number
    if isinstance(number, bool):
        return None
    if isinstance(number, Tensor) and (
        number.dtype == torch.bool or number.device.type == "meta" or is_freed(number)
    ):
        return None
    try:
        return operator.index(number)  # type: ignore[arg-type]
    except TypeError:
        return None


def check_level_start_index(
    levels: Levels, level_start_index: Tensor | Sequence[int] | None
) -> None:
    """Refuse start indices that ``levels`` do not imply, where looking is free: in host memory, outside a trace.

    ``RTDETR_OPS_CHECK=1`` looks on accelerators too. None stands for what ``levels`` imply.

    Raises:
        TypeError: the start indices are neither a tensor nor anything else with several numbers.
        ValueError: a start index is not the number of pixels of the levels before it.
    """
    if level_start_index is None:
        return
    if not isinstance(level_start_index, Iterable):
        raise TypeError(
            f"level_start_index: expected an integer tensor [L], got {type(level_start_index).__name__}"
        )
    tensors = [item for item in (levels, level_start_index) if isinstance(item, Tensor)]
    if is_traced() or not all(map(_is_readable, tensors)):
        return
    for name, item in (("levels", levels), ("level_start_index", level_start_index)):
        if isinstance(item, Tensor):
            _check_memory(name, item)
    sizes = _read_sizes(levels.tolist() if isinstance(levels, Tensor) else levels)
    expected = [0, *accumulate(height * width for height, width in sizes)][:-1]
    start = level_start_index
    actual = start.tolist() if isinstance(start, Tensor) else list(start)
    if actual != expected:
        raise ValueError(
            f"level_start_index: expected {expected}, as levels of {list(sizes)} imply, got {actual}"
        )


def _is_symbolic(tensor: Tensor) -> bool:
    """Whether a tensor stands for others of its kind, so that nothing may depend on its numbers."""
    return is_traced() or isinstance(tensor, FakeTensor)


def _is_readable(tensor: Tensor) -> bool:
    """Whether reading the numbers of a tensor is possible and waits for no device, or was asked for."""
    kind = tensor.device.type
    return not _is_symbolic(tensor) and (kind == "cpu" or (environment.CHECK and kind != "meta"))


def _check_memory(name: str, tensor: Tensor) -> None:
    if is_freed(tensor):
        raise ValueError(f"{name}: expected a tensor with memory, got one whose storage was freed")


def _check_level_tensor(levels: Tensor) -> Tensor:
    if levels.dim() != 2 or levels.shape[1] != 2:
        raise ValueError(f"levels: expected shape [L, 2], got {list(levels.shape)}")
    if levels.layout != torch.strided:
        raise TypeError(f"levels: expected a dense tensor, got one of layout {levels.layout}")
    if levels.dtype == torch.int64:
        return levels
    if levels.is_floating_point() or levels.is_complex() or levels.dtype == torch.bool:
        raise TypeError(f"levels: expected a tensor of integers, got {levels.dtype}")
    return levels.long()


def _any_sizes(levels: Tensor, value: Tensor) -> list[tuple[int, int]]:
    """Sizes for a meta tensor, which has none: they do not enter the shape, all that a result on meta has."""
    if value.device.type != "meta":
        raise ValueError(
            f"levels: expected a tensor with data, as value on {value.device} has, got one on meta"
        )
    rest = levels.shape[0] - 1
    return [(value.shape[1] - rest, 1)] + [(1, 1)] * rest


def _read_sizes(levels: Any) -> tuple[tuple[int, int], ...]:
    """Pairs of ints from host levels, converted only where they are something else that serves as an int."""
    try:
        sizes = tuple((height, width) for height, width in levels)
    except (TypeError, ValueError, RuntimeError):  # the last of a tensor without memory
        raise TypeError(
            f"levels: expected L pairs (H, W) of ints or an integer tensor [L, 2], got {describe(levels)}"
        ) from None
    if all(type(height) is int is type(width) for height, width in sizes):
        return sizes
    return tuple((_read_side(size[0], size), _read_side(size[1], size)) for size in sizes)


def _read_side(side: Any, size: tuple[Any, Any]) -> int:
    # A symbolic side stays one: under torch.jit.trace that is a tensor.
    integer = side if is_jit_tracing() or isinstance(side, torch.SymInt) else as_integer(side)
    if integer is None:
        raise TypeError(f"levels: expected pairs (H, W) of ints, got {describe(size)}")
    return integer


def _check_sizes(sizes: tuple[tuple[int, int], ...], pixels: int) -> None:
    total = 0
    for height, width in sizes:
        if height < 1 or width < 1:
            raise ValueError(f"levels: expected sizes (H, W) >= 1, got {(height, width)}")
        total += height * width
    if total != pixels:
        raise ValueError(
            f"levels: {list(sizes)} have {total} pixels in all, but value has S={pixels} (value is [B, S, M, D])"
        )
