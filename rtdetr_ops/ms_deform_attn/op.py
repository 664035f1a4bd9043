# SPDX-License-Identifier: Apache-2.0
"""The public entries of multi-scale deformable attention: check, choose a backend, run."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..backends import Backend, Explanation, explain_table, select
from ..levels import Levels
from . import compiled, portable, triton_backend
from . import reference as definition
from .checks import check_fused_inputs, check_inputs
from .export_form import should_lower

__all__ = ["BACKENDS", "explain", "ms_deform_attn", "ms_deform_attn_fused"]

BACKENDS = (
    Backend("cuda", compiled.OPERATORS, compiled.CUDA),
    Backend("cpu", compiled.OPERATORS, compiled.CPU),
    Backend("triton", triton_backend.OPERATORS, triton_backend.TRITON),
    Backend("reference", definition, definition.SUPPORT),
)
"""In order of preference."""


def ms_deform_attn(
    value: Tensor,
    levels: Levels,
    locations: Tensor,
    weights: Tensor,
    *,
    points: int | Sequence[int] | None = None,
    mode: str = "bilinear",
    backend: str | None = None,
) -> Tensor:
    """Multi-scale deformable attention: a weighted sum of points sampled from a feature pyramid.

    Sums ``weights[b, q, m, t] * sample(value[b, level(t), m], locations[b, q, m, t])`` over the T points of each head.
    B batch, Q queries, M heads, L levels, D channels per head, S = sum of H*W, T = sum of the point counts.

    Args:
        value: [B, S, M, D], the flattened pyramid, levels in order, the pixels of a level in raster order.
        levels: L pairs (H, W), or an integer tensor [L, 2].
        locations: [B, Q, M, T, 2], (x, y) in units of the level: (0, 0) its top-left, (1, 1) its bottom-right corner;
            points of level 0 first. The classic [B, Q, M, L, P, 2] is accepted.
        weights: [B, Q, M, T] attention weights, or the classic [B, Q, M, L, P].
        points: points per level: an int, or one count per level (0 allowed). None divides T evenly.
        mode: ``"bilinear"`` (zeros outside, ``align_corners=False``) or ``"discrete"`` (RT-DETRv2:
            ``trunc(location * size + 0.5)`` clamped to the border; no gradient to ``locations``).
        backend: a name of the table of backends; None takes the first that can run, and in a graph being exported
            the portable operators that :func:`export_form` chooses.

    Any mix of float64, float32, bfloat16 and float16. Coordinates and sums are float32 (float64 for a float64 value),
    the result has the dtype of ``value``. A non-finite location contributes 0 and gets gradient 0. Differentiable once
    in ``value``, ``locations`` and ``weights``.

    Returns:
        [B, Q, M*D], dtype of ``value``.

    Raises:
        TypeError, ValueError: an argument is malformed; the message names it, what was expected and what came.
        RuntimeError: the backend asked for cannot run this call; the message says why. Or memory is missing on the CPU.
        torch.OutOfMemoryError: memory is missing on a GPU; a RuntimeError of the same words in a compiled graph.

    Source: Deformable DETR (Zhu et al., 2021), eq. 3; RT-DETRv2 (Lv et al., 2024), sec. 3, for per-level counts and
    discrete sampling.
    """
    levels, locations, weights, counts = check_inputs(
        value, levels, locations, weights, points, mode
    )
    if backend is None and should_lower():
        return portable.run(value, levels, locations, weights, counts, mode)
    implementation = select(BACKENDS, backend, value).implementation
    return implementation.run(value, levels, locations, weights, counts, mode)


def ms_deform_attn_fused(
    value: Tensor,
    levels: Levels,
    reference: Tensor,
    offsets: Tensor,
    logits: Tensor,
    *,
    points: int | Sequence[int] | None = None,
    mode: str = "bilinear",
    offset_scale: float = 0.5,
    value_mask: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """Multi-scale deformable attention from the raw outputs of the projections: softmax and locations are inside.

    The weights are one softmax of ``logits`` over all T points of a head. A 2-d reference gives
    ``location = reference + offset / (W, H)``; a 4-d reference (cx, cy, w, h) gives
    ``location = (cx, cy) + offset / P_l * (w, h) * offset_scale``.

    Args:
        value: [B, S, M, D], see :func:`ms_deform_attn`.
        levels: L pairs (H, W), or an integer tensor [L, 2].
        reference: [B, Q, L, 2 or 4], in 0..1 over the image; each of the first three axes may be 1 and then serves all
            images, queries or levels.
        offsets: [B, Q, M, T, 2], or the classic [B, Q, M, L, P, 2].
        logits: [B, Q, M, T], or the classic [B, Q, M, L, P].
        points: points per level: an int, or one count per level (0 allowed). None divides T evenly.
        mode: ``"bilinear"`` or ``"discrete"``.
        offset_scale: factor of a 4-d reference.
        value_mask: [B or 1, S] bool, True keeps a pixel, False makes it 0; None keeps all.
        backend: a name of the table of backends; None chooses as in :func:`ms_deform_attn`.

    Differentiable once in ``value``, ``reference``, ``offsets`` and ``logits``.

    Returns:
        [B, Q, M*D], dtype of ``value``.

    Raises:
        TypeError, ValueError, RuntimeError, torch.OutOfMemoryError: as :func:`ms_deform_attn`.

    Source: Deformable DETR (Zhu et al., 2021), app. A.3; RT-DETRv2 (Lv et al., 2024), sec. 3.
    """
    levels, reference, offsets, logits, counts, value_mask = check_fused_inputs(
        value, levels, reference, offsets, logits, points, mode, offset_scale, value_mask
    )
    run_fused = (
        portable.run_fused
        if backend is None and should_lower()
        else select(BACKENDS, backend, value).implementation.run_fused
    )
    return run_fused(
        value, levels, reference, offsets, logits, counts, mode, float(offset_scale), value_mask
    )


def explain(value: Tensor, *, backend: str | None = None) -> Explanation:
    """Which backend would run on a tensor, and why the others would not.

    Args:
        value: [B, S, M, D]; its device and dtype count, its shape does not.
        backend: as for :func:`ms_deform_attn`.

    Returns:
        An :class:`~rtdetr_ops.backends.Explanation`: ``.chosen``, ``.reasons``, and a line for each backend when it
        is printed.

    Raises:
        TypeError: ``value`` is not a tensor.
    """
    if not isinstance(value, Tensor):
        raise TypeError(f"value: expected a tensor, got {type(value).__name__}")
    return explain_table(BACKENDS, backend, value)
