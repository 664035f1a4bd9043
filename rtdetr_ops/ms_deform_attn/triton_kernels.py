# SPDX-License-Identifier: Apache-2.0
"""Triton kernels of both entries, forward and backward.

Letters: B batch, Q queries, M heads, L levels, P_l points on level l, T = sum of P_l, D channels per head, S = sum of
H_l*W_l. A tap is one sampling point of one (b, q, m). Blocks: q one BLOCK_Q of queries, d BLOCK_D >= D channels; shapes
stand behind the line that makes a block. The bar marks what a program loops over: it takes ``[b, m, q | t, d]``.

    value         [B, S, M, D]     channels contiguous, any other strides
    points_xy     [B, Q, M, T, 2]  locations, or offsets in the fused entry
    point_scores  [B, Q, M, T]     weights, or logits in the fused entry
    reference     [B, Q, 1|L, 2|4] reference points of the fused entry, contiguous
    sizes         2*H_0 + 1, 2*W_0 + 1, ...; or a pointer to int64 H_0, W_0, ... on the device

Sizes, counts of queries and of pixels are arguments, so that images of another size run the same kernel; counts of
points, D and what is asked for are compiled in. The channel axis is the fastest and no mask varies along it, which lets
the compiler load 16 bytes at a time and, on sm_90, add four floats with one instruction. Coordinates are computed as in
the reference, without contraction (``enable_fp_fusion=False``; a fused multiply-add is asked for by name).
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = [
    "backward_kernel",
    "deterministic_value_kernel",
    "forward_kernel",
    "softmax_backward_kernel",
]

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
def _softmax_terms(
    point_scores, score_offsets, in_range, FUSED: tl.constexpr, T: tl.constexpr, BLOCK_T: tl.constexpr, A: tl.constexpr,
):  # fmt: skip
    """Peak and sum of exponentials of the logits of each query."""
    peak = tl.zeros(in_range.shape, A)  # [q]
    total = tl.full(in_range.shape, 1.0, A)  # [q]
    if FUSED and T > 0:
        t = tl.arange(0, BLOCK_T)
        present = in_range[:, None] & (t < T)[None, :]  # [q, t]
        at = point_scores + score_offsets[:, None] + t[None, :]
        logits = tl.load(at, mask=present, other=float("-inf")).to(A)
        peak = tl.where(in_range, tl.max(logits, 1), 0.0)
        total = tl.sum(tl.exp(logits - peak[:, None]), 1)
    return peak, total


@triton.jit
def _attention(
    point_scores, score_offsets, in_range, t, peak, total, FUSED: tl.constexpr, A: tl.constexpr
):
    """Attention weight of tap t of each query."""
    x = tl.load(point_scores + score_offsets + t, mask=in_range, other=0.0).to(A)  # [q]
    if FUSED:
        x = _divide(tl.exp(x - peak), total)
    return x


@triton.jit
def _locate(
    points_xy, xy_offsets, reference, reference_offsets, in_range, t, level: tl.constexpr, height, width,
    FACTOR: tl.constexpr, COORDS: tl.constexpr, REFERENCE_LEVELS: tl.constexpr, FUSED: tl.constexpr, A: tl.constexpr,
):  # fmt: skip
    """Location of tap t of each query, and its derivative by the offset."""
    x = tl.load(points_xy + xy_offsets + 2 * t, mask=in_range, other=0.0).to(A)  # [q]
    y = tl.load(points_xy + xy_offsets + 2 * t + 1, mask=in_range, other=0.0).to(A)  # [q]
    step_x = tl.full(x.shape, 1.0, A)
    step_y = tl.full(x.shape, 1.0, A)
    if FUSED:
        at_reference = (
            reference + reference_offsets + (level if REFERENCE_LEVELS > 1 else 0) * COORDS
        )
        ax = tl.load(at_reference, mask=in_range, other=0.0).to(A)  # [q]
        ay = tl.load(at_reference + 1, mask=in_range, other=0.0).to(A)  # [q]
        if COORDS == 2:
            size_x = tl.full(x.shape, 1.0, A) * width.to(A)
            size_y = tl.full(x.shape, 1.0, A) * height.to(A)
            step_x = _divide(step_x, size_x)
            step_y = _divide(step_y, size_y)
            x = ax + _divide(x, size_x)
            y = ay + _divide(y, size_y)
        else:
            step_x = tl.load(at_reference + 2, mask=in_range, other=0.0).to(A) * FACTOR
            step_y = tl.load(at_reference + 3, mask=in_range, other=0.0).to(A) * FACTOR
            x = ax + x * step_x
            y = ay + y * step_y
    return x, y, step_x, step_y


@triton.jit
def _find_cell(x, y, in_range, height, width, DISCRETE: tl.constexpr, A: tl.constexpr):
    """Corner 0 as x and y, the fraction inside the cell, and whether the tap touches any pixel."""
    w = width.to(A)  # rounded from 2^24 on in float32
    h = height.to(A)
    if DISCRETE:
        touches = in_range & (x - x == 0) & (y - y == 0)  # NaN and infinity fail
        # Clamped twice: as a number, so that the cast cannot overflow, and as an integer, for the last pixel of a side
        # of 2^24 or more may be no float32.
        x = tl.minimum(tl.maximum(tl.where(touches, x * w + 0.5, 0.0), 0.0), w)
        y = tl.minimum(tl.maximum(tl.where(touches, y * h + 0.5, 0.0), 0.0), h)
    else:
        x = x * w - 0.5
        y = y * h - 0.5
        touches = in_range & (x > -1.0) & (x < w) & (y > -1.0) & (y < h)
        x = tl.where(touches, x, 0.0)
        y = tl.where(touches, y, 0.0)
    left = tl.floor(x)
    top = tl.floor(y)
    x0 = left.to(tl.int32)
    y0 = top.to(tl.int32)
    if DISCRETE:
        x0 = tl.minimum(x0, width - 1)
        y0 = tl.minimum(y0, height - 1)
    return x0, y0, x - left, y - top, touches


@triton.jit
def _corner(
    x0, y0, fx, fy, touches, c: tl.constexpr, height, width, first_pixel, image_mask,
    HAS_MASK: tl.constexpr, DISCRETE: tl.constexpr,
):  # fmt: skip
    """Pixel of corner c on the S axis, its bilinear weight, and whether it is there."""
    x = x0 + c % 2
    y = y0 + c // 2
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
def _load_pixels(
    head_value, pixel, inside, stride, d, D: tl.constexpr, BLOCK_D: tl.constexpr, A: tl.constexpr
):
    """Channels of a pixel of each query; what no point touches is not read and counts as 0."""
    at = head_value + pixel.to(tl.int64)[:, None] * stride + d[None, :]
    present = inside[:, None]
    if D != BLOCK_D:
        present = present & (d < D)[None, :]
    return tl.load(at, mask=present, other=0.0).to(A)  # [q, d]


@triton.jit(do_not_specialize=UNSPECIALIZED)
def forward_kernel(
    out,  # [B, Q, M, D]
    value,  # [B, S, M, D]
    points_xy,  # [B, Q, M, T, 2]
    point_scores,  # [B, Q, M, T]
    reference,  # [B, Q, 1|L, 2|4]
    mask,  # [B, S], uint8
    sizes,  # 2*L numbers, or a pointer to [L, 2]
    queries, pixels, heads,
    value_b, value_s, value_m, points_xy_b, points_xy_q, points_xy_m, point_scores_b, point_scores_q, point_scores_m,
    POINTS: tl.constexpr, FIRST_TAPS: tl.constexpr, FACTORS: tl.constexpr, T: tl.constexpr, D: tl.constexpr,
    COORDS: tl.constexpr, REFERENCE_LEVELS: tl.constexpr, FUSED: tl.constexpr, DISCRETE: tl.constexpr,
    HAS_MASK: tl.constexpr, SIZES_ON_DEVICE: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_D: tl.constexpr,
    BLOCK_T: tl.constexpr, A: tl.constexpr,
):  # fmt: skip
    """out[b, q, m] = sum over taps and corners of attention * weight * pixel, for [b, m, q | t, d]."""
    b, m, q, in_range = _place(queries, heads, BLOCK_Q)  # q, in_range [q]
    d = tl.arange(0, BLOCK_D)  # [d]
    xy_offsets = b * points_xy_b + q.to(tl.int64) * points_xy_q + m * points_xy_m  # [q]
    score_offsets = b * point_scores_b + q.to(tl.int64) * point_scores_q + m * point_scores_m  # [q]
    reference_offsets = (b * queries + q) * REFERENCE_LEVELS * COORDS  # [q]
    head_value = value + b * value_b + m * value_m
    image_mask = mask + b * pixels
    peak, total = _softmax_terms(point_scores, score_offsets, in_range, FUSED, T, BLOCK_T, A)
    sums = tl.zeros([BLOCK_Q, BLOCK_D], A)  # [q, d]
    reachable = _reachable(sizes, pixels, in_range, len(POINTS), SIZES_ON_DEVICE)
    first_pixel = 0
    for level in tl.static_range(len(POINTS)):
        height, width = _level_size(sizes, level, SIZES_ON_DEVICE)
        for point in range(POINTS[level]):
            t = FIRST_TAPS[level] + point
            attention = _attention(
                point_scores, score_offsets, in_range, t, peak, total, FUSED, A
            )  # [q]
            x, y, _, _ = _locate(
                points_xy, xy_offsets, reference, reference_offsets, in_range, t, level, height, width,
                FACTORS[level], COORDS, REFERENCE_LEVELS, FUSED, A,
            )  # fmt: skip
            x0, y0, fx, fy, touches = _find_cell(x, y, reachable, height, width, DISCRETE, A)
            for c in tl.static_range(1 if DISCRETE else 4):
                pixel, weight, inside = _corner(
                    x0, y0, fx, fy, touches, c, height, width, first_pixel, image_mask,
                    HAS_MASK, DISCRETE,
                )  # fmt: skip
                loaded = _load_pixels(head_value, pixel, inside, value_s, d, D, BLOCK_D, A)
                sums = tl.fma((attention * weight)[:, None] + tl.zeros_like(sums), loaded, sums)
        first_pixel += height * width
    if SIZES_ON_DEVICE:  # sizes that do not add up cannot be refused without waiting for the device
        sums = tl.where(reachable[:, None], sums, float("nan"))
    at = out + ((b * queries + q) * heads + m)[:, None] * D + d[None, :]
    tl.store(at, sums.to(out.dtype.element_ty), mask=in_range[:, None] & (d < D)[None, :])


@triton.jit(do_not_specialize=UNSPECIALIZED)
def backward_kernel(
    grad_out,  # [B, Q, M, D]
    value,  # [B, S, M, D]
    points_xy,  # [B, Q, M, T, 2]
    point_scores,  # [B, Q, M, T]
    reference,  # [B, Q, 1|L, 2|4]
    mask,  # [B, S], uint8
    sizes,  # 2*L numbers, or a pointer to [L, 2]
    queries, pixels, heads,
    value_b, value_s, value_m, points_xy_b, points_xy_q, points_xy_m, point_scores_b, point_scores_q, point_scores_m,
    sums,  # [B, S, M, D]
    record_pixels,  # [B, M, Q, T, 4]
    shares,  # [B, M, Q, T, 4]
    grad_points_xy,  # [B, Q, M, T, 2]
    grad_locations,  # [B, Q, M, T, 2]
    grad_attention,  # [B, Q, M, T]
    POINTS: tl.constexpr, FIRST_TAPS: tl.constexpr, FACTORS: tl.constexpr, T: tl.constexpr, D: tl.constexpr,
    COORDS: tl.constexpr, REFERENCE_LEVELS: tl.constexpr, FUSED: tl.constexpr, DISCRETE: tl.constexpr,
    HAS_MASK: tl.constexpr, SIZES_ON_DEVICE: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_D: tl.constexpr,
    BLOCK_T: tl.constexpr, A: tl.constexpr,
    SCATTERS: tl.constexpr, RECORDS: tl.constexpr, POINTS_XY: tl.constexpr, LOCATIONS: tl.constexpr,
    ATTENTION: tl.constexpr,
):  # fmt: skip
    """Gradients of the taps, and of value into sums or records, for [b, m, q | t, d].

    Several queries touch a pixel: SCATTERS adds to ``sums`` [B, S, M, D] atomically. RECORDS writes instead, for each
    corner [B, M, Q, T, 4], its pixel (its number among the B*M*(S+1), the last of each (b, m) for none) and its weight.
    """
    b, m, q, in_range = _place(queries, heads, BLOCK_Q)  # q, in_range [q]
    d = tl.arange(0, BLOCK_D)  # [d]
    xy_offsets = b * points_xy_b + q.to(tl.int64) * points_xy_q + m * points_xy_m  # [q]
    score_offsets = b * point_scores_b + q.to(tl.int64) * point_scores_q + m * point_scores_m  # [q]
    reference_offsets = (b * queries + q) * REFERENCE_LEVELS * COORDS  # [q]
    head_value = value + b * value_b + m * value_m
    head_sums = sums + (b * pixels * heads + m) * D
    image_mask = mask + b * pixels
    tap_offsets = ((b * queries + q) * heads + m) * T  # [q]
    record_offsets = ((b * heads + m) * queries + q) * T * 4  # [q]
    no_pixel = (b * heads + m) * (pixels + 1) + pixels
    peak, total = _softmax_terms(point_scores, score_offsets, in_range, FUSED, T, BLOCK_T, A)
    grad_vectors = grad_out + ((b * queries + q) * heads + m)[:, None] * D + d[None, :]
    grad = tl.load(grad_vectors, mask=in_range[:, None] & (d < D)[None, :], other=0.0).to(
        A
    )  # [q, d]
    reachable = _reachable(sizes, pixels, in_range, len(POINTS), SIZES_ON_DEVICE)
    first_pixel = 0
    for level in tl.static_range(len(POINTS)):
        height, width = _level_size(sizes, level, SIZES_ON_DEVICE)
        for point in range(POINTS[level]):
            t = FIRST_TAPS[level] + point
            attention = _attention(
                point_scores, score_offsets, in_range, t, peak, total, FUSED, A
            )  # [q]
            x, y, step_x, step_y = _locate(
                points_xy, xy_offsets, reference, reference_offsets, in_range, t, level, height, width,
                FACTORS[level], COORDS, REFERENCE_LEVELS, FUSED, A,
            )  # fmt: skip
            x0, y0, fx, fy, touches = _find_cell(x, y, reachable, height, width, DISCRETE, A)
            by_attention = tl.zeros([BLOCK_Q], A)
            by_x = tl.zeros([BLOCK_Q], A)
            by_y = tl.zeros([BLOCK_Q], A)
            for c in tl.static_range(1 if DISCRETE else 4):
                pixel, weight, inside = _corner(
                    x0, y0, fx, fy, touches, c, height, width, first_pixel, image_mask,
                    HAS_MASK, DISCRETE,
                )  # fmt: skip
                if POINTS_XY or LOCATIONS or ATTENTION:
                    loaded = _load_pixels(head_value, pixel, inside, value_s, d, D, BLOCK_D, A)
                    dot = tl.sum(grad * loaded, 1)  # [q, d] -> [q]
                    by_attention += weight * dot
                    by_x += (fy if c // 2 else 1.0 - fy) * (dot if c % 2 else -dot)
                    by_y += (fx if c % 2 else 1.0 - fx) * (dot if c // 2 else -dot)
                share = attention * weight  # [q]
                if SCATTERS:
                    at = head_sums + pixel.to(tl.int64)[:, None] * (heads * D) + d[None, :]
                    present = inside[:, None]
                    if D != BLOCK_D:
                        present = present & (d < D)[None, :]
                    tl.atomic_add(at, share[:, None] * grad, mask=present, sem="relaxed")
                if RECORDS:
                    pixel_index = tl.where(inside, no_pixel - pixels + pixel, no_pixel)
                    tl.store(record_pixels + record_offsets + 4 * t + c, pixel_index, mask=in_range)
                    tl.store(shares + record_offsets + 4 * t + c, share, mask=in_range)
            moves = touches & (not DISCRETE)
            by_x = tl.where(moves, attention * width.to(A) * by_x, 0.0)
            by_y = tl.where(moves, attention * height.to(A) * by_y, 0.0)
            at = 2 * (tap_offsets + t)
            if LOCATIONS:
                tl.store(grad_locations + at, by_x, mask=in_range)
                tl.store(grad_locations + at + 1, by_y, mask=in_range)
            if POINTS_XY:
                if FUSED:
                    by_x = _chain(by_x, step_x)
                    by_y = _chain(by_y, step_y)
                tl.store(
                    grad_points_xy + at, by_x.to(grad_points_xy.dtype.element_ty), mask=in_range
                )
                tl.store(
                    grad_points_xy + at + 1, by_y.to(grad_points_xy.dtype.element_ty), mask=in_range
                )
            if ATTENTION:
                by_attention = by_attention.to(grad_attention.dtype.element_ty)
                tl.store(grad_attention + tap_offsets + t, by_attention, mask=in_range)
        first_pixel += height * width


@triton.jit(do_not_specialize=["queries", "vectors"])
def softmax_backward_kernel(
    grad_logits,  # [B, Q, M, T]
    grad_attention,  # [B, Q, M, T]
    logits,  # [B, Q, M, T]
    queries, vectors, heads, logits_b, logits_q, logits_m,
    T: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_T: tl.constexpr, A: tl.constexpr,
):  # fmt: skip
    """Gradient of the logits: attention * (its gradient - mean), the mean over t, for [r | t], r of B*Q*M vectors."""
    r = (tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)).to(tl.int64)  # [r]
    t = tl.arange(0, BLOCK_T)  # [t]
    present = (r < vectors)[:, None] & (t < T)[None, :]  # [r, t]
    at = r // heads // queries * logits_b + r // heads % queries * logits_q + r % heads * logits_m
    x = tl.load(logits + at[:, None] + t[None, :], mask=present, other=float("-inf")).to(A)
    peak = tl.where(r < vectors, tl.max(x, 1), 0.0)  # [r]
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
def deterministic_value_kernel(
    grad_value,  # [B, S, M, D]
    grad_out,  # [B, Q, M, D]
    order,  # [B*M*Q*T*4], records by pixel
    begins,  # [B*M*(S+1)], first record of each pixel
    shares,  # [B, M, Q, T, 4]
    queries, pixels, heads,
    T: tl.constexpr, D: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK_D: tl.constexpr, A: tl.constexpr,
):  # fmt: skip
    """grad_value[b, s, m] = sum, in order, of the records that name the pixel, for [b, m, s | record, d]."""
    b, m, s, in_range = _place(pixels, heads, BLOCK_S)  # s, in_range [s]
    d = tl.arange(0, BLOCK_D)  # [d]
    pixel_index = (b * heads + m) * (pixels + 1) + s  # [s]
    begin = tl.load(begins + pixel_index, mask=in_range, other=0)
    count = tl.load(begins + pixel_index + 1, mask=in_range, other=0) - begin
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
