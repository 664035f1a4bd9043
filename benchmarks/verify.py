# SPDX-License-Identifier: Apache-2.0
"""No number on red: every row is compared with the float64 reference before it is timed."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from timed_cases import Bound, Case
from torch import Tensor

from rtdetr_ops import ms_deform_attn
from rtdetr_ops.testing.workloads import Workload, make_inputs

__all__ = ["Truth", "check_forward", "check_gradients", "truth"]

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 5e-3}
"""Largest error over largest true entry.

It covers inputs and results rounded to the storage dtype, and in float32 the rounding of
``2 * location - 1`` in the grid_sample form; the tests of this package are far stricter.
"""

CHUNK = 2048
"""Queries per step: the reference keeps every sampled pixel for its backward."""


class Truth(NamedTuple):
    """Result and gradients in float64."""

    out: Tensor  # [B, Q, M*D]
    grads: tuple[Tensor | None, ...]  # of value, locations (None in discrete mode), weights


@lru_cache(maxsize=4)
def truth(workload: Workload, offsets: str) -> Truth:
    """The reference backend in float64, a chunk of queries at a time."""
    inputs = make_inputs(workload, torch.float64, seed=0, offsets=offsets)  # type: ignore[arg-type]
    grad_value = torch.zeros_like(inputs.value)
    outs, grads_locations, grads_weights = [], [], []
    for start in range(0, workload.queries, CHUNK):
        rows = slice(start, start + CHUNK)
        locations = inputs.locations.detach()[:, rows].requires_grad_()
        weights = inputs.weights.detach()[:, rows].requires_grad_()
        out = ms_deform_attn(
            inputs.value,
            workload.levels,
            locations,
            weights,
            points=workload.points,
            mode=workload.mode,
            backend="reference",
        )
        grads = torch.autograd.grad(
            out,
            (inputs.value, locations, weights),
            inputs.grad_out[:, rows],
            allow_unused=True,
        )
        grad_value += grads[0]
        outs.append(out.detach())
        grads_locations.append(grads[1])
        grads_weights.append(grads[2])
    no_locations = workload.mode == "discrete"
    return Truth(
        torch.cat(outs, 1),
        (
            grad_value,
            None if no_locations else torch.cat(grads_locations, 1),
            torch.cat(grads_weights, 1),
        ),
    )


def check_forward(bound: Bound, case: Case) -> None:
    """Raise AssertionError when the result is wrong."""
    _check("out", bound.forward(), truth(case.workload, case.offsets).out, case.dtype)


def check_gradients(bound: Bound, case: Case) -> None:
    """Raise AssertionError when a gradient is wrong."""
    expected = truth(case.workload, case.offsets).grads
    names = ("grad_value", "grad_locations", "grad_weights")
    for name, grad, true in zip(names, bound.forward_backward(), expected, strict=True):
        if true is not None:
            assert grad is not None, f"{name}: missing"
            _check(name, grad, true, case.dtype)


def _check(name: str, actual: Tensor, true: Tensor, dtype: torch.dtype) -> None:
    error = (actual.double().reshape(true.shape) - true).abs().max() / true.abs().max()
    assert error <= TOLERANCE[dtype], f"{name}: error {error:.1e} of the largest entry, in {dtype}"
