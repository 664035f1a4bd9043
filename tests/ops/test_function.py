# SPDX-License-Identifier: Apache-2.0
"""The autograd Functions give bit by bit what the public entries give, under both argument lists."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cases import F64, RAGGED, each_mode, in_mode
from torch import Tensor

from rtdetr_ops import FusedMSDeformAttnFunction, MSDeformAttnFunction, use_backend
from rtdetr_ops.testing.inputs import Call, Case, Fused, Storage, make_call
from rtdetr_ops.testing.tester import Target
from rtdetr_ops.testing.workloads import Workload

pytestmark = pytest.mark.usefixtures("deterministic")

CLASSIC = Workload("classic", 2, 5, 3, ((3, 4), (2, 2)), (4, 4), 8)
SHAPES, STARTS = torch.tensor(CLASSIC.levels), torch.tensor([0, 12])


def apply(target: Target, call: Call, function: Any, *arguments: Any) -> dict[str, Tensor]:
    """Result and gradients of ``function`` on ``target``, named as the tester names them."""
    leaves = [
        argument
        for argument in arguments
        if isinstance(argument, Tensor) and argument.requires_grad
    ]
    with target.selected(), use_backend(target.backend):
        out = function.apply(*arguments)
    # The backend of the forward pass also runs the backward pass.
    with target.selected():
        grads = torch.autograd.grad(out, leaves, call.grad_out, materialize_grads=True)
    names = (f"grad_{name}" for name in call.tensors)
    return {"output": out.detach(), **dict(zip(names, grads, strict=True))}


def assert_same(got: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for name, tensor in expected.items():
        torch.testing.assert_close(got[name], tensor, rtol=0, atol=0, msg=name)


@each_mode
def test_plain(target: Target, mode: str) -> None:
    call = make_call(in_mode(Case(RAGGED), mode))
    expected = target.run(call)
    value, locations, weights = (t.requires_grad_() for t in call.tensors.values())
    arguments = (value, RAGGED.levels, locations, weights, RAGGED.points, mode)
    assert_same(apply(target, call, MSDeformAttnFunction, *arguments), expected)


@pytest.mark.parametrize("im2col_step", [64, 1, 7, None])
def test_classic_arguments(target: Target, im2col_step: int | None) -> None:
    call = make_call(Case(CLASSIC))
    expected = target.run(call)
    value, locations, weights = (t.requires_grad_() for t in call.tensors.values())
    arguments = (value, SHAPES, STARTS, locations, weights, im2col_step)
    assert_same(apply(target, call, MSDeformAttnFunction, *arguments), expected)


def test_classic_axes(target: Target) -> None:
    call = make_call(Case(CLASSIC))
    expected = target.run(call)
    locations = call.tensors["locations"].view(2, 5, 3, 2, 4, 2).requires_grad_()
    weights = call.tensors["weights"].view(2, 5, 3, 2, 4).requires_grad_()
    value = call.tensors["value"].requires_grad_()
    results = apply(
        target, call, MSDeformAttnFunction, value, SHAPES, STARTS, locations, weights, 64
    )
    assert results["grad_locations"].shape == locations.shape
    assert results["grad_weights"].shape == weights.shape
    assert_same({n: t.view_as(expected[n]) for n, t in results.items()}, expected)


@each_mode
@pytest.mark.parametrize("form", [Fused(2, per_level=True), Fused(4, masked=True)], ids=str)
def test_fused(target: Target, form: Fused, mode: str) -> None:
    call = make_call(in_mode(Case(RAGGED, fused=form), mode))
    expected = target.run(call)
    value, reference, offsets, logits = (t.requires_grad_() for t in call.tensors.values())
    arguments = (value, RAGGED.levels, reference, offsets, logits, RAGGED.points, mode)
    more = (form.offset_scale, call.options.get("value_mask"))
    assert_same(apply(target, call, FusedMSDeformAttnFunction, *arguments, *more), expected)


def test_fused_defaults(target: Target) -> None:
    call = make_call(Case(CLASSIC, fused=Fused(4)))
    expected = target.run(call)
    value, *rest = (t.requires_grad_() for t in call.tensors.values())
    results = apply(target, call, FusedMSDeformAttnFunction, value, CLASSIC.levels, *rest)
    assert_same(results, expected)


@pytest.mark.parametrize("name", ["value", "locations", "weights"])
def test_gradient_of_one(target: Target, name: str) -> None:
    call = make_call(Case(CLASSIC))
    expected = target.run(call)[f"grad_{name}"]
    leaves = {n: t.detach().requires_grad_(n == name) for n, t in call.tensors.items()}
    value, *taps = leaves.values()
    with target.selected(), use_backend(target.backend):
        MSDeformAttnFunction.apply(value, SHAPES, STARTS, *taps, 64).backward(call.grad_out)
    assert [n for n, leaf in leaves.items() if leaf.grad is not None] == [name]
    torch.testing.assert_close(leaves[name].grad, expected, rtol=0, atol=0)


def test_gradcheck(target: Target) -> None:
    shape = Workload("tiny", 1, 2, 2, ((3, 2), (2, 2)), (2, 2), 2)
    value, *taps = (
        t.requires_grad_() for t in make_call(Case(shape, Storage(F64))).tensors.values()
    )
    shapes, starts = torch.tensor(shape.levels), torch.tensor([0, 6])
    with target.selected(), use_backend(target.backend):
        assert torch.autograd.gradcheck(
            MSDeformAttnFunction.apply, (value, shapes, starts, *taps, 64)
        )


def test_kernels_refuse_to_differentiate_twice(kernel: Target) -> None:
    call = make_call(Case(CLASSIC))
    value, *taps = (t.requires_grad_() for t in call.tensors.values())
    with use_backend(kernel.backend):
        out = MSDeformAttnFunction.apply(value, SHAPES, STARTS, *taps, 64)
        (grad,) = torch.autograd.grad(out.square().sum(), value, create_graph=True)
        with pytest.raises(NotImplementedError, match="once; use backend='reference'"):
            grad.sum().backward()


@pytest.mark.parametrize(
    ("starts", "message"),
    [
        (torch.tensor([0, 11]), r"level_start_index: expected .*0, 12.*, got .*0, 11"),
        (torch.tensor([0]), r"level_start_index: expected"),
        (torch.tensor([0, 12, 16]), r"level_start_index: expected"),
    ],
    ids=["wrong", "too_few", "too_many"],
)
def test_wrong_start_indices(starts: Tensor, message: str) -> None:
    value, *taps = make_call(Case(CLASSIC)).tensors.values()
    with pytest.raises(ValueError, match=message):
        MSDeformAttnFunction.apply(value, SHAPES, starts, *taps, 64)


def test_wrong_number_of_arguments() -> None:
    value, *taps = make_call(Case(CLASSIC)).tensors.values()
    with pytest.raises(TypeError, match=r"apply: expected 6 arguments, .* got 5"):
        MSDeformAttnFunction.apply(value, SHAPES, STARTS, *taps)


def test_malformed_argument() -> None:
    value, locations, weights = make_call(Case(CLASSIC)).tensors.values()
    with pytest.raises(ValueError, match=r"^weights: expected shape \[B=2, Q=5, M=3, T=8\]"):
        MSDeformAttnFunction.apply(value, SHAPES, STARTS, locations, weights[:1], 64)
