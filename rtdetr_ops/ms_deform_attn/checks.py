# SPDX-License-Identifier: Apache-2.0
"""Argument checks of both entries: one sentence naming the argument, what was expected and what came."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real

import torch
from torch import Tensor

from ..levels import Levels, level_count, normalize_levels, normalize_points
from ..tensors import describe

__all__ = [
    "MODES",
    "check_fused_inputs",
    "check_grad_output",
    "check_inputs",
    "check_mode",
    "check_scale",
    "expand_reference",
    "flatten_points",
]

MODES = ("bilinear", "discrete")

LARGEST_SCALE = 2**1000

DTYPES = frozenset({torch.float64, torch.float32, torch.bfloat16, torch.float16})
DTYPE_NAMES = "a tensor of float64, float32, bfloat16 or float16"


def check_inputs(
    value: Tensor,  # [B, S, M, D]
    levels: Levels,  # L pairs (H, W)
    locations: Tensor,  # [B, Q, M, T, 2] or [B, Q, M, L, P, 2]
    weights: Tensor,  # [B, Q, M, T] or [B, Q, M, L, P]
    points: int | Sequence[int] | None,
    mode: str,
) -> tuple[Levels, Tensor, Tensor, tuple[int, ...]]:
    """Levels, locations [B, Q, M, T, 2], weights [B, Q, M, T] and one point count per level."""
    return _check_points(value, levels, "locations", locations, "weights", weights, points, mode)


def check_fused_inputs(
    value: Tensor,  # [B, S, M, D]
    levels: Levels,  # L pairs (H, W)
    reference: Tensor,  # [1|B, 1|Q, 1|L, 2|4]
    offsets: Tensor,  # [B, Q, M, T, 2] or [B, Q, M, L, P, 2]
    logits: Tensor,  # [B, Q, M, T] or [B, Q, M, L, P]
    points: int | Sequence[int] | None,
    mode: str,
    offset_scale: float,
    value_mask: Tensor | None,  # [1|B, S]
) -> tuple[Levels, Tensor, Tensor, Tensor, tuple[int, ...], Tensor | None]:
    """Levels, reference [B, Q, 1|L, 2|4], offsets [B, Q, M, T, 2], logits [B, Q, M, T], counts, mask [B, S]."""
    levels, offsets, logits, counts = _check_points(
        value, levels, "offsets", offsets, "logits", logits, points, mode
    )
    _check_float("reference", reference, value)
    _check_reference(reference, offsets, len(counts))
    check_scale(offset_scale)
    if value_mask is not None:
        _check_mask(value_mask, value)
        if value_mask.shape[0] != value.shape[0]:
            value_mask = value_mask.expand(value.shape[:2])
    return levels, expand_reference(reference, offsets), offsets, logits, counts, value_mask


def flatten_points(
    pair: Tensor,  # [B, Q, M, T, 2] or [B, Q, M, L, P, 2]
    scalar: Tensor,  # [B, Q, M, T] or [B, Q, M, L, P]
) -> tuple[Tensor, Tensor]:  # [B, Q, M, T, 2], [B, Q, M, T]
    """The classic axes of levels and points as one."""
    if pair.dim() == 6:
        pair = pair.flatten(3, 4)
    return pair, scalar.flatten(3) if scalar.dim() == 5 else scalar


def expand_reference(
    reference: Tensor,  # [1|B, 1|Q, 1|L, 2|4]
    offsets: Tensor,  # [B, Q, ...]
) -> Tensor:  # [B, Q, 1|L, 2|4]
    """One reference that serves all images or all queries, as a reference of each."""
    batch, queries = offsets.shape[:2]
    if reference.shape[:2] == (batch, queries):
        return reference
    return reference.expand(batch, queries, -1, -1)


def check_grad_output(
    grad_output: Tensor,  # [B, Q, M*D]
    value: Tensor,  # [B, S, M, D]
    queries: int,
) -> None:
    """For who calls a backward by itself; autograd checks what it passes."""
    _check_float("grad_output", grad_output, value)
    batch, _, heads, channels = value.shape
    if grad_output.shape != (batch, queries, heads * channels):
        expected = f"[B={batch}, Q={queries}, M*D={heads * channels}]"
        raise ValueError(f"grad_output: expected shape {expected}, got {list(grad_output.shape)}")


def _check_points(
    value: Tensor,
    levels: Levels,
    pair_name: str,
    pair: Tensor,  # [B, Q, M, T, 2] or [B, Q, M, L, P, 2]
    scalar_name: str,
    scalar: Tensor,  # [B, Q, M, T] or [B, Q, M, L, P]
    points: int | Sequence[int] | None,
    mode: str,
) -> tuple[Levels, Tensor, Tensor, tuple[int, ...]]:
    check_mode(mode)
    _check_float("value", value, None)
    if value.dim() != 4:
        raise ValueError(f"value: expected shape [B, S, M, D], got {list(value.shape)}")
    batch, _, heads, channels = value.shape
    if heads < 1 or channels < 1:
        raise ValueError(f"value: expected [B, S, M >= 1, D >= 1], got {list(value.shape)}")
    levels = normalize_levels(levels, value)
    _check_float(pair_name, pair, value)
    _check_float(scalar_name, scalar, value)
    if pair.dim() == 6:
        _check_classic(pair_name, pair, level_count(levels))
    pair, scalar = flatten_points(pair, scalar)
    shape = pair.shape
    if len(shape) != 5 or shape[0] != batch or shape[2] != heads or shape[4] != 2:
        raise ValueError(
            f"{pair_name}: expected shape [B={batch}, Q, M={heads}, T, 2], got {list(shape)}"
        )
    if scalar.shape != shape[:4]:
        expected = f"[B={batch}, Q={shape[1]}, M={heads}, T={shape[3]}]"
        raise ValueError(
            f"{scalar_name}: expected shape {expected} as {pair_name}, got {list(scalar.shape)}"
        )
    return levels, pair, scalar, normalize_points(points, level_count(levels), shape[3])


def _check_classic(name: str, pair: Tensor, total: int) -> None:
    if pair.shape[3] != total:
        raise ValueError(
            f"{name}: expected shape [B, Q, M, L={total}, P, 2] (or [B, Q, M, T, 2]), got {list(pair.shape)}"
        )


def _check_reference(
    reference: Tensor,
    offsets: Tensor,  # [B, Q, M, T, 2]
    total: int,  # L
) -> None:
    batch, queries = offsets.shape[:2]
    shape = reference.shape
    if (
        len(shape) != 4
        or (shape[0] != batch and shape[0] != 1)
        or (shape[1] != queries and shape[1] != 1)
        or shape[2] not in (1, total)
        or shape[3] not in (2, 4)
    ):
        expected = f"[1 or B={batch}, 1 or Q={queries}, 1 or L={total}, 2 or 4]"
        raise ValueError(f"reference: expected shape {expected}, got {list(shape)}")


def _check_float(name: str, tensor: Tensor, value: Tensor | None) -> None:
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name}: expected a tensor, got {type(tensor).__name__}")
    if tensor.dtype not in DTYPES:
        raise TypeError(f"{name}: expected {DTYPE_NAMES}, got {tensor.dtype}")
    _check_dense(name, tensor)
    if value is not None and tensor.device != value.device:
        raise ValueError(f"{name}: expected device {value.device} as value, got {tensor.device}")


def _check_dense(name: str, tensor: Tensor) -> None:
    if tensor.layout != torch.strided:
        raise TypeError(f"{name}: expected a dense tensor, got one of layout {tensor.layout}")


def check_mode(mode: str) -> None:
    if not isinstance(mode, str) or mode not in MODES:
        expected = ", ".join(map(repr, MODES))
        raise ValueError(f"mode: expected one of {expected}, got {describe(mode)}")


def check_scale(offset_scale: object) -> None:
    # float first, for the question whether something is a Real is slow.
    number = isinstance(offset_scale, (float, Real, torch.SymFloat))
    if not number or isinstance(offset_scale, bool):
        raise TypeError(f"offset_scale: expected a number, got {describe(offset_scale)}")
    if isinstance(offset_scale, int) and abs(offset_scale) > LARGEST_SCALE:
        raise ValueError(f"offset_scale: expected a number that is a float, got {offset_scale!r}")


def _check_mask(value_mask: Tensor, value: Tensor) -> None:
    if not isinstance(value_mask, Tensor) or value_mask.dtype != torch.bool:
        got = value_mask.dtype if isinstance(value_mask, Tensor) else type(value_mask).__name__
        raise TypeError(f"value_mask: expected a bool tensor, got {got}")
    _check_dense("value_mask", value_mask)
    batch, pixels = value.shape[:2]
    if value_mask.shape not in ((batch, pixels), (1, pixels)):
        raise ValueError(
            f"value_mask: expected shape [1 or B={batch}, S={pixels}], got {list(value_mask.shape)}"
        )
    if value_mask.device != value.device:
        raise ValueError(
            f"value_mask: expected device {value.device} as value, got {value_mask.device}"
        )
