# SPDX-License-Identifier: Apache-2.0
"""What is timed: the cases, and one contender bound to the tensors of one case."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from core.fused_entry import FusedInputs, bind_fused_entry, fused_inputs
from core.peers import CONTENDERS, Contender, Kernel
from rtdetr_ops.testing.workloads import Inputs, Offsets, Workload, find_workload, make_inputs

__all__ = ["CASES", "QUICK_CASES", "Bound", "Case", "bind", "float64_inputs", "inputs_of", "turns"]


@dataclass(frozen=True)
class Case:
    """What one call computes.

    Args:
        workload: the shape.
        dtype: of the storage.
        offsets: how the points are spread.
        device: where the tensors lie.
        fused: whether softmax and locations are part of the call.
    """

    workload: Workload
    dtype: torch.dtype
    offsets: Offsets
    device: str = "cpu"
    fused: bool = False

    @property
    def id(self) -> str:
        """Readable; unique among the cases of one entry on one device."""
        return f"{self.workload.name} {str(self.dtype).removeprefix('torch.')} {self.offsets}"

    @property
    def rounds(self) -> int:
        """How often the contenders take turns: fewer rounds where a single call takes seconds."""
        return 3 if self.workload.is_encoder else 5

    @property
    def gather_bytes(self) -> int:
        """What the sampled pixels weigh, each counted as often as it is read."""
        shape = self.workload
        corners = 1 if shape.mode == "discrete" else 4
        pixels = shape.batch * shape.queries * shape.heads * shape.taps * corners
        return pixels * shape.channels * self.dtype.itemsize


def _cases(dtype: torch.dtype, offsets: Offsets, *names: str) -> tuple[Case, ...]:
    return tuple(Case(find_workload(name), dtype, offsets) for name in names)


CASES = (
    *_cases(torch.float32, "ring", "decoder_b1", "decoder_b8", "decoder_ragged"),
    *_cases(torch.float32, "ring", "decoder_discrete", "encoder_800x1333", "mask2former_1024"),
    *_cases(torch.float32, "uniform", "decoder_b1", "encoder_800x1333"),
    *_cases(torch.bfloat16, "ring", "decoder_b1", "decoder_b8", "encoder_800x1333"),
)

QUICK_CASES = _cases(torch.float32, "ring", "decoder_b1", "decoder_ragged", "decoder_discrete")


@dataclass(frozen=True)
class Bound:
    """One contender on the tensors of one case, in the layout the contender takes."""

    leaves: tuple[Tensor, ...]
    grad_out: Tensor
    kernel: Kernel

    def forward(self) -> Tensor:
        """[B, Q, M*D], without a graph."""
        with torch.no_grad():
            return self.kernel(*self.leaves)

    def forward_backward(self) -> tuple[Tensor | None, ...]:
        """One gradient for each leaf, None for points in discrete mode."""
        out = self.kernel(*self.leaves)
        return torch.autograd.grad(out, self.leaves, self.grad_out, allow_unused=True)


@lru_cache(maxsize=1)
def float64_inputs(workload: Workload, offsets: Offsets, device: str) -> Inputs:
    """The seeded numbers of a case in float64."""
    inputs = make_inputs(workload, torch.float64, seed=0, offsets=offsets)
    return Inputs(*(tensor.detach().to(device) for tensor in inputs))


@lru_cache(maxsize=1)
def inputs_of(case: Case) -> Inputs | FusedInputs:
    """The tensors of a case; its contenders share them. Locations keep at least float32."""
    numbers = float64_inputs(case.workload, case.offsets, case.device)
    if case.fused:
        return fused_inputs(case.workload, numbers, case.dtype)
    coordinate = torch.promote_types(case.dtype, torch.float32)
    return Inputs(
        _leaf(numbers.value.to(case.dtype)),
        _leaf(numbers.locations.to(coordinate)),
        _leaf(numbers.weights.to(case.dtype)),
        numbers.grad_out.to(case.dtype),
    )


def bind(case: Case, contender: Contender) -> Bound:
    """``contender`` ready to be timed on ``case``."""
    inputs = inputs_of(case)
    leaves = inputs.leaves
    with torch.device(case.device):
        kernel = (
            bind_fused_entry(contender, case.workload)
            if case.fused
            else contender.bind(case.workload)
        )
    if not contender.mixed and case.dtype in (torch.bfloat16, torch.float16):
        kernel = _in_float32(kernel)
    if contender.classic and not case.fused:
        per_level = (len(case.workload.levels), case.workload.points[0])
        value, *taps = leaves
        leaves = (value, *(_leaf(tensor.unflatten(3, per_level)) for tensor in taps))
    return Bound(leaves, inputs.grad_out, kernel)


def turns(cases: tuple[Case, ...], once: bool) -> Iterator[tuple[Case, int, Contender]]:
    """(case, round, contender): contenders take turns, so that a slow moment of the machine meets all of them."""
    for case in cases:
        contenders = [
            contender
            for contender in CONTENDERS
            if contender.why_not(case.workload, case.device) is None
        ]
        for number in range(1 if once else case.rounds):
            for contender in contenders:
                yield case, number, contender


def _leaf(tensor: Tensor) -> Tensor:
    return tensor.detach().requires_grad_()


def _in_float32(kernel: Kernel) -> Kernel:
    def cast(*leaves: Tensor) -> Tensor:
        return kernel(*(leaf.float() for leaf in leaves)).to(leaves[0].dtype)

    return cast
