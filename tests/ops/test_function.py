# SPDX-License-Identifier: Apache-2.0
"""The autograd Functions give bit by bit what the public entries give, under both argument lists."""

from __future__ import annotations

import itertools
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


TINY = Workload("tiny", 1, 2, 1, ((3, 2), (2, 2)), (2, 2), 2)


def plain_inputs(flat: bool) -> tuple[Any, list[Tensor]]:
    """``apply`` of the differentiable inputs of MSDeformAttnFunction, and these; else with the classic axes."""
    shapes, starts = torch.tensor(TINY.levels), torch.tensor([0, 6])
    value, locations, weights = make_call(Case(TINY, Storage(F64))).tensors.values()
    if not flat:
        locations, weights = locations.unflatten(3, (2, 2)), weights.unflatten(3, (2, 2))
    leaves = [tensor.requires_grad_() for tensor in (value, locations, weights)]
    return lambda v, x, w: MSDeformAttnFunction.apply(v, shapes, starts, x, w, 64), leaves


def fused_inputs(flat: bool) -> tuple[Any, list[Tensor]]:
    """The same of FusedMSDeformAttnFunction; else also with one reference for all queries."""
    case = Case(TINY, Storage(F64), fused=Fused(2))
    value, reference, offsets, logits = make_call(case).tensors.values()
    if not flat:
        offsets, logits = offsets.unflatten(3, (2, 2)), logits.unflatten(3, (2, 2))
        reference = reference[:, :1].clone()
    leaves = [tensor.requires_grad_() for tensor in (value, reference, offsets, logits)]
    return lambda v, r, x, w: FusedMSDeformAttnFunction.apply(v, TINY.levels, r, x, w), leaves


each_form = pytest.mark.parametrize("flat", [True, False], ids=["flat", "classic_axes"])
each_function = pytest.mark.parametrize("inputs", [plain_inputs, fused_inputs])


@each_form
@each_function
def test_reference_differentiates_twice(inputs: Any, flat: bool) -> None:
    function, leaves = inputs(flat)
    with use_backend("reference"):
        assert torch.autograd.gradcheck(function, leaves)
        assert torch.autograd.gradgradcheck(function, leaves)


@each_form
@each_function
def test_kernels_refuse_to_differentiate_twice(kernel: Target, inputs: Any, flat: bool) -> None:
    function, leaves = inputs(flat)
    with use_backend(kernel.backend):
        out = function(*leaves)
        # Of a sum: the way from a gradient to an input leads through what was saved alone.
        grads = torch.autograd.grad(out.sum(), leaves, create_graph=True)
        for grad, leaf in itertools.product(grads, leaves):
            with pytest.raises(NotImplementedError, match="once; use backend='reference'"):
                torch.autograd.grad(grad.sum(), leaf, retain_graph=True)


@pytest.mark.parametrize(
    ("starts", "message"),
    [
        (torch.tensor([0, 11]), r"level_start_index: expected .*0, 12.*, got .*0, 11"),
        (torch.tensor([0]), r"level_start_index: expected"),
        (torch.tensor([0, 12, 16]), r"level_start_index: expected"),
        ([0, 11], r"level_start_index: expected .*0, 12.*, got .*0, 11"),
        (12, "level_start_index: expected an integer tensor .*, got int"),
        ("ab", r"level_start_index: expected .*0, 12.*, got .*'a', 'b'"),
    ],
    ids=["wrong", "too_few", "too_many", "wrong_list", "number", "text"],
)
def test_wrong_start_indices(starts: Any, message: str) -> None:
    value, *taps = make_call(Case(CLASSIC)).tensors.values()
    with pytest.raises((TypeError, ValueError), match=message):
        MSDeformAttnFunction.apply(value, SHAPES, starts, *taps, 64)


OTHER_STARTS = {
    "none": None,
    "list": [0, 12],
    "int32": STARTS.int(),
    "numpy": STARTS.numpy(),
    "tensors": list(STARTS),
}


@pytest.mark.parametrize("starts", OTHER_STARTS.values(), ids=OTHER_STARTS)
def test_other_start_indices(starts: Any) -> None:
    value, *taps = make_call(Case(CLASSIC)).tensors.values()
    expected = MSDeformAttnFunction.apply(value, SHAPES, STARTS, *taps, 64)
    result = MSDeformAttnFunction.apply(value, SHAPES, starts, *taps, 64)
    torch.testing.assert_close(result, expected, rtol=0, atol=0)


def test_wrong_number_of_arguments() -> None:
    value, *taps = make_call(Case(CLASSIC)).tensors.values()
    with pytest.raises(TypeError, match=r"apply: expected 6 arguments, .* got 5"):
        MSDeformAttnFunction.apply(value, SHAPES, STARTS, *taps)


MALFORMED = {
    "weights": ({"weights": torch.zeros(1, 5, 3, 8)}, (64,), r"weights: expected shape \[B=2, Q=5"),
    "no_locations": ({"locations": None}, (64,), "locations: expected a tensor, got NoneType"),
    "no_locations_in_front": ({"locations": None}, (4, "bilinear"), "locations: expected a tensor"),
    "wrong_mode": ({}, (4, None), "mode: expected one of 'bilinear', 'discrete', got None"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_argument(name: str) -> None:
    change, last, message = MALFORMED[name]
    value, locations, weights = (make_call(Case(CLASSIC)).tensors | change).values()
    starts = (STARTS,) if len(last) == 1 else ()
    with pytest.raises((TypeError, ValueError), match=f"^{message}"):
        MSDeformAttnFunction.apply(value, SHAPES, *starts, locations, weights, *last)
