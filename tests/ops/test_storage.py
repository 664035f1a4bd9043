# SPDX-License-Identifier: Apache-2.0
"""Tensors whose memory is not what a kernel expects: freed, cut short, or not aligned."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from cases import RAGGED, SHAPES, freed, with_storage_of
from torch import Tensor

import rtdetr_ops
from rtdetr_ops.patching.shim import ms_deform_attn_backward
from rtdetr_ops.testing.inputs import Call, Case, Fused, make_call
from rtdetr_ops.testing.tester import Target

ONE_LEVEL = next(shape for shape in SHAPES if len(shape.levels) == 1)
CASES = {"plain": Case(RAGGED), "fused": Case(RAGGED, fused=Fused(4, masked=True))}
ARGUMENTS = [(form, name) for form in CASES for name in make_call(CASES[form]).tensors]
each_argument = pytest.mark.parametrize(
    ("form", "name"), [*ARGUMENTS, ("fused", "value_mask")], ids=lambda part: part
)


def with_argument(call: Call, name: str, change: Callable[[Tensor], Tensor]) -> Call:
    if name in call.tensors:
        return call.with_tensors(**{name: change(call.tensors[name])})
    call.options[name] = change(call.options[name])
    return call


def misaligned(tensor: Tensor) -> Tensor:
    """The same numbers, one byte off."""
    memory = torch.empty(tensor.nbytes + 1, dtype=torch.uint8)
    memory[1:] = tensor.contiguous().view(-1).view(torch.uint8)
    numbers = torch.frombuffer(memory.numpy(), dtype=tensor.dtype, offset=1)
    return numbers.view(tensor.shape)


def run(kernel: Target, call: Call) -> Tensor:
    with kernel.selected():
        return call.entry(**call.tensors, **call.options, backend=kernel.backend)


@each_argument
def test_freed_storage_is_refused(kernel: Target, form: str, name: str) -> None:
    call = with_argument(make_call(CASES[form]), name, freed)
    with pytest.raises(RuntimeError, match=f"^{name}: expected a "):
        run(kernel, call)


@each_argument
def test_storage_cut_short_is_refused(kernel: Target, form: str, name: str) -> None:
    if kernel.backend == "triton":
        pytest.skip("looks for memory, not for how much")
    call = with_argument(make_call(CASES[form]), name, partial(with_storage_of, size=8))
    with pytest.raises(RuntimeError, match=f"^{name}: expected a storage of at least .* got 8"):
        run(kernel, call)


def classic_arguments(grad_output: Callable[[Tensor], Tensor]) -> tuple[Any, ...]:
    call = make_call(Case(ONE_LEVEL))
    value, locations, weights = call.tensors.values()
    levels, start = torch.tensor(call.options["levels"]), torch.tensor([0])
    pairs, scalars = locations.unsqueeze(3), weights.unsqueeze(3)
    return value, levels, start, pairs, scalars, grad_output(call.grad_out), 64


def test_freed_gradient_is_refused(kernel: Target) -> None:
    with kernel.selected(), rtdetr_ops.use_backend(kernel.backend):
        arguments = classic_arguments(freed)
        with pytest.raises(RuntimeError, match=r"^grad_output: expected a "):
            ms_deform_attn_backward(*arguments)


@each_argument
def test_misaligned_storage(kernel: Target, form: str, name: str) -> None:
    call = make_call(CASES[form])
    expected = run(kernel, call)
    assert torch.equal(run(kernel, with_argument(call, name, misaligned)), expected)


def test_misaligned_gradient(kernel: Target) -> None:
    with kernel.selected(), rtdetr_ops.use_backend(kernel.backend):
        expected = ms_deform_attn_backward(*classic_arguments(lambda grad: grad))
        got = ms_deform_attn_backward(*classic_arguments(misaligned))
    torch.testing.assert_close(got, expected)
