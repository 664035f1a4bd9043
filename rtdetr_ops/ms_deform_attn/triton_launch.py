# SPDX-License-Identifier: Apache-2.0
"""The launches of the Triton kernels: the bodies of the registered operators.

Triton and the kernels are imported by the first launch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache, lru_cache
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import environment
from .operators import check_devices
from .reference import compute_dtype

__all__ = ["backward", "backward_fused", "forward", "forward_fused"]

FEW_QUERIES = 20_000
"""B*Q*M, the queries of all heads, that does not fill a device: less work for each warp then, and more of them."""


class _Block(NamedTuple):
    """What a program takes: numbers are queries times channels."""

    warps: int
    numbers_of_a_lane: dict[bool, int]  # by whether there are few queries


FORWARD = _Block(1, {False: 8, True: 2})
BACKWARD = _Block(2, {False: 4, True: 2})
"""More warps are slower on an H100; with one, the backward does not fit into the registers of sm_80."""

MAX_PIXELS = 2**30
"""Pixel indices inside an image are 32-bit in the kernels."""

EXACT = {"enable_fp_fusion": False}


class _Call:
    """The tensors of a call, made dense where the kernels need it, and the arguments all kernels share."""

    def __init__(
        self,
        value: Tensor,  # [B, S, M, D]
        levels: Sequence[int],  # H_0, W_0, ...
        level_sizes: Tensor | None,  # [L, 2]
        points_xy: Tensor,  # [B, Q, M, T, 2]
        point_scores: Tensor,  # [B, Q, M, T]
        points: Sequence[int],
        discrete: bool,
        reference: Tensor | None = None,  # [B, Q, 1|L, 2|4]
        offset_scale: float = 0.0,
        value_mask: Tensor | None = None,  # [B, S]
    ) -> None:
        fused = reference is not None
        others = {
            "levels": level_sizes,
            "reference": reference,
            "offsets" if fused else "locations": points_xy,
            "logits" if fused else "weights": point_scores,
            "value_mask": value_mask,
        }
        _check_memory(value, others)
        if value.shape[1] >= MAX_PIXELS:
            raise RuntimeError(f"value: expected S < 2^30 pixels, got S={value.shape[1]}")
        self.value = _dense_from(value, 3)
        self.points_xy, self.point_scores = _dense_from(points_xy, 3), _dense_from(point_scores, 3)
        self.reference = None if reference is None else reference.contiguous()
        self.mask = None if value_mask is None else value_mask.contiguous().view(torch.uint8)
        # Twice and one more, for Triton compiles anew for a number that is 1 or a multiple of 16.
        odd = tuple(2 * side + 1 for side in levels)
        self.sizes = odd if level_sizes is None else level_sizes.contiguous()
        self.batch, self.pixels, self.heads, self.channels = value.shape
        self.queries, self.taps = points_xy.shape[1], points_xy.shape[3]
        self.points = tuple(points)
        self.compute = compute_dtype(value)
        self.few_queries = self.batch * self.queries * self.heads <= FEW_QUERIES
        self.constants = _constants(
            self.points,
            self.channels,
            (1, 2) if reference is None else (reference.shape[2], reference.shape[3]),
            fused,
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
            self.points_xy,
            self.point_scores,
            absent if self.reference is None else self.reference,
            absent if self.mask is None else self.mask,
            self.sizes,
            self.queries,
            self.pixels,
            self.heads,
            *self.value.stride()[:3],
            *self.points_xy.stride()[:3],
            *self.point_scores.stride()[:3],
        )

    def new_output(self) -> Tensor:
        """[B, Q, M*D], uninitialized."""
        return self.value.new_empty((self.batch, self.queries, self.heads * self.channels))

    def launch(self, kernel: Any, block: _Block, *arguments: Any, **constants: Any) -> None:
        """Run ``kernel`` with one program for each block of queries of each (b, m)."""
        constants = {**self.constants, **constants, **EXACT}
        block_d, lanes = constants["BLOCK_D"], _lanes(self.value.device)
        grid: Any = self.grid
        if environment.autotunes_triton():
            from .triton_tuning import tuned

            kernel = tuned(kernel, block_d, self.few_queries, lanes)
        else:
            numbers = block.warps * lanes * block.numbers_of_a_lane[self.few_queries]
            constants["num_warps"] = min(8, block.warps * max(1, block_d // numbers))
            constants["BLOCK_Q"] = _block_size(numbers, block_d)
            grid = self.grid(constants)
        with _current(self.value.device):
            kernel[grid](*arguments, **constants)

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
    call = _Call(value, levels, level_sizes, locations, weights, points, discrete)
    out = call.new_output()
    if out.numel():
        call.launch(_kernels().forward_kernel, FORWARD, out, *call.tensors())
    return out


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
    call = _Call(value, levels, level_sizes, offsets, logits, *shape)
    out = call.new_output()
    if out.numel():
        call.launch(_kernels().forward_kernel, FORWARD, out, *call.tensors())
    return out


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


def _backward(
    call: _Call, grad_output: Tensor, deterministic: bool, needs: tuple[bool, bool, bool, bool]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of value, points_xy, point_scores and reference; without elements where none is needed."""
    needs_value, needs_points_xy, needs_point_scores, needs_reference = needs
    _check_memory(call.value, {"grad_output": grad_output})
    none = call.value.new_empty(0)
    fused = call.reference is not None
    grad_out = grad_output.to(call.value.dtype).contiguous()
    taps = call.point_scores.shape  # [B, Q, M, T]
    records = (call.batch, call.heads, call.queries, call.taps, 4)
    scatters, recorded = needs_value and not deterministic, needs_value and deterministic

    def fresh(needed: bool, shape: Sequence[int], dtype: torch.dtype | None = None) -> Tensor:
        return call.value.new_empty(shape, dtype=dtype or call.compute) if needed else none

    sums = call.value.new_zeros(call.value.shape, dtype=call.compute) if scatters else none
    # Discrete mode has one corner; the other three belong to no pixel.
    no_pixel = call.batch * call.heads * (call.pixels + 1) - 1
    record_pixels = call.value.new_full(records, no_pixel, dtype=torch.int64) if recorded else none
    shares = fresh(recorded, records)
    grad_points_xy = fresh(needs_points_xy, (*taps, 2), call.points_xy.dtype)
    grad_locations = fresh(needs_reference, (*taps, 2))
    grad_point_scores = fresh(needs_point_scores, taps, call.point_scores.dtype)
    grad_attention = fresh(needs_point_scores, taps) if fused else grad_point_scores
    if grad_out.numel() and call.taps:
        call.launch(
            _kernels().backward_kernel,
            BACKWARD,
            grad_out,
            *call.tensors(),
            sums,
            record_pixels,
            shares,
            grad_points_xy,
            grad_locations,
            grad_attention,
            SCATTERS=scatters,
            RECORDS=recorded,
            POINTS_XY=needs_points_xy,
            LOCATIONS=needs_reference,
            ATTENTION=needs_point_scores,
        )
        if fused and needs_point_scores:
            _softmax_backward(call, grad_attention, grad_point_scores)
    grad_value = (
        _sum_records(call, grad_out, record_pixels, shares)
        if recorded
        else sums.to(call.value.dtype)
    )
    return (
        grad_value if needs_value else none,
        grad_points_xy,
        grad_point_scores,
        _sum_locations(call, grad_locations) if needs_reference else none,
    )


def _softmax_backward(call: _Call, grad_attention: Tensor, grad_logits: Tensor) -> None:
    vectors = call.batch * call.queries * call.heads
    block_t = call.constants["BLOCK_T"]
    block_r = _block_size(1024, block_t)
    with _current(call.value.device):
        _kernels().softmax_backward_kernel[(_blocks(vectors, block_r),)](
            grad_logits,
            grad_attention,
            call.point_scores,
            call.queries,
            vectors,
            call.heads,
            *call.point_scores.stride()[:3],
            T=call.taps,
            BLOCK_R=block_r,
            BLOCK_T=block_t,
            A=call.constants["A"],
            **EXACT,
        )


def _sum_records(call: _Call, grad_out: Tensor, record_pixels: Tensor, shares: Tensor) -> Tensor:
    """Gradient of value from records: a stable sort brings those of a pixel together, in the order of the taps."""
    grad_value = torch.empty_like(call.value, memory_format=torch.contiguous_format)
    if not record_pixels.numel():
        return grad_value.zero_()
    ordered, order = torch.sort(record_pixels.flatten(), stable=True)
    pixels = torch.arange(
        call.batch * call.heads * (call.pixels + 1), device=ordered.device, dtype=ordered.dtype
    )
    begins = torch.searchsorted(ordered, pixels)
    block_d = call.constants["BLOCK_D"]
    block_s = _block_size(512, block_d)
    grid = (call.batch * call.heads * _blocks(call.pixels, block_s),)
    with _current(call.value.device):
        _kernels().deterministic_value_kernel[grid](
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
        offsets = torch.split(call.points_xy.to(call.compute), list(call.points), 3)
        # Numbers, not a tensor of them: making one on the device would wait for it.
        counted = zip(call.constants["FACTORS"], offsets, strict=True)
        steps = torch.cat([factor * offset for factor, offset in counted], 3)
        parts.append(torch.where(grad_locations == 0, 0.0, grad_locations * steps))
    grads = torch.cat(parts, -1).sum(2)  # [B, Q, T, 2|4]
    levels = [grads] if served == 1 else torch.split(grads, list(call.points), 2)
    return torch.stack([level.sum(2) for level in levels], 2).to(call.reference.dtype)


def _check_memory(value: Tensor, others: Mapping[str, Tensor | None]) -> None:
    """What a kernel may take: memory that is there, on the device of ``value``."""
    check_devices(value, others)
    for name, tensor in {"value": value, **others}.items():
        # A storage can be freed under its tensors, as FSDP does by untyped_storage().resize_(0).
        # Tensors on meta have none by nature: a kernel that is compiled and not launched takes them.
        if tensor is not None and tensor.numel() and not tensor.data_ptr() and not tensor.is_meta:
            raise RuntimeError(
                f"{name}: expected a tensor with memory, got one whose storage was freed"
            )


def _dense_from(tensor: Tensor, axis: int) -> Tensor:
    """The tensor itself where its axes from ``axis`` on lie without gaps and its numbers are aligned, else a copy."""
    if tensor.data_ptr() % tensor.element_size():  # torch.frombuffer can start anywhere
        return tensor.clone(memory_format=torch.contiguous_format)
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
    reference_shape: tuple[int, int],  # 1 or L, 2 or 4
    fused: bool,
    discrete: bool,
    has_mask: bool,
    sizes_on_device: bool,
    offset_scale: float,
    compute: torch.dtype,
) -> dict[str, Any]:
    """What is compiled in."""
    import triton
    import triton.language as tl

    taps = sum(points)
    return {
        "POINTS": points,
        "FIRST_TAPS": tuple(accumulate(points, initial=0))[:-1],
        "FACTORS": tuple(offset_scale / max(count, 1) for count in points),
        "T": taps,
        "D": channels,
        "REFERENCE_LEVELS": reference_shape[0],
        "COORDS": reference_shape[1],
        "FUSED": fused,
        "DISCRETE": discrete,
        "HAS_MASK": has_mask,
        "SIZES_ON_DEVICE": sizes_on_device,
        "BLOCK_D": triton.next_power_of_2(channels),
        "BLOCK_T": triton.next_power_of_2(max(taps, 1)),
        "A": tl.float64 if compute == torch.float64 else tl.float32,
    }


def _block_size(numbers: int, width: int) -> int:
    if environment.TRITON_INTERPRETED:  # its time goes by operations, not by numbers
        numbers = 4096
    return max(1, numbers // width)


def _blocks(numbers: int, block: int) -> int:
    return -(-numbers // block)


@lru_cache
def _lanes(device: torch.device) -> int:
    """Of a warp: 32, or 64 on some AMD GPUs."""
    if environment.TRITON_INTERPRETED:
        return 32
    import triton

    with _current(device):
        return int(triton.runtime.driver.active.get_current_target().warp_size)


def _current(device: torch.device) -> AbstractContextManager[object]:
    """Makes a GPU the current one, for Triton launches there."""
    if device.type != "cuda" or device.index == torch.cuda.current_device():
        return nullcontext()
    return torch.cuda.device(device)


@cache
def _kernels() -> Any:
    """The device code."""
    from . import triton_kernels

    return triton_kernels
