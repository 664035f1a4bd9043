# SPDX-License-Identifier: Apache-2.0
"""No number on red: every contender is compared with the float64 reference before it is timed."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from core.peers import Kernel, bind_ours, bind_ours_fused
from core.timed_cases import Bound, Case, inputs_of

__all__ = ["Truth", "check_forward", "check_gradients", "truth"]

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 5e-3}
"""Largest error over largest true entry.

It covers inputs and results rounded to the storage dtype, and in float32 the rounding of
``2 * location - 1`` in the grid_sample form; the tests of this package are far stricter.
"""

CHUNK = 2**18
"""Sampled points per step: the reference keeps every sampled pixel for its backward."""

LEAVES = {
    False: ("value", "locations", "weights"),
    True: ("value", "reference", "offsets", "logits"),
}
"""Names of the leaves, by whether the entry is the fused one."""


class Truth(NamedTuple):
    """Result and gradients in float64."""

    out: Tensor  # [B, Q, M*D]
    grads: tuple[Tensor | None, ...]  # of every leaf; None where there is no gradient


def truth(case: Case) -> Truth:
    """The reference backend in float64.

    Rounding to the storage dtype is not in the truth of the plain entry. It is in that of the fused
    one, whose rounded offsets move the points.
    """
    return _truth(case if case.fused else replace(case, dtype=torch.float64))


@lru_cache(maxsize=4)
def _truth(case: Case) -> Truth:
    inputs, shape = inputs_of(case), case.workload
    kernel = (bind_ours_fused if case.fused else bind_ours)("reference", shape)
    points = shape.batch * shape.heads * shape.taps
    leaves = [leaf.detach().double() for leaf in inputs.leaves]
    return _in_chunks(kernel, leaves, inputs.grad_out.double(), max(CHUNK // points, 1))


def _in_chunks(kernel: Kernel, leaves: list[Tensor], grad_out: Tensor, chunk: int) -> Truth:
    """A few queries at a time; every leaf but the value has them on axis 1."""
    value = leaves[0].requires_grad_()
    grad_value = torch.zeros_like(value)
    outs, grads = [], []
    for start in range(0, grad_out.shape[1], chunk):
        queries = slice(start, start + chunk)
        others = [leaf[:, queries].requires_grad_() for leaf in leaves[1:]]
        out = kernel(value, *others)
        first, *rest = torch.autograd.grad(
            out, (value, *others), grad_out[:, queries], allow_unused=True
        )
        grad_value += first
        outs.append(out.detach())
        grads.append(rest)
    grad_others = [
        None if parts[0] is None else torch.cat(parts, 1) for parts in zip(*grads, strict=True)
    ]
    return Truth(torch.cat(outs, 1), (grad_value, *grad_others))


def check_forward(bound: Bound, case: Case) -> None:
    """Raise AssertionError when the result is wrong."""
    _check("out", bound.forward(), truth(case).out, case.dtype)


def check_gradients(bound: Bound, case: Case) -> None:
    """Raise AssertionError when a gradient is wrong."""
    expected = truth(case).grads
    for name, grad, true in zip(
        LEAVES[case.fused], bound.forward_backward(), expected, strict=True
    ):
        if true is not None:
            assert grad is not None, f"grad_{name}: missing"
            _check(f"grad_{name}", grad, true, case.dtype)


def _check(name: str, actual: Tensor, true: Tensor, dtype: torch.dtype) -> None:
    error = (actual.double().reshape(true.shape) - true).abs().max() / true.abs().max()
    assert error <= TOLERANCE[dtype], f"{name}: error {error:.1e} of the largest entry, in {dtype}"
