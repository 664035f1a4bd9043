# SPDX-License-Identifier: Apache-2.0
"""Gradients against finite differences, for some of the arguments only, and one time only."""

from __future__ import annotations

import itertools

import pytest
import torch
from cases import F64, RAGGED, each_mode, in_mode
from on_gpu import DEVICE, GpuTarget, forward_backward
from torch import Tensor

from rtdetr_ops.testing.inputs import Case, Fused, Storage, make_call
from rtdetr_ops.testing.workloads import Workload

TINY = Workload("tiny", 1, 2, 2, ((3, 2), (2, 2)), (2, 1), 2)
FORMS = {"plain": None, "fused_box": Fused(4, masked=True), "fused_point": Fused(2)}
MOVING = {"locations", "reference", "offsets"}

each_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


@each_mode
@each_form
def test_gradcheck(kernel: GpuTarget, deterministic: None, form: Fused | None, mode: str) -> None:
    call = make_call(in_mode(Case(TINY, Storage(F64), form), mode)).to(DEVICE)
    fixed = MOVING if mode == "discrete" else set()
    leaves = [t.detach().requires_grad_(n not in fixed) for n, t in call.tensors.items()]

    def function(*tensors: Tensor) -> Tensor:
        named = dict(zip(call.tensors, tensors, strict=True))
        return call.entry(**named, **call.options, backend=kernel.backend)

    assert torch.autograd.gradcheck(function, leaves)


SUBSETS = {
    "plain": ("value", "locations", "weights"),
    "fused": ("value", "reference", "offsets", "logits"),
}


@each_mode
@pytest.mark.parametrize(
    ("entry", "names"),
    [(e, s) for e, n in SUBSETS.items() for k in (1, 2) for s in itertools.combinations(n, k)],
    ids=lambda part: part if isinstance(part, str) else "_".join(part),
)
def test_gradients_of_a_subset(
    kernel: GpuTarget, deterministic: None, entry: str, names: tuple[str, ...], mode: str
) -> None:
    fused = Fused(4, masked=True) if entry == "fused" else None
    call = make_call(in_mode(Case(RAGGED, fused=fused), mode)).to(DEVICE)
    _, *grads = forward_backward(call, kernel.backend)()
    expected = dict(zip(call.tensors, grads, strict=True))
    leaves = {n: t.detach().requires_grad_(n in names) for n, t in call.tensors.items()}
    out = call.entry(**leaves, **call.options, backend=kernel.backend)
    if not out.requires_grad:
        assert mode == "discrete"
        assert set(names) <= MOVING
        return
    out.backward(call.grad_out)
    for name, leaf in leaves.items():
        if name not in names or (mode == "discrete" and name in MOVING):
            assert leaf.grad is None
        else:
            torch.testing.assert_close(leaf.grad, expected[name], rtol=0, atol=0)


@each_form
def test_kernels_refuse_to_differentiate_twice(kernel: GpuTarget, form: Fused | None) -> None:
    call = make_call(Case(TINY, Storage(F64), form)).to(DEVICE)
    leaves = {n: t.detach().requires_grad_() for n, t in call.tensors.items()}
    out = call.entry(**leaves, **call.options, backend=kernel.backend)
    (grad,) = torch.autograd.grad(out.square().sum(), leaves["value"], create_graph=True)
    with pytest.raises(NotImplementedError, match="differentiable once; use backend='reference'"):
        grad.sum().backward()
