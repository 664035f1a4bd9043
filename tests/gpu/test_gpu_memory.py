# SPDX-License-Identifier: Apache-2.0
"""Fresh memory is NaN in all these tests; tensors of more elements than an int32 can count."""

from __future__ import annotations

import pytest
import torch
from cases import RAGGED
from on_gpu import DEVICE, GpuTarget, forward_backward, poison
from torch import Tensor

from rtdetr_ops import ms_deform_attn, use_backend
from rtdetr_ops.patching.shim import ms_deform_attn_backward
from rtdetr_ops.testing.inputs import LAYOUTS, Call, Case, Fused, make_call

BEYOND = 2**31


def test_fresh_blocks_are_nan(cuda: str) -> None:
    """``poison`` works: otherwise the other tests prove less than they say."""
    poison()
    for size in (100, 100_000, 5_000_000):
        assert torch.empty(size, device=cuda).isnan().all()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_call_keeps_its_layout(layout: str) -> None:
    call = make_call(Case(RAGGED, fused=Fused(4, masked=True), layout=layout))
    moved = call.to(DEVICE)
    pairs = [(tensor, moved.tensors[name]) for name, tensor in call.tensors.items()]
    for tensor, there in (*pairs, (call.grad_out, moved.grad_out)):
        assert there.stride() == tensor.stride()
        assert torch.equal(there.cpu(), tensor)


def need(gibibytes: float) -> None:
    """Skip where so much memory is not free."""
    torch.cuda.empty_cache()
    free = torch.cuda.mem_get_info()[0] / 2**30
    if free < gibibytes:
        pytest.skip(f"needs {gibibytes} GiB of free GPU memory, {free:.0f} are")


def random(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """Uniform in 0..1; made on the device, in place, for it may be large."""
    generator = torch.Generator(DEVICE).manual_seed(0)
    return torch.empty(shape, dtype=dtype, device=DEVICE).uniform_(generator=generator)


def plain_call(
    value: Tensor, levels: tuple[tuple[int, int], ...], locations: Tensor, points: tuple[int, ...]
) -> Call:
    weights = random(*locations.shape[:4], dtype=value.dtype)
    options = {"levels": levels, "points": points, "mode": "bilinear"}
    channels = value.shape[2] * value.shape[3]
    grad_out = random(*locations.shape[:2], channels, dtype=value.dtype)
    tensors = {"value": value, "locations": locations, "weights": weights}
    return Call(ms_deform_attn, tensors, options, grad_out)


def results(call: Call, kernel: GpuTarget) -> dict[str, Tensor]:
    return dict(
        zip(("output", *call.tensors), forward_backward(call, kernel.backend)(), strict=True)
    )


def assert_parts_equal(whole: Tensor, part: Tensor) -> None:
    torch.testing.assert_close(whole, part, rtol=0, atol=0)


def test_value_of_many_images(kernel: GpuTarget, cuda: str, deterministic: None) -> None:
    """The last image lies beyond 2^31 elements; by itself it must give the same."""
    need(40)
    images, level = 17, (2048, 512)
    value = random(images, level[0] * level[1], 4, 32)
    assert value.numel() > BEYOND
    call = plain_call(value, (level,), random(images, 64, 4, 4, 2, dtype=torch.float32), (4,))
    whole = results(call, kernel)
    alone = Call(
        call.entry,
        {name: tensor[-1:] for name, tensor in call.tensors.items()},
        call.options,
        call.grad_out[-1:],
    )
    for name, part in results(alone, kernel).items():
        assert_parts_equal(whole[name][-1:], part)


def test_value_of_one_large_image(kernel: GpuTarget, cuda: str, deterministic: None) -> None:
    """The second level starts beyond 2^31 elements; by itself it must give the same."""
    need(40)
    large, small = (4160, 4096), (24, 40)
    pixels = small[0] * small[1]
    value = random(1, large[0] * large[1] + pixels, 4, 32)
    assert large[0] * large[1] * 4 * 32 > BEYOND
    locations = random(1, 64, 4, 4, 2, dtype=torch.float32)
    call = plain_call(value, (large, small), locations, (0, 4))
    whole = results(call, kernel)
    alone = Call(
        call.entry,
        call.tensors | {"value": value[:, -pixels:]},
        {**call.options, "levels": (small,), "points": (4,)},
        call.grad_out,
    )
    part = results(alone, kernel)
    assert_parts_equal(whole["value"][:, -pixels:], part["value"])
    assert not whole["value"][:, :-pixels].any()
    for name in ("output", "locations", "weights"):
        assert_parts_equal(whole[name], part[name])


def test_locations_of_many_queries(kernel: GpuTarget, cuda: str) -> None:
    """The last queries lie beyond 2^31 elements; by themselves they must give the same."""
    need(40)
    queries, points = 2**24 + 64, 64
    locations = random(1, queries, 1, points, 2, dtype=torch.float16)
    assert locations.numel() > BEYOND
    value = random(1, 64 * 64, 1, 1, dtype=torch.float16)
    call = plain_call(value, ((64, 64),), locations, (points,))
    whole = results(call, kernel)
    last = slice(-100, None)
    alone = Call(
        call.entry,
        {"value": value} | {n: call.tensors[n][:, last] for n in ("locations", "weights")},
        call.options,
        call.grad_out[:, last],
    )
    part = results(alone, kernel)
    for name in ("output", "locations", "weights"):
        assert_parts_equal(whole[name][:, last], part[name])


@pytest.mark.parametrize("side", [2**24 + 3, 2**24 + 4])
@pytest.mark.parametrize("axis", [0, 1], ids=["x", "y"])
def test_last_pixel_of_a_long_side(kernel: GpuTarget, cuda: str, axis: int, side: int) -> None:
    """Discrete sampling reaches it, and what lies behind it stays untouched, though float32 rounds such numbers."""
    value = torch.zeros(1, side + 8, 1, 1, device=DEVICE)
    value[0, side - 1], value[0, side:] = 7, 1e9
    value.requires_grad_()
    levels = [(1, size) if axis == 0 else (size, 1) for size in (side, 8)]
    ones = torch.ones(1, 1, 1, 1, 2, device=DEVICE)
    options = {"points": [1, 0], "mode": "discrete", "backend": kernel.backend}
    out = ms_deform_attn(value, levels, ones, ones[..., 0], **options)
    assert out.item() == 7
    out.sum().backward()
    assert value.grad.flatten().nonzero().tolist() == [[side - 1]]


def test_out_of_memory_has_the_type_of_torch(kernel: GpuTarget, cuda: str) -> None:
    """An output, and a copy of its gradient, larger than any GPU; afterwards the same device still works."""
    queries, heads = 2**20, 2**16
    value = random(1, 4, 1, 2, dtype=torch.float32).expand(1, 4, heads, 2)
    locations = random(1, 1, 1, 1, 1, 2, dtype=torch.float32).expand(1, queries, heads, 1, 1, 2)
    weights = locations[..., 0]
    levels, start = torch.tensor([[2, 2]], device=DEVICE), torch.zeros(1, dtype=torch.int64)
    with pytest.raises(torch.OutOfMemoryError, match="out of memory"):
        ms_deform_attn(value, [(2, 2)], locations, weights, backend=kernel.backend)
    grad = random(1, 1, 1, dtype=torch.float32).expand(1, queries, 2 * heads)
    with (
        use_backend(kernel.backend),
        pytest.raises(torch.OutOfMemoryError, match="out of memory"),
    ):
        ms_deform_attn_backward(value, levels, start, locations, weights, grad, 64)
    small = ms_deform_attn(
        value[:, :, :1], [(2, 2)], locations[:, :3, :1], weights[:, :3, :1], backend=kernel.backend
    )
    assert small.shape == (1, 3, 2)
