# SPDX-License-Identifier: Apache-2.0
"""One comparison for all backends: the result and every gradient against the reference in float64.

A backend may be off by at most twice what the reference is off when it runs in the same dtypes, plus
:data:`FLOOR`. Nothing here knows a backend by name except that the reference defines the truth.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from .. import _extension
from ..ms_deform_attn.op import BACKENDS
from .inputs import Call, Case, make_call

__all__ = ["FLOOR", "Target", "assert_close_to_truth", "assert_matches_reference", "run", "targets"]

FLOOR = 8
"""Allowance for another order of the same sums: steps of the compute type at the largest number of a tensor."""

_ISAS = ("baseline", "avx2", "avx512")


@dataclass(frozen=True)
class Target:
    """A backend as the tests run it.

    Args:
        name: test id.
        backend: a name of the table of backends.
        isa: instruction set of the CPU kernels; None for the widest.
        device: where the tensors lie.
    """

    name: str
    backend: str
    isa: str | None = None
    device: str = "cpu"

    @contextmanager
    def selected(self) -> Iterator[None]:
        """Run the CPU kernels of ``isa`` inside the ``with`` block."""
        if self.isa is None:
            yield
            return
        _extension.use_cpu_isa(self.isa)
        try:
            yield
        finally:
            _extension.use_cpu_isa(None)

    def run(self, call: Call) -> dict[str, Tensor]:
        """The result and the gradients of ``call`` on this target, back on the CPU; see :func:`run`."""
        with self.selected():
            results = run(call.to(self.device), self.backend)
        return {name: tensor.cpu() for name, tensor in results.items()}


def targets() -> tuple[Target, ...]:
    """Every backend that runs here: the ``cpu`` one once per instruction set, those of a GPU where there is a GPU."""
    runnable = []
    for backend in BACKENDS:
        if backend.support.missing is not None:
            continue
        isas = [isa for isa in _ISAS if _has_isa(isa)] if backend.name == "cpu" else []
        if isas:
            runnable += [Target(f"cpu_{isa}", "cpu", isa) for isa in isas]
        elif backend.support.devices is None or "cpu" in backend.support.devices:
            runnable.append(Target(backend.name, backend.name))
        elif torch.cuda.is_available():
            runnable.append(Target(backend.name, backend.name, device="cuda"))
    return tuple(runnable)


def run(call: Call, backend: str) -> dict[str, Tensor]:
    """``output`` and one ``grad_<argument>`` for each differentiable argument, zeros where there is no gradient."""
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in call.tensors.items()}
    output = call.entry(**leaves, **call.options, backend=backend)
    gradients = torch.autograd.grad(
        output, tuple(leaves.values()), call.grad_out, materialize_grads=True
    )
    names = (f"grad_{name}" for name in leaves)
    return {"output": output.detach(), **dict(zip(names, gradients, strict=True))}


def assert_matches_reference(target: Target, case: Case) -> None:
    """Result and gradients of ``target`` on ``case`` are as close to the truth as the reference is.

    Raises:
        AssertionError: they are not; the message names the tensor, its error and the tolerance.
    """
    call, expected = _expected(case)
    _compare(target.run(call), expected)


def assert_close_to_truth(target: Target, call: Call, *, may_cancel: bool = False) -> None:
    """As :func:`assert_matches_reference`, for a call made by hand.

    Args:
        target: what is tested.
        call: the call.
        may_cancel: whether a tensor may be nothing but the rounding of larger numbers: the steps are then those of the
            largest number of all tensors, inputs included.
    """
    _compare(target.run(call), _measure_reference(call, may_cancel))


@dataclass(frozen=True)
class _Expected:
    truth: Tensor  # float64
    dtype: torch.dtype
    tolerance: float


@lru_cache(maxsize=256)
def _expected(case: Case) -> tuple[Call, dict[str, _Expected]]:
    """Computed once for all targets."""
    call = make_call(case)
    return call, _measure_reference(call)


def _measure_reference(call: Call, may_cancel: bool = False) -> dict[str, _Expected]:
    same = run(call, "reference")
    truth = run(call.map(Tensor.double), "reference")
    step = torch.finfo(torch.promote_types(call.tensors["value"].dtype, torch.float32)).eps
    largest = {name: _largest(tensor) for name, tensor in truth.items()}
    if may_cancel:
        inputs = (*call.tensors.values(), call.grad_out)
        largest = dict.fromkeys(truth, max(*largest.values(), *map(_largest, inputs)))
    return {
        name: _Expected(
            truth[name],
            same[name].dtype,
            2 * _distance(same[name], truth[name]) + FLOOR * step * largest[name],
        )
        for name in truth
    }


def _compare(results: dict[str, Tensor], expected: dict[str, _Expected]) -> None:
    for name, (result, reference) in {n: (results[n], expected[n]) for n in expected}.items():
        got = (result.dtype, result.shape)
        assert got == (reference.dtype, reference.truth.shape), f"{name}: got {got}"
        error = _distance(result, reference.truth)
        # Written so that NaN fails.
        assert error <= reference.tolerance, (
            f"{name}: off by {error}, tolerance {reference.tolerance}"
        )


def _distance(a: Tensor, b: Tensor) -> float:
    return _largest(a.double() - b)


def _largest(tensor: Tensor) -> float:
    return tensor.abs().max().item() if tensor.numel() else 0.0


def _has_isa(isa: str) -> bool:
    """Whether this build and processor have an instruction set; asking is the only way to know."""
    if _extension.MISSING is not None:
        return False
    try:
        _extension.use_cpu_isa(isa)
    except ValueError:
        return False
    _extension.use_cpu_isa(None)
    return True
