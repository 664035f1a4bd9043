# SPDX-License-Identifier: Apache-2.0
"""Triton kernels of both entries, forward and backward, and their launches.

Letters: B batch, Q queries, M heads, L levels, P_l points on level l, T = sum of P_l, D channels per head, S = sum of
H_l*W_l. A tap is one sampling point of one (b, q, m). Blocks: q one BLOCK_Q of queries, d BLOCK_D >= D channels; shapes
stand behind the line that makes a block. The bar marks what a program loops over: it takes ``[b, m, q | t, d]``.

    value    [B, S, M, D]      channels contiguous, other strides as they come
    pairs    [B, Q, M, T, 2]   locations, or offsets in the fused entry
    scalars  [B, Q, M, T]      weights, or logits in the fused entry
    anchors  [B, Q, 1|L, 2|4]  reference points of the fused entry, contiguous
    sizes    2*H_0 + 1, 2*W_0 + 1, ...; or a pointer to int64 H_0, W_0, ... on the device

Sizes, counts of queries and of pixels are arguments, so that images of another size run the same kernel; counts of
points, D and what is asked for are compiled in. The channel axis is the fastest and no mask varies along it, which lets
the compiler load 16 bytes at a time and, on sm_90, add four floats with one instruction. Coordinates are computed as in
the reference, without contraction (``enable_fp_fusion=False``; a fused multiply-add is asked for by name).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import triton_tuning
from .triton_backend import INTERPRETED

__all__ = ["backward", "backward_fused", "forward", "forward_fused"]

UNSPECIALIZED = ["sizes", "queries", "pixels"]


@triton.jit
def _place(numbers, heads, BLOCK: tl.constexpr):
    """What a program takes: image, head and a block of queries or pixels, and which of those there are."""
    blocks = tl.cdiv(numbers, BLOCK)
    program = tl.program_id(0)
    m = (program // blocks % heads).to(tl.int64)
    b = (program // blocks // heads).to(tl.int64)
    block = program % blocks * BLOCK + tl.arange(0, BLOCK)
    return b, m, block, block < numbers


@triton.jit
def _level_size(sizes, level: tl.constexpr, SIZES_ON_DEVICE: tl.constexpr):
    """Height and width of a level."""
    if SIZES_ON_DEVICE:
        height = tl.load(sizes + 2 * level).to(tl.int32)
        width = tl.load(sizes + 2 * level + 1).to(tl.int32)
    else:
        height = sizes[2 * level] >> 1
        width = sizes[2 * level + 1] >> 1
    return height, width


@triton.jit
def _reachable(sizes, pixels, in_range, LEVELS: tl.constexpr, SIZES_ON_DEVICE: tl.constexpr):
    """Which queries may touch pixels: none if sizes on the device do not make up S. Numbers have been checked."""
    wrong = tl.zeros(in_range.shape, tl.int64)
    if SIZES_ON_DEVICE:
        rest = tl.zeros([], tl.int64) + pixels
        for level in tl.static_range(LEVELS):
            height = tl.load(sizes + 2 * level)
            width = tl.load(sizes + 2 * level + 1)
            wrong += ((height < 1) | (width < 1) | (height > pixels) | (width > pixels)).to(
                tl.int64
            )
            rest -= height * width
        wrong += tl.abs(rest)
    return in_range & (wrong == 0)


@triton.jit
def _divide(x, y):
    """Rounded to nearest, which ``/`` is not in float32."""
    return x / y if x.dtype == tl.float64 else tl.div_rn(x, y)


@triton.jit
def _chain(slope, factor):
    """A point that touches nothing has slope 0, also where the other factor is not finite."""
    return tl.where(slope == 0, slope, slope * factor)


@triton.jit
def _softmax_of_rows(
    scalars, scalar_rows, in_range, FUSED: tl.constexpr, T: tl.constexpr, BLOCK_T: tl.constexpr, A: tl.constexpr,
):  # fmt: skip
    """Peak and sum of exponentials of the logits of each query."""
    peak = tl.zeros(in_range.shape, A)  # [q]
    total = tl.full(in_range.shape, 1.0, A)  # [q]
    if FUSED and T > 0:
        t = tl.arange(0, BLOCK_T)
        present = in_range[:, None] & (t < T)[None, :]  # [q, t]
        at = scalars + scalar_rows[:, None] + t[None, :]
        logits = tl.load(at, mask=present, other=float("-inf")).to(A)
        peak = tl.where(in_range, tl.max(logits, 1), 0.0)
        total = tl.sum(tl.exp(logits - peak[:, None]), 1)
    return peak, total


@triton.jit
def _attention(
    scalars, scalar_rows, in_range, t, peak, total, FUSED: tl.constexpr, A: tl.constexpr
):
    """Attention weight of tap t of each query."""
    x = tl.load(scalars + scalar_rows + t, mask=in_range, other=0.0).to(A)  # [q]
    if FUSED:
        x = _divide(tl.exp(x - peak), total)
    return x


@triton.jit
def _locate(
    pairs, pair_rows, anchors, anchor_rows, in_range, t, level: tl.constexpr, height, width,
    FACTOR: tl.constexpr, COORDS: tl.constexpr, ANCHOR_LEVELS: tl.constexpr, FUSED: tl.constexpr, A: tl.constexpr,
):  # fmt: skip
    """Location of tap t of each query, and its derivative by the offset."""
    x = tl.load(pairs + pair_rows + 2 * t, mask=in_range, other=0.0).to(A)  # [q]
    y = tl.load(pairs + pair_rows + 2 * t + 1, mask=in_range, other=0.0).to(A)  # [q]
    step_x = tl.full(x.shape, 1.0, A)
    step_y = tl.full(x.shape, 1.0, A)
    if FUSED:
        anchor = anchors + anchor_rows + (level if ANCHOR_LEVELS > 1 else 0) * COORDS
        ax = tl.load(anchor, mask=in_range, other=0.0).to(A)  # [q]
        ay = tl.load(anchor + 1, mask=in_range, other=0.0).to(A)  # [q]
        if COORDS == 2:
            size_x = tl.full(x.shape, 1.0, A) * width.to(A)
            size_y = tl.full(x.shape, 1.0, A) * height.to(A)
            step_x = _divide(step_x, size_x)
            step_y = _divide(step_y, size_y)
            x = ax + _divide(x, size_x)
            y = ay + _divide(y, size_y)
        else:
            step_x = tl.load(anchor + 2, mask=in_range, other=0.0).to(A) * FACTOR
            step_y = tl.load(anchor + 3, mask=in_range, other=0.0).to(A) * FACTOR
            x = ax + x * step_x
            y = ay + y * step_y
    return x, y, step_x, step_y


@triton.jit
def _find_cell(x, y, in_range, height, width, DISCRETE: tl.constexpr, A: tl.constexpr):
    """Column and row of corner 0, the fraction inside the cell, and whether the tap touches any pixel."""
    w = width.to(A)
    h = height.to(A)
    if DISCRETE:
        touches = in_range & (x - x == 0) & (y - y == 0)  # NaN and infinity fail
        x = tl.minimum(tl.maximum(tl.where(touches, x * w + 0.5, 0.0), 0.0), w - 1.0)
        y = tl.minimum(tl.maximum(tl.where(touches, y * h + 0.5, 0.0), 0.0), h - 1.0)
    else:
        x = x * w - 0.5
        y = y * h - 0.5
        touches = in_range & (x > -1.0) & (x < w) & (y > -1.0) & (y < h)
        x = tl.where(touches, x, 0.0)
        y = tl.where(touches, y, 0.0)
    x0 = tl.floor(x)
    y0 = tl.floor(y)
    return x0.to(tl.int32), y0.to(tl.int32), x - x0, y - y0, touches


@triton.jit
def _corner(
    column, row, fx, fy, touches, c: tl.constexpr, height, width, first_pixel, image_mask,
    HAS_MASK: tl.constexpr, DISCRETE: tl.constexpr,
):  # fmt: skip
    """Pixel of corner c on the S axis, its bilinear weight, and whether it is there."""
    x = column + c % 2
    y = row + c // 2
    pixel = first_pixel + y * width + x  # [q]
    inside = touches & (x >= 0) & (x < width) & (y >= 0) & (y < height)
    if HAS_MASK:
        inside = inside & (tl.load(image_mask + pixel, mask=inside, other=0) != 0)
    if DISCRETE:
        weight = tl.full(fx.shape, 1.0, fx.dtype)
    else:
        weight = (fx if c % 2 else 1.0 - fx) * (fy if c // 2 else 1.0 - fy)
    return pixel, weight, inside


@triton.jit
def _load_rows(
    rows, pixel, inside, stride, d, D: tl.constexpr, BLOCK_D: tl.constexpr, A: tl.constexpr
):
    """Channels of a pixel of each query; what nobody may touch is not read and counts as 0."""
    at = rows + pixel.to(tl.int64)[:, None] * stride + d[None, :]
    present = inside[:, None]
    if D != BLOCK_D:
        present = present & (d < D)[None, :]
    return tl.load(at, mask=present, other=0.0).to(A)  # [q, d]


@triton.jit(do_not_specialize=UNSPECIALIZED)
def forward_kernel(
    out, value, pairs, scalars, anchors, mask, sizes, queries, pixels, heads,
    value_b, value_s, value_m, pairs_b, pairs_q, pairs_m, scalars_b, scalars_q, scalars_m,
    POINTS: tl.constexpr, FIRST_TAPS: tl.constexpr, FACTORS: tl.constexpr, T: tl.constexpr, D: tl.constexpr,
    COORDS: tl.constexpr, ANCHOR_LEVELS: tl.constexpr, FUSED: tl.constexpr, DISCRETE: tl.constexpr,
    HAS_MASK: tl.constexpr, SIZES_ON_DEVICE: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_D: tl.constexpr,
    BLOCK_T: tl.constexpr, A: tl.constexpr,
):  # fmt: skip
    """out[b, q, m] = sum over taps and corners of attention * weight * value row, for [b, m, q | t, d]."""
    b, m, q, in_range = _place(queries, heads, BLOCK_Q)  # q, in_range [q]
    d = tl.arange(0, BLOCK_D)  # [d]
    pair_rows = b * pairs_b + q.to(tl.int64) * pairs_q + m * pairs_m  # [q]
    scalar_rows = b * scalars_b + q.to(tl.int64) * scalars_q + m * scalars_m  # [q]
    anchor_rows = (b * queries + q) * ANCHOR_LEVELS * COORDS  # [q]
    rows = value + b * value_b + m * value_m
    image_mask = mask + b * pixels
    peak, total = _softmax_of_rows(scalars, scalar_rows, in_range, FUSED, T, BLOCK_T, A)
    sums = tl.zeros([BLOCK_Q, BLOCK_D], A)  # [q, d]
    reachable = _reachable(sizes, pixels, in_range, len(POINTS), SIZES_ON_DEVICE)
    first_pixel = 0
    for level in tl.static_range(len(POINTS)):
        height, width = _level_size(sizes, level, SIZES_ON_DEVICE)
        for point in range(POINTS[level]):
            t = FIRST_TAPS[level] + point
            attention = _attention(scalars, scalar_rows, in_range, t, peak, total, FUSED, A)  # [q]
            x, y, _, _ = _locate(
                pairs, pair_rows, anchors, anchor_rows, in_range, t, level, height, width,
                FACTORS[level], COORDS, ANCHOR_LEVELS, FUSED, A,
            )  # fmt: skip
            column, row, fx, fy, touches = _find_cell(x, y, reachable, height, width, DISCRETE, A)
            for c in tl.static_range(1 if DISCRETE else 4):
                pixel, weight, inside = _corner(
                    column, row, fx, fy, touches, c, height, width, first_pixel, image_mask,
                    HAS_MASK, DISCRETE,
                )  # fmt: skip
                loaded = _load_rows(rows, pixel, inside, value_s, d, D, BLOCK_D, A)
                sums = tl.fma((attention * weight)[:, None] + tl.zeros_like(sums), loaded, sums)
        first_pixel += height * width
    if SIZES_ON_DEVICE:  # sizes that do not add up cannot be refused without waiting for the device
        sums = tl.where(reachable[:, None], sums, float("nan"))
    at = out + ((b * queries + q) * heads + m)[:, None] * D + d[None, :]
    tl.store(at, sums.to(out.dtype.element_ty), mask=in_range[:, None] & (d < D)[None, :])


@triton.jit(do_not_specialize=UNSPECIALIZED)
def backward_kernel(
    grad_out, value, pairs, scalars, anchors, mask, sizes, queries, pixels, heads,
    value_b, value_s, value_m, pairs_b, pairs_q, pairs_m, scalars_b, scalars_q, scalars_m,
    sums, owners, shares, grad_pairs, grad_locations, grad_attention,
    POINTS: tl.constexpr, FIRST_TAPS: tl.constexpr, FACTORS: tl.constexpr, T: tl.constexpr, D: tl.constexpr,
    COORDS: tl.constexpr, ANCHOR_LEVELS: tl.constexpr, FUSED: tl.constexpr, DISCRETE: tl.constexpr,
    HAS_MASK: tl.constexpr, SIZES_ON_DEVICE: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_D: tl.constexpr,
    BLOCK_T: tl.constexpr, A: tl.constexpr,
    SCATTERS: tl.constexpr, RECORDS: tl.constexpr, PAIRS: tl.constexpr, LOCATIONS: tl.constexpr,
    ATTENTION: tl.constexpr,
):  # fmt: skip
    """Gradients of the taps, and of value into sums or records, for [b, m, q | t, d].

    Several queries touch a pixel: SCATTERS adds to ``sums`` [B, S, M, D] atomically. RECORDS writes instead, for each
    corner [B, M, Q, T, 4], who owns it (its row among the B*M*(S+1), the last of each (b, m) for none) and its weight.
    """
    b, m, q, in_range = _place(queries, heads, BLOCK_Q)  # q, in_range [q]
    d = tl.arange(0, BLOCK_D)  # [d]
    pair_rows = b * pairs_b + q.to(tl.int64) * pairs_q + m * pairs_m  # [q]
    scalar_rows = b * scalars_b + q.to(tl.int64) * scalars_q + m * scalars_m  # [q]
    anchor_rows = (b * queries + q) * ANCHOR_LEVELS * COORDS  # [q]
    rows = value + b * value_b + m * value_m
    sum_rows = sums + (b * pixels * heads + m) * D
    image_mask = mask + b * pixels
    out_rows = ((b * queries + q) * heads + m) * T  # [q]
    record_rows = ((b * heads + m) * queries + q) * T * 4  # [q]
    nobody = (b * heads + m) * (pixels + 1) + pixels
    peak, total = _softmax_of_rows(scalars, scalar_rows, in_range, FUSED, T, BLOCK_T, A)
    grad_rows = grad_out + ((b * queries + q) * heads + m)[:, None] * D + d[None, :]
    grad = tl.load(grad_rows, mask=in_range[:, None] & (d < D)[None, :], other=0.0).to(A)  # [q, d]
    reachable = _reachable(sizes, pixels, in_range, len(POINTS), SIZES_ON_DEVICE)
    first_pixel = 0
    for level in tl.static_range(len(POINTS)):
        height, width = _level_size(sizes, level, SIZES_ON_DEVICE)
        for point in range(POINTS[level]):
            t = FIRST_TAPS[level] + point
            attention = _attention(scalars, scalar_rows, in_range, t, peak, total, FUSED, A)  # [q]
            x, y, step_x, step_y = _locate(
                pairs, pair_rows, anchors, anchor_rows, in_range, t, level, height, width,
                FACTORS[level], COORDS, ANCHOR_LEVELS, FUSED, A,
            )  # fmt: skip
            column, row, fx, fy, touches = _find_cell(x, y, reachable, height, width, DISCRETE, A)
            by_attention = tl.zeros([BLOCK_Q], A)
            by_x = tl.zeros([BLOCK_Q], A)
            by_y = tl.zeros([BLOCK_Q], A)
            for c in tl.static_range(1 if DISCRETE else 4):
                pixel, weight, inside = _corner(
                    column, row, fx, fy, touches, c, height, width, first_pixel, image_mask,
                    HAS_MASK, DISCRETE,
                )  # fmt: skip
                if PAIRS or LOCATIONS or ATTENTION:
                    loaded = _load_rows(rows, pixel, inside, value_s, d, D, BLOCK_D, A)
                    dot = tl.sum(grad * loaded, 1)  # [q, d] -> [q]
                    by_attention += weight * dot
                    by_x += (fy if c // 2 else 1.0 - fy) * (dot if c % 2 else -dot)
                    by_y += (fx if c % 2 else 1.0 - fx) * (dot if c // 2 else -dot)
                share = attention * weight  # [q]
                if SCATTERS:
                    at = sum_rows + pixel.to(tl.int64)[:, None] * (heads * D) + d[None, :]
                    present = inside[:, None]
                    if D != BLOCK_D:
                        present = present & (d < D)[None, :]
                    tl.atomic_add(at, share[:, None] * grad, mask=present, sem="relaxed")
                if RECORDS:
                    owner = tl.where(inside, nobody - pixels + pixel, nobody)
                    tl.store(owners + record_rows + 4 * t + c, owner, mask=in_range)
                    tl.store(shares + record_rows + 4 * t + c, share, mask=in_range)
            moves = touches & (not DISCRETE)
            by_x = tl.where(moves, attention * width.to(A) * by_x, 0.0)
            by_y = tl.where(moves, attention * height.to(A) * by_y, 0.0)
            at = 2 * (out_rows + t)
            if LOCATIONS:
                tl.store(grad_locations + at, by_x, mask=in_range)
                tl.store(grad_locations + at + 1, by_y, mask=in_range)
            if PAIRS:
                if FUSED:
                    by_x = _chain(by_x, step_x)
                    by_y = _chain(by_y, step_y)
                tl.store(grad_pairs + at, by_x.to(grad_pairs.dtype.element_ty), mask=in_range)
                tl.store(grad_pairs + at + 1, by_y.to(grad_pairs.dtype.element_ty), mask=in_range)
            if ATTENTION:
                by_attention = by_attention.to(grad_attention.dtype.element_ty)
                tl.store(grad_attention + out_rows + t, by_attention, mask=in_range)
        first_pixel += height * width


@triton.jit(do_not_specialize=["queries", "rows"])
def softmax_backward_kernel(
    grad_logits, grad_attention, logits, queries, rows, heads, logits_b, logits_q, logits_m,
    T: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_T: tl.constexpr, A: tl.constexpr,
):  # fmt: skip
    """Gradient of the logits: attention * (its gradient - mean), the mean over t, for [r | t], r of B*Q*M rows."""
    r = (tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)).to(tl.int64)  # [r]
    t = tl.arange(0, BLOCK_T)  # [t]
    present = (r < rows)[:, None] & (t < T)[None, :]  # [r, t]
    at = r // heads // queries * logits_b + r // heads % queries * logits_q + r % heads * logits_m
    x = tl.load(logits + at[:, None] + t[None, :], mask=present, other=float("-inf")).to(A)
    peak = tl.where(r < rows, tl.max(x, 1), 0.0)  # [r]
    x = tl.exp(x - peak[:, None])
    attention = _divide(x, tl.sum(x, 1)[:, None] + tl.zeros_like(x))  # [r, t]
    grad = tl.load(grad_attention + r[:, None] * T + t[None, :], mask=present, other=0.0)
    mean = tl.sum(attention * grad, 1)  # [r, t] -> [r]
    result = attention * (grad - mean[:, None])
    tl.store(
        grad_logits + r[:, None] * T + t[None, :],
        result.to(grad_logits.dtype.element_ty),
        mask=present,
    )


@triton.jit(do_not_specialize=["queries", "pixels"])
def own_value_kernel(
    grad_value, grad_out, order, begins, shares, queries, pixels, heads,
    T: tl.constexpr, D: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK_D: tl.constexpr, A: tl.constexpr,
):  # fmt: skip
    """grad_value[b, s, m] = sum, in order, of the records that name the pixel as owner, for [b, m, s | record, d]."""
    b, m, s, in_range = _place(pixels, heads, BLOCK_S)  # s, in_range [s]
    d = tl.arange(0, BLOCK_D)  # [d]
    owner = (b * heads + m) * (pixels + 1) + s  # [s]
    begin = tl.load(begins + owner, mask=in_range, other=0)
    count = tl.load(begins + owner + 1, mask=in_range, other=0) - begin
    sums = tl.zeros([BLOCK_S, BLOCK_D], A)  # [s, d]
    for i in range(tl.max(count, 0)):
        present = i < count
        record = tl.load(order + begin + i, mask=present, other=0)
        share = tl.load(shares + record, mask=present, other=0.0)
        q = record // (4 * T) % queries
        at = grad_out + ((b * queries + q) * heads + m)[:, None] * D + d[None, :]
        grad = tl.load(at, mask=present[:, None] & (d < D)[None, :], other=0.0).to(A)
        sums = tl.where(
            present[:, None], tl.fma(share[:, None] + tl.zeros_like(sums), grad, sums), sums
        )
    at = grad_value + ((b * pixels + s) * heads + m)[:, None] * D + d[None, :]
    tl.store(at, sums.to(grad_value.dtype.element_ty), mask=in_range[:, None] & (d < D)[None, :])


FEW_ROWS = 20_000
"""B*Q*M that does not fill a device: less work for each warp then, and more of them."""


class _Block(NamedTuple):
    """What a program takes: numbers are queries times channels."""

    warps: int
    numbers_of_a_lane: dict[bool, int]  # by whether there are few rows


FORWARD = _Block(1, {False: 8, True: 2})
BACKWARD = _Block(2, {False: 4, True: 2})
"""More warps are slower on an H100; with one, the backward does not fit into the registers of sm_80."""

EXACT = {"enable_fp_fusion": False}


class _Call:
    """The tensors of a call, made dense where the kernels need it, and the arguments all kernels share."""

    def __init__(
        self,
        value: Tensor,  # [B, S, M, D]
        levels: Sequence[int],  # H_0, W_0, ...
        level_sizes: Tensor | None,  # [L, 2]
        pairs: Tensor,  # [B, Q, M, T, 2]
        scalars: Tensor,  # [B, Q, M, T]
        points: Sequence[int],
        discrete: bool,
        reference: Tensor | None = None,  # [B, Q, 1|L, 2|4]
        offset_scale: float = 0.0,
        value_mask: Tensor | None = None,  # [B, S]
    ) -> None:
        self.value = _dense_from(value, 3)
        self.pairs, self.scalars = _dense_from(pairs, 3), _dense_from(scalars, 3)
        self.reference = None if reference is None else reference.contiguous()
        self.mask = None if value_mask is None else value_mask.contiguous().view(torch.uint8)
        # Twice and one more, for Triton compiles anew for a number that is 1 or a multiple of 16.
        odd = tuple(2 * side + 1 for side in levels)
        self.sizes = odd if level_sizes is None else level_sizes.contiguous()
        self.batch, self.pixels, self.heads, self.channels = value.shape
        self.queries, self.taps = pairs.shape[1], pairs.shape[3]
        self.points = tuple(points)
        self.compute = torch.float64 if value.dtype == torch.float64 else torch.float32
        self.few_rows = self.batch * self.queries * self.heads <= FEW_ROWS
        self.constants = _constants(
            self.points,
            self.channels,
            (1, 2) if reference is None else (reference.shape[2], reference.shape[3]),
            reference is not None,
            discrete,
            value_mask is not None,
            level_sizes is not None,
            offset_scale,
            self.compute,
        )

    def tensors(self) -> tuple[Any, ...]:
        """The arguments from ``value`` to the strides."""
        absent = self.value
        return (
            self.value,
            self.pairs,
            self.scalars,
            absent if self.reference is None else self.reference,
            absent if self.mask is None else self.mask,
            self.sizes,
            self.queries,
            self.pixels,
            self.heads,
            *self.value.stride()[:3],
            *self.pairs.stride()[:3],
            *self.scalars.stride()[:3],
        )

    def launch(self, kernel: Any, block: _Block, *arguments: Any, **constants: Any) -> None:
        """Run ``kernel`` with one program for each block of queries of each (b, m)."""
        constants = {**self.constants, **constants, **EXACT}
        block_d, lanes = constants["BLOCK_D"], _lanes(self.value.device)
        if triton_tuning.requested():
            kernel = triton_tuning.tuned(kernel, block_d, self.few_rows, lanes)
            kernel[self.grid](*arguments, **constants)
            return
        numbers = block.warps * lanes * block.numbers_of_a_lane[self.few_rows]
        constants["num_warps"] = min(8, block.warps * max(1, block_d // numbers))
        constants["BLOCK_Q"] = _rows_of_block(numbers, block_d)
        kernel[self.grid(constants)](*arguments, **constants)

    def grid(self, constants: dict[str, Any]) -> tuple[int]:
        return (self.batch * self.heads * _blocks(self.queries, constants["BLOCK_Q"]),)


def forward(
    value: Tensor,  # [B, S, M, D]
    levels: Sequence[int],
    level_sizes: Tensor | None,
    locations: Tensor,  # [B, Q, M, T, 2]
    weights: Tensor,  # [B, Q, M, T]
    points: Sequence[int],
    discrete: bool,
) -> Tensor:  # [B, Q, M*D]
    return _forward(_Call(value, levels, level_sizes, locations, weights, points, discrete))


def forward_fused(
    value: Tensor,  # [B, S, M, D]
    levels: Sequence[int],
    level_sizes: Tensor | None,
    reference: Tensor,  # [B, Q, 1|L, 2|4]
    offsets: Tensor,  # [B, Q, M, T, 2]
    logits: Tensor,  # [B, Q, M, T]
    points: Sequence[int],
    discrete: bool,
    offset_scale: float,
    value_mask: Tensor | None,  # [B, S]
) -> Tensor:  # [B, Q, M*D]
    shape = (points, discrete, reference, offset_scale, value_mask)
    return _forward(_Call(value, levels, level_sizes, offsets, logits, *shape))


def backward(
    grad_output: Tensor,  # [B, Q, M*D]
    value: Tensor,  # [B, S, M, D]
    levels: Sequence[int],
    level_sizes: Tensor | None,
    locations: Tensor,  # [B, Q, M, T, 2]
    weights: Tensor,  # [B, Q, M, T]
    points: Sequence[int],
    discrete: bool,
    deterministic: bool,
    needs_value: bool,
    needs_locations: bool,
    needs_weights: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    call = _Call(value, levels, level_sizes, locations, weights, points, discrete)
    needs = (needs_value, needs_locations, needs_weights, False)
    grad_value, grad_locations, grad_weights, _ = _backward(call, grad_output, deterministic, needs)
    return grad_value, grad_locations, grad_weights


def backward_fused(
    grad_output: Tensor,  # [B, Q, M*D]
    value: Tensor,  # [B, S, M, D]
    levels: Sequence[int],
    level_sizes: Tensor | None,
    reference: Tensor,  # [B, Q, 1|L, 2|4]
    offsets: Tensor,  # [B, Q, M, T, 2]
    logits: Tensor,  # [B, Q, M, T]
    points: Sequence[int],
    discrete: bool,
    offset_scale: float,
    value_mask: Tensor | None,  # [B, S]
    deterministic: bool,
    needs_value: bool,
    needs_reference: bool,
    needs_offsets: bool,
    needs_logits: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    shape = (points, discrete, reference, offset_scale, value_mask)
    call = _Call(value, levels, level_sizes, offsets, logits, *shape)
    needs = (needs_value, needs_offsets, needs_logits, needs_reference)
    grad_value, grad_offsets, grad_logits, grad_reference = _backward(
        call, grad_output, deterministic, needs
    )
    return grad_value, grad_reference, grad_offsets, grad_logits


def _forward(call: _Call) -> Tensor:
    shape = (call.batch, call.queries, call.heads * call.channels)
    out = call.value.new_empty(shape)
    if out.numel():
        call.launch(forward_kernel, FORWARD, out, *call.tensors())
    return out


def _backward(
    call: _Call, grad_output: Tensor, deterministic: bool, needs: tuple[bool, bool, bool, bool]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of value, pairs, scalars and reference; without elements where nobody needs one."""
    needs_value, needs_pairs, needs_scalars, needs_reference = needs
    none = call.value.new_empty(0)
    fused = call.reference is not None
    grad_out = grad_output.to(call.value.dtype).contiguous()
    taps = call.scalars.shape  # [B, Q, M, T]
    records = (call.batch, call.heads, call.queries, call.taps, 4)
    scatters, owned = needs_value and not deterministic, needs_value and deterministic

    def fresh(wanted: bool, shape: Sequence[int], dtype: torch.dtype | None = None) -> Tensor:
        return call.value.new_empty(shape, dtype=dtype or call.compute) if wanted else none

    sums = call.value.new_zeros(call.value.shape, dtype=call.compute) if scatters else none
    # Discrete mode has one corner; the other three belong to nobody.
    nobody = call.batch * call.heads * (call.pixels + 1) - 1
    owners = call.value.new_full(records, nobody, dtype=torch.int64) if owned else none
    shares = fresh(owned, records)
    grad_pairs = fresh(needs_pairs, (*taps, 2), call.pairs.dtype)
    grad_locations = fresh(needs_reference, (*taps, 2))
    grad_scalars = fresh(needs_scalars, taps, call.scalars.dtype)
    grad_attention = fresh(needs_scalars, taps) if fused else grad_scalars
    if grad_out.numel() and call.taps:
        call.launch(
            backward_kernel,
            BACKWARD,
            grad_out,
            *call.tensors(),
            sums,
            owners,
            shares,
            grad_pairs,
            grad_locations,
            grad_attention,
            SCATTERS=scatters,
            RECORDS=owned,
            PAIRS=needs_pairs,
            LOCATIONS=needs_reference,
            ATTENTION=needs_scalars,
        )
        if fused and needs_scalars:
            _softmax_backward(call, grad_attention, grad_scalars)
    grad_value = _sum_owned(call, grad_out, owners, shares) if owned else sums.to(call.value.dtype)
    return (
        grad_value if needs_value else none,
        grad_pairs,
        grad_scalars,
        _sum_locations(call, grad_locations) if needs_reference else none,
    )


def _softmax_backward(call: _Call, grad_attention: Tensor, grad_logits: Tensor) -> None:
    rows = call.batch * call.queries * call.heads
    block_t = call.constants["BLOCK_T"]
    block_r = _rows_of_block(1024, block_t)
    softmax_backward_kernel[(_blocks(rows, block_r),)](
        grad_logits,
        grad_attention,
        call.scalars,
        call.queries,
        rows,
        call.heads,
        *call.scalars.stride()[:3],
        T=call.taps,
        BLOCK_R=block_r,
        BLOCK_T=block_t,
        A=call.constants["A"],
        **EXACT,
    )


def _sum_owned(call: _Call, grad_out: Tensor, owners: Tensor, shares: Tensor) -> Tensor:
    """Gradient of value from records: a stable sort brings those of a pixel together, in the order of the taps."""
    grad_value = torch.empty_like(call.value, memory_format=torch.contiguous_format)
    if not owners.numel():
        return grad_value.zero_()
    ordered, order = torch.sort(owners.flatten(), stable=True)
    pixels = torch.arange(
        call.batch * call.heads * (call.pixels + 1), device=ordered.device, dtype=ordered.dtype
    )
    begins = torch.searchsorted(ordered, pixels)
    block_d = call.constants["BLOCK_D"]
    block_s = _rows_of_block(512, block_d)
    grid = (call.batch * call.heads * _blocks(call.pixels, block_s),)
    own_value_kernel[grid](
        grad_value,
        grad_out,
        order,
        begins,
        shares,
        call.queries,
        call.pixels,
        call.heads,
        T=call.taps,
        D=call.channels,
        BLOCK_S=block_s,
        BLOCK_D=block_d,
        A=call.constants["A"],
        **EXACT,
    )
    return grad_value


def _sum_locations(call: _Call, grad_locations: Tensor) -> Tensor:
    """Gradient of the reference: location = (x, y) + offset * step, summed over the points it serves."""
    assert call.reference is not None
    _, _, served, coords = call.reference.shape
    parts = [grad_locations]
    if coords == 4:
        offsets = call.pairs.to(call.compute).split(call.points, 3)
        # Numbers, not a tensor of them: making one on the device would wait for it.
        counted = zip(call.constants["FACTORS"], offsets, strict=True)
        steps = torch.cat([factor * offset for factor, offset in counted], 3)
        parts.append(torch.where(grad_locations == 0, 0.0, grad_locations * steps))
    grads = torch.cat(parts, -1).sum(2)  # [B, Q, T, 2|4]
    levels = [grads] if served == 1 else grads.split(call.points, 2)
    return torch.stack([level.sum(2) for level in levels], 2).to(call.reference.dtype)


def _dense_from(tensor: Tensor, axis: int) -> Tensor:
    """The tensor itself where its axes from ``axis`` on lie without gaps, else a copy."""
    stride = 1
    axes = zip(tensor.shape[axis:], tensor.stride()[axis:], strict=True)
    for size, actual in reversed(tuple(axes)):
        if size != 1 and actual != stride:
            return tensor.contiguous()
        stride *= size
    return tensor


@lru_cache(maxsize=256)
def _constants(
    points: tuple[int, ...],
    channels: int,
    anchor_shape: tuple[int, int],  # 1 or L, 2 or 4
    fused: bool,
    discrete: bool,
    has_mask: bool,
    sizes_on_device: bool,
    offset_scale: float,
    compute: torch.dtype,
) -> dict[str, Any]:
    """What is compiled in."""
    taps = sum(points)
    return {
        "POINTS": points,
        "FIRST_TAPS": tuple(accumulate(points, initial=0))[:-1],
        "FACTORS": tuple(offset_scale / max(count, 1) for count in points),
        "T": taps,
        "D": channels,
        "ANCHOR_LEVELS": anchor_shape[0],
        "COORDS": anchor_shape[1],
        "FUSED": fused,
        "DISCRETE": discrete,
        "HAS_MASK": has_mask,
        "SIZES_ON_DEVICE": sizes_on_device,
        "BLOCK_D": triton.next_power_of_2(channels),
        "BLOCK_T": triton.next_power_of_2(max(taps, 1)),
        "A": tl.float64 if compute == torch.float64 else tl.float32,
    }


def _rows_of_block(numbers: int, width: int) -> int:
    if INTERPRETED:  # its time goes by operations, not by numbers
        numbers = 4096
    return max(1, numbers // width)


def _blocks(numbers: int, block: int) -> int:
    return -(-numbers // block)


@lru_cache
def _lanes(device: torch.device) -> int:
    """Of a warp: 32, or 64 where AMD says so."""
    return 32 if INTERPRETED else int(triton.runtime.driver.active.get_current_target().warp_size)
