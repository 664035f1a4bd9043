# SPDX-License-Identifier: Apache-2.0
"""Levels so long that float32 does not have every one of their pixel numbers: coordinates round, pixels do not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rtdetr_ops import ms_deform_attn
from rtdetr_ops.ms_deform_attn import portable
from rtdetr_ops.testing.tester import Target

# The last pixel of the first is a float32, and the side itself is none; of the second it is the other way around.
SIDES = (2**24 + 3, 2**24 + 4)
BEYOND = 8  # pixels of a second level, which nothing may touch
# Ends, a far point on each side, and what rounds to the last pixels.
COORDINATES = (0.0, 0.25, 0.5, 1 - 2**-23, 1 - 2**-24, 1.0, 1 + 2**-23, -3e9, 3e9)

each_side = pytest.mark.parametrize("side", SIDES)
each_axis = pytest.mark.parametrize("axis", [0, 1], ids=["x", "y"])


def long_value(side: int) -> Tensor:
    """[1, S, 1, 1]: numbers that bfloat16 has, and a marker in the second level."""
    value = (torch.arange(side + BEYOND, dtype=torch.int32) % 251 + 1).bfloat16()
    value[side:] = 1e9
    return value.view(1, -1, 1, 1)


def levels_along(axis: int, side: int) -> list[tuple[int, int]]:
    return [(1, size) if axis == 0 else (size, 1) for size in (side, BEYOND)]


def locations_along(axis: int) -> Tensor:
    """[1, Q, 1, 1, 2], a query for each coordinate."""
    along = torch.tensor(COORDINATES)
    pair = (along, torch.full_like(along, 0.5))
    return torch.stack(pair if axis == 0 else pair[::-1], 1).view(1, -1, 1, 1, 2)


def discrete_pixels(side: int) -> Tensor:
    """[Q], by the definition: rounded as a coordinate, clamped as an integer."""
    position = torch.tensor(COORDINATES) * side + 0.5
    return torch.tensor([min(max(int(number), 0), side - 1) for number in position.tolist()])


@each_side
@each_axis
def test_discrete_sampling_reaches_the_last_pixel(target: Target, axis: int, side: int) -> None:
    value, locations = long_value(side), locations_along(axis)
    weights = torch.ones(locations.shape[:4])
    with target.selected():
        out = ms_deform_attn(
            value,
            levels_along(axis, side),
            locations,
            weights,
            points=[1, 0],
            mode="discrete",
            backend=target.backend,
        )
    assert torch.equal(out.flatten(), value.flatten()[discrete_pixels(side)])


@each_side
@each_axis
def test_portable_discrete_sampling_reaches_the_last_pixel(axis: int, side: int) -> None:
    value, locations = long_value(side), locations_along(axis)
    weights = torch.ones(locations.shape[:4])
    out = portable.run(value, levels_along(axis, side), locations, weights, (1, 0), "discrete")
    assert torch.equal(out.flatten(), value.flatten()[discrete_pixels(side)])


@each_side
@each_axis
def test_bilinear_sampling_stays_inside(kernel: Target, axis: int, side: int) -> None:
    value, locations = long_value(side), locations_along(axis)
    arguments = (value, levels_along(axis, side), locations, torch.ones(locations.shape[:4]))
    expected = ms_deform_attn(*arguments, points=[1, 0], backend="reference")
    with kernel.selected():
        out = ms_deform_attn(*arguments, points=[1, 0], backend=kernel.backend)
    assert torch.equal(out, expected)
    assert expected.any()


@pytest.mark.slow  # the CPU kernels sum a gradient in a gigabyte
@each_axis
def test_gradient_of_the_last_pixel(target: Target, axis: int) -> None:
    side = SIDES[1]
    value = long_value(side).requires_grad_()
    weights = torch.ones(1, 1, 1, 1)
    with target.selected():
        out = ms_deform_attn(
            value,
            levels_along(axis, side),
            torch.ones(1, 1, 1, 1, 2),
            weights,
            points=[1, 0],
            mode="discrete",
            backend=target.backend,
        )
        out.sum().backward()
    assert value.grad.flatten().nonzero().tolist() == [[side - 1]]
