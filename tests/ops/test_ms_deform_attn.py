# SPDX-License-Identifier: Apache-2.0
"""The entry that takes locations and weights: result and every gradient, on every backend."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from cases import (
    BF16,
    CHANNELS,
    F16,
    F32,
    F64,
    HOT,
    RAGGED,
    UNIFORM,
    each_mode,
    each_shape,
    each_storage,
    each_uniform_dtype,
    in_mode,
    with_channels,
)
from torch import Tensor

from rtdetr_ops import ms_deform_attn
from rtdetr_ops.testing.inputs import LAYOUTS, Call, Case, Storage, make_call
from rtdetr_ops.testing.tester import Target, assert_close_to_truth, assert_matches_reference
from rtdetr_ops.testing.workloads import Workload

NAN, INF = math.nan, math.inf
PLAIN_LAYOUTS = [name for name in LAYOUTS if not name.startswith(("reference", "mask"))]


@each_shape
@each_mode
def test_shape(kernel: Target, shape: Workload, mode: str) -> None:
    assert_matches_reference(kernel, in_mode(Case(shape), mode))


@each_uniform_dtype
@pytest.mark.parametrize("channels", CHANNELS)
def test_channels(kernel: Target, channels: int, storage: Storage) -> None:
    assert_matches_reference(kernel, Case(with_channels(RAGGED, channels), storage))


@each_mode
@each_storage
def test_dtypes(kernel: Target, storage: Storage, mode: str) -> None:
    assert_matches_reference(kernel, in_mode(Case(RAGGED, storage), mode))


# Not float64: hundreds of numbers added in another order differ by more than its tolerance.
@each_mode
@pytest.mark.parametrize("storage", UNIFORM[1:], ids=str)
def test_hot_levels(kernel: Target, storage: Storage, mode: str) -> None:
    assert_matches_reference(kernel, in_mode(Case(HOT, storage), mode))


# 17 channels are loaded one by one by kernels that load 16 in one go.
@pytest.mark.parametrize("channels", [16, 17])
@pytest.mark.parametrize("layout", PLAIN_LAYOUTS)
def test_layout(kernel: Target, layout: str, channels: int) -> None:
    assert_matches_reference(kernel, Case(with_channels(RAGGED, channels), layout=layout))


def test_one_channel_out_of_two(kernel: Target) -> None:
    # The stride of an axis of size 1 says nothing, yet the next channel in memory belongs to another tensor.
    case = Case(with_channels(RAGGED, 1), layout="value_every_second_channel")
    assert_matches_reference(kernel, case)


# Points exactly on pixel centers, borders and corners of a level of 4 x 8, where bilinear cells
# meet. Powers of two: every dtype can name them. The gradient is that of the right-hand, lower cell.
KNOTS = [
    (x / 8, y / 4) for x in (-0.5, 0, 0.5, 1, 3.5, 7.5, 8, 8.5) for y in (-0.5, 0, 0.5, 2.5, 4)
]


@each_mode
@each_uniform_dtype
def test_points_on_pixel_borders(kernel: Target, storage: Storage, mode: str) -> None:
    shape = Workload("knots", 1, len(KNOTS), 2, ((4, 8),), (1,), 3, mode)
    call = make_call(Case(shape, storage))
    locations = (
        torch.tensor(KNOTS, dtype=storage.value).view(1, -1, 1, 1, 2).expand(-1, -1, 2, -1, -1)
    )
    assert_close_to_truth(kernel, call.with_tensors(locations=locations))


def at(*points: tuple[float, float], dtype: torch.dtype = F32, size: int = 4, mode: str) -> Call:
    """One query per point (x, y), one head of two channels, one level of size x size that holds 1, 2, 3, ..."""
    queries = len(points)
    value = torch.arange(1, size * size + 1, dtype=dtype).view(1, -1, 1, 1).repeat(1, 1, 1, 2)
    tensors = {
        "value": value,
        "locations": torch.tensor(points, dtype=dtype).view(1, queries, 1, 1, 2),
        "weights": torch.ones(1, queries, 1, 1, dtype=dtype),
    }
    options = {"levels": ((size, size),), "points": 1, "mode": mode}
    return Call(ms_deform_attn, tensors, options, torch.ones(1, queries, 2, dtype=dtype))


def test_bilinear_by_hand(target: Target) -> None:
    call = at((0.5, 0.5), (0.125, 0.125), (0.0, 0.125), (0.0, 0.0), (1.0, 1.0), mode="bilinear")
    # The center is the mean of 6, 7, 10, 11; a center of a pixel; half and quarter of a pixel at the borders.
    output = target.run(call)["output"]
    assert output[0, :, 0].tolist() == [8.5, 1.0, 0.5, 0.25, 4.0]


# round(location * 4), clamped, not the nearest center; a tie goes up; a negative coordinate truncates to 0.
DISCRETE = [
    (-0.3, 0), (-0.05, 0), (-0.125, 0), (0.0, 0), (0.1249, 0), (0.125, 1), (0.374, 1), (0.375, 2),
    (0.5, 2), (0.625, 3), (0.874, 3), (0.875, 3), (1.0, 3), (1.3, 3),
]  # fmt: skip


@pytest.mark.parametrize("axis", [0, 1], ids=["x", "y"])
def test_discrete_by_hand(target: Target, axis: int) -> None:
    points = [(x, 0.0) if axis == 0 else (0.0, x) for x, _ in DISCRETE]
    output = target.run(at(*points, mode="discrete"))["output"]
    assert output[0, :, 0].tolist() == [1 + pixel * 4**axis for _, pixel in DISCRETE]


OUTSIDE = (-0.126, 1.126, -7.0, 7.0, 1e30, -1e30, 3e38)


@pytest.mark.parametrize("axis", [0, 1], ids=["x", "y"])
@pytest.mark.parametrize("far", OUTSIDE)
def test_outside_is_zero(target: Target, far: float, axis: int) -> None:
    point = (far, 0.5) if axis == 0 else (0.5, far)
    for name, tensor in target.run(at(point, point, mode="bilinear")).items():
        assert not tensor.any(), name


@pytest.mark.parametrize(("far", "pixel"), [(7.0, 4), (1e30, 4), (3e38, 4), (-7.0, 1), (-1e30, 1)])
def test_discrete_outside_is_the_border(target: Target, far: float, pixel: int) -> None:
    results = target.run(at((far, 0.0), mode="discrete"))
    assert results["output"].unique().item() == pixel
    assert results["grad_value"].nonzero()[:, 1].unique().item() == pixel - 1


NON_FINITE = [*itertools.product((NAN, INF, -INF), (0.5,)), (0.5, NAN), (0.5, INF), (NAN, -INF)]


@each_mode
@pytest.mark.parametrize("dtype", [F64, F32, BF16, F16], ids=str)
@pytest.mark.parametrize("point", NON_FINITE, ids=str)
def test_non_finite_location_is_zero(
    target: Target, point: tuple[float, float], dtype: torch.dtype, mode: str
) -> None:
    for name, tensor in target.run(at(point, dtype=dtype, mode=mode)).items():
        assert not tensor.any(), name


@pytest.mark.usefixtures("deterministic")
@each_mode
def test_non_finite_location_spares_its_neighbors(target: Target, mode: str) -> None:
    call = make_call(in_mode(Case(RAGGED), mode))
    locations = call.tensors["locations"].clone()
    locations[0, 2, 1, 3, 0], locations[1, 0, 0, 0, 1] = NAN, INF
    far = locations.where(locations.isfinite(), -9.0)
    weights = call.tensors["weights"].where(locations.isfinite().all(-1), 0.0)
    results = target.run(call.with_tensors(locations=locations, weights=weights))
    # Finite but far outside (discrete: of no weight), they leave the others the same results.
    expected = target.run(call.with_tensors(locations=far, weights=weights))
    for name in ("output", "grad_value", "grad_locations"):
        torch.testing.assert_close(results[name], expected[name], rtol=0, atol=0)
    assert results["grad_weights"][0, 2, 1, 3] == results["grad_weights"][1, 0, 0, 0] == 0


# One, a tie between two neighbors in bfloat16 and in float16, into the subnormals, over the top.
FACTORS = (1.0, 1 + 2**-8, 1 + 2**-11, 2.0**-16, 2.0**15)


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("channels", [1, 7, 16])
@pytest.mark.parametrize("dtype", [BF16, F16], ids=str)
def test_every_number_of_16_bits(
    target: Target, dtype: torch.dtype, channels: int, factor: float
) -> None:
    """Each is read exactly, and its product with a float32 weight is rounded as torch rounds it."""
    side = math.ceil(math.sqrt(2**16 / channels))
    bits = torch.arange(side * side * channels).to(torch.int16)  # wraps around
    value = bits.view(dtype).view(1, side * side, 1, channels)
    x, y = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="xy")
    pixels = torch.stack([x, y], -1).view(1, side * side, 1, 1, 2)
    with target.selected():
        out = ms_deform_attn(
            value,
            ((side, side),),
            pixels.double() / side,
            torch.full((1, side * side, 1, 1), factor),
            mode="discrete",
            backend=target.backend,
        )
    expected = (value.float() * factor).to(dtype).view_as(out)
    torch.testing.assert_close(out, expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("bits", [0x7FC00000, 0x7F800001, 0x7FFFFFFF, -1], ids=hex)
@pytest.mark.parametrize("channels", [1, 7, 16])
@pytest.mark.parametrize("dtype", [BF16, F16], ids=str)
def test_a_nan_of_any_bits_stays_one(
    target: Target, dtype: torch.dtype, channels: int, bits: int
) -> None:
    # Rounding to 16 bits adds to the bits: that must not carry a NaN over into a number.
    weights = torch.tensor(bits, dtype=torch.int32).view(F32).view(1, 1, 1, 1)
    call = at((0.5, 0.5), dtype=dtype, mode="bilinear")
    call = call.with_tensors(weights=weights, value=torch.ones(1, 16, 1, channels, dtype=dtype))
    with target.selected():
        out = ms_deform_attn(**call.tensors, **call.options, backend=target.backend)
    assert out.isnan().all()


@each_mode
@pytest.mark.parametrize("poison", [NAN, INF], ids=["nan", "inf"])
@pytest.mark.parametrize(
    "location", [(0.6, 0.6), (9.0, 9.0), (NAN, 0.5), (1.1, 0.6), (0.6, -0.1)], ids=str
)
def test_untouched_pixel_does_not_leak(
    target: Target, location: tuple[float, float], poison: float, mode: str
) -> None:
    call = at(location, mode=mode)
    clean = target.run(call)
    touched = clean["grad_value"].any(-1, keepdim=True)
    value = call.tensors["value"].where(touched, poison)
    assert value.isfinite().sum() <= 8
    for name, tensor in target.run(call.with_tensors(value=value)).items():
        torch.testing.assert_close(tensor, clean[name], rtol=0, atol=0, msg=name)


@each_mode
@pytest.mark.parametrize(
    ("batch", "queries", "points"),
    [(0, 3, (2, 1)), (2, 0, (2, 1)), (2, 3, (0, 0)), (0, 0, (0, 0))],
    ids=["no_image", "no_query", "no_point", "nothing"],
)
def test_empty(
    target: Target, batch: int, queries: int, points: tuple[int, int], mode: str
) -> None:
    shape = Workload("empty", batch, queries, 2, ((2, 3), (2, 2)), points, 3, mode)
    call = make_call(Case(shape))
    results = target.run(call)
    assert results["output"].shape == (batch, queries, 6)
    for name, tensor in results.items():
        assert not tensor.any(), name
        if name != "output":
            assert tensor.shape == call.tensors[name.removeprefix("grad_")].shape


@pytest.mark.parametrize("mode", ["bilinear", "discrete"])
@pytest.mark.parametrize(
    "shape",
    [
        # Pixels of small levels are read by many queries; 16 taps make blocks of 16 queries.
        Workload("decoder", 1, 300, 4, ((20, 20), (10, 10), (5, 5)), (4, 4, 4), 32),
        # Every pixel is a query: the last block of an image is short.
        Workload("encoder", 2, 509, 2, ((20, 20), (10, 10), (3, 3)), (4, 4, 4), 16),
    ],
    ids=lambda shape: shape.name,
)
def test_detector(kernel: Target, shape: Workload, mode: str) -> None:
    assert_matches_reference(kernel, in_mode(Case(shape), mode))


@pytest.mark.slow
@each_uniform_dtype
def test_detector_at_640(kernel: Target, storage: Storage) -> None:
    shape = Workload("decoder_640", 2, 300, 8, ((80, 80), (40, 40), (20, 20)), (4, 4, 4), 32)
    coordinates = F64 if storage.value == F64 else F32
    assert_matches_reference(kernel, Case(shape, Storage(storage.value, coordinates)))


@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize(
    ("locations", "weights"),
    [((2, 5, 3, 2, 4, 2), (2, 5, 3, 2, 4)), ((2, 5, 3, 2, 4, 2), (2, 5, 3, 8))],
    ids=["both", "locations_only"],
)
def test_classic_axes(target: Target, locations: tuple[int, ...], weights: tuple[int, ...]) -> None:
    shape = Workload("classic", 2, 5, 3, ((3, 4), (2, 2)), (4, 4), 8)
    call = make_call(Case(shape))
    classic = call.with_tensors(
        locations=call.tensors["locations"].view(locations),
        weights=call.tensors["weights"].view(weights),
    )
    expected = target.run(call)
    for name, tensor in target.run(classic).items():
        torch.testing.assert_close(tensor.view_as(expected[name]), expected[name], rtol=0, atol=0)


@pytest.mark.usefixtures("deterministic")
@each_mode
def test_levels_as_a_tensor_and_points_as_one_count(target: Target, mode: str) -> None:
    call = make_call(Case(Workload("same", 1, 3, 2, ((3, 4), (2, 2)), (2, 2), 4, mode)))
    expected = target.run(call)
    for levels, points in (
        (torch.tensor([[3, 4], [2, 2]]), None),
        ([[3, 4], [2, 2]], 2),
        ([(3, 4), (2, 2)], [2, 2]),
    ):
        call.options.update(levels=levels, points=points)
        for name, tensor in target.run(call).items():
            torch.testing.assert_close(tensor, expected[name], rtol=0, atol=0)


def tiny_leaves(mode: str) -> tuple[dict[str, object], list[Tensor]]:
    call = make_call(
        Case(Workload("tiny", 1, 2, 2, ((3, 2), (2, 2)), (2, 1), 2, mode), Storage(F64))
    )
    return call.options, [tensor.requires_grad_() for tensor in call.tensors.values()]


@each_mode
def test_gradcheck(target: Target, mode: str) -> None:
    options, (value, locations, weights) = tiny_leaves(mode)
    locations.requires_grad_(mode == "bilinear")

    def call(value: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
        return ms_deform_attn(
            value, locations=locations, weights=weights, **options, backend=target.backend
        )

    with target.selected():
        assert torch.autograd.gradcheck(call, (value, locations, weights))


def test_reference_differentiates_twice() -> None:
    options, leaves = tiny_leaves("bilinear")

    def call(value: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
        return ms_deform_attn(
            value, locations=locations, weights=weights, **options, backend="reference"
        )

    assert torch.autograd.gradgradcheck(call, leaves)


def test_kernels_refuse_to_differentiate_twice(kernel: Target) -> None:
    options, (value, locations, weights) = tiny_leaves("bilinear")
    out = ms_deform_attn(
        value, locations=locations, weights=weights, **options, backend=kernel.backend
    )
    (grad,) = torch.autograd.grad(out.square().sum(), locations, create_graph=True)
    with pytest.raises(NotImplementedError, match="differentiable once; use backend='reference'"):
        grad.sum().backward()


SUBSETS = [
    names for n in (1, 2) for names in itertools.combinations(("value", "locations", "weights"), n)
]


@pytest.mark.usefixtures("deterministic")
@each_mode
@pytest.mark.parametrize("names", SUBSETS, ids="_".join)
def test_gradients_of_a_subset(target: Target, names: tuple[str, ...], mode: str) -> None:
    call = make_call(in_mode(Case(RAGGED), mode))
    expected = target.run(call)
    leaves = {n: t.detach().requires_grad_(n in names) for n, t in call.tensors.items()}
    with target.selected():
        out = ms_deform_attn(**leaves, **call.options, backend=target.backend)
        if not out.requires_grad:
            assert (names, mode) == (("locations",), "discrete")
            return
        out.backward(call.grad_out)
    for name, leaf in leaves.items():
        if name not in names or (name, mode) == ("locations", "discrete"):
            assert leaf.grad is None
        else:
            torch.testing.assert_close(leaf.grad, expected[f"grad_{name}"], rtol=0, atol=0)


def test_no_gradient_needs_no_graph(target: Target) -> None:
    call = make_call(Case(RAGGED))
    leaves = {n: t.detach().requires_grad_() for n, t in call.tensors.items()}
    expected = target.run(call)["output"]
    with target.selected():
        for guard in (torch.no_grad(), torch.inference_mode()):
            with guard:
                out = ms_deform_attn(**leaves, **call.options, backend=target.backend)
            assert not out.requires_grad
            torch.testing.assert_close(out, expected, rtol=0, atol=0)
