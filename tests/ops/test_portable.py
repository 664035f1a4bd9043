# SPDX-License-Identifier: Apache-2.0
"""The portable forms compute what the reference computes, run eagerly."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from portable_cases import CASES, RAGGED, assert_as_exact, fused_inputs, plain_inputs
from torch import Tensor

from rtdetr_ops import export_form
from rtdetr_ops.ms_deform_attn import portable, reference
from rtdetr_ops.testing.workloads import Workload

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)

each_form = pytest.mark.parametrize("form", ["gather", "grid_sample"])
each_mode = pytest.mark.parametrize("mode", ["bilinear", "discrete"])
each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@each_form
@each_mode
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))
@each_case
def test_plain_entry_is_the_reference(
    case: Workload, dtype: torch.dtype, mode: str, form: str
) -> None:
    inputs = plain_inputs(case, dtype)

    def call(run: Callable[..., Tensor], value: Tensor, *taps: Tensor) -> Tensor:
        return run(value, case.levels, *taps, case.points, mode)

    with export_form(form):
        got = call(portable.run, *inputs)
    assert_as_exact(got, lambda *tensors: call(reference.run, *tensors), inputs, case)


@each_form
@each_mode
@pytest.mark.parametrize("reference_levels", [1, 3], ids=["shared", "per_level"])
@pytest.mark.parametrize("coordinates", [2, 4])
def test_fused_entry_is_the_reference(
    coordinates: int, reference_levels: int, mode: str, form: str
) -> None:
    inputs = fused_inputs(RAGGED, torch.float32, coordinates, reference_levels)

    def call(run: Callable[..., Tensor], value: Tensor, *rest: Tensor) -> Tensor:
        *taps, mask = rest
        return run(value, RAGGED.levels, *taps, RAGGED.points, mode, 0.5, mask)

    with export_form(form):
        got = call(portable.run_fused, *inputs)
    assert_as_exact(got, lambda *tensors: call(reference.run_fused, *tensors), inputs, RAGGED)


@each_form
@each_mode
@each_case
def test_gradients_are_the_reference(case: Workload, mode: str, form: str) -> None:
    inputs = plain_inputs(case, torch.float64)

    def gradients(run: Callable[..., Tensor]) -> tuple[Tensor, ...]:
        value, *taps = (tensor.clone().requires_grad_() for tensor in inputs)
        out = run(value, case.levels, *taps, case.points, mode)
        slope = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
        return torch.autograd.grad(out, (value, *taps), slope, materialize_grads=True)

    with export_form(form):
        got = gradients(portable.run)
    torch.testing.assert_close(got, gradients(reference.run), rtol=1e-11, atol=1e-11)


@each_form
@each_mode
@pytest.mark.parametrize(
    ("batch", "queries", "points"),
    [(0, 3, (2, 1)), (2, 0, (2, 1)), (2, 3, (0, 0))],
    ids=["no_image", "no_query", "no_point"],
)
def test_empty(batch: int, queries: int, points: tuple[int, int], mode: str, form: str) -> None:
    value = torch.ones(batch, 10, 2, 3)
    locations = torch.rand(batch, queries, 2, sum(points), 2)
    weights = torch.rand(batch, queries, 2, sum(points))
    with export_form(form):
        out = portable.run(value, ((2, 3), (2, 2)), locations, weights, points, mode)
    torch.testing.assert_close(out, torch.zeros(batch, queries, 6))


@each_form
@each_mode
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("axis", [0, 1], ids=["x", "y"])
def test_a_non_finite_location_contributes_nothing(
    axis: int, number: float, mode: str, form: str
) -> None:
    value = torch.ones(1, 6, 1, 2)
    locations = torch.full((1, 1, 1, 2, 2), 0.5)
    locations[..., 0, axis] = number
    weights = torch.tensor([3.0, 1.0]).view(1, 1, 1, 2)
    with export_form(form):
        out = portable.run(value, ((2, 3),), locations, weights, (2,), mode)
    torch.testing.assert_close(out, torch.ones(1, 1, 2))


@each_form
@pytest.mark.parametrize(("mode", "expected"), [("bilinear", (0.0, 0.0)), ("discrete", (0.0, 5.0))])
def test_a_location_beyond_integers(mode: str, expected: tuple[float, float], form: str) -> None:
    value = torch.arange(6.0).view(1, 6, 1, 1)
    locations = torch.tensor([-1e30, 1e30]).view(1, 2, 1, 1, 1).expand(-1, -1, -1, -1, 2)
    with export_form(form):
        out = portable.run(value, ((2, 3),), locations, torch.ones(1, 2, 1, 1), (1,), mode)
    assert out.flatten().tolist() == list(expected)


@each_mode
@pytest.mark.parametrize("location", [0.9, 5.0, math.nan], ids=["inside", "outside", "nan"])
def test_gather_keeps_an_untouched_nan_out(location: float, mode: str) -> None:
    value = torch.ones(1, 12, 1, 2)
    value[:, 0] = math.nan  # the pixel that clamped or masked-out indices would fall on
    locations = torch.full((1, 1, 1, 1, 2), location)
    out = portable.run(value, ((3, 4),), locations, torch.ones(1, 1, 1, 1), (1,), mode)
    assert not out.isnan().any()


@pytest.mark.parametrize(
    ("pixel", "first", "last"),
    [(0, -0.3, 0.1249), (1, 0.125, 0.374), (2, 0.375, 0.6249), (3, 0.625, 1.3)],
)
def test_discrete_pixels_of_a_width_of_four(pixel: int, first: float, last: float) -> None:
    value = torch.arange(4.0).view(1, 4, 1, 1)
    locations = torch.tensor([[first, 0.0], [last, 0.0]]).view(1, 2, 1, 1, 2)
    out = portable.run(value, ((1, 4),), locations, torch.ones(1, 2, 1, 1), (1,), "discrete")
    assert out.flatten().tolist() == [pixel, pixel]


@each_mode
def test_gather_takes_levels_as_a_tensor(mode: str) -> None:
    *inputs, mask = fused_inputs(RAGGED, torch.float32, coordinates=2)
    value, *taps = inputs
    arguments = (*taps, RAGGED.points, mode, 0.5, mask)
    got = portable.run_fused(value, torch.tensor(RAGGED.levels), *arguments)
    torch.testing.assert_close(got, portable.run_fused(value, RAGGED.levels, *arguments))


def test_grid_sample_refuses_levels_as_a_tensor() -> None:
    value, *taps = plain_inputs(RAGGED)
    with (
        export_form("grid_sample"),
        pytest.raises(TypeError, match=r"levels: the grid_sample form needs integers \(H, W\)"),
    ):
        portable.run(value, torch.tensor(RAGGED.levels), *taps, RAGGED.points, "bilinear")


@each_form
def test_coordinates_and_sums_stay_float32_under_autocast(form: str) -> None:
    value, *taps = plain_inputs(RAGGED)
    arguments = (value, RAGGED.levels, *taps, RAGGED.points, "bilinear")
    with export_form(form):
        expected = portable.run(*arguments)
        with torch.autocast("cpu", torch.bfloat16):
            got = portable.run(*arguments)
    torch.testing.assert_close(got, expected, rtol=0, atol=0)
