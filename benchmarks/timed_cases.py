# SPDX-License-Identifier: Apache-2.0
"""What is timed: the cases, and one row bound to the tensors of one case."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from peers import ROWS, Kernel, Row
from torch import Tensor

from rtdetr_ops.testing.workloads import Inputs, Offsets, Workload, find_workload, make_inputs

__all__ = ["CASES", "QUICK_CASES", "Bound", "Case", "bind", "inputs_of", "laps"]


@dataclass(frozen=True)
class Case:
    """A workload, a storage dtype and a distribution of the points."""

    workload: Workload
    dtype: torch.dtype
    offsets: Offsets

    @property
    def id(self) -> str:
        """Readable and unique."""
        return f"{self.workload.name} {str(self.dtype).removeprefix('torch.')} {self.offsets}"

    @property
    def lap_count(self) -> int:
        """How often the rows take turns: fewer turns where a single call takes seconds."""
        return 3 if self.workload.is_encoder else 5


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
    """One row on the tensors of one case, in the layout the row takes."""

    leaves: tuple[Tensor, Tensor, Tensor]
    grad_out: Tensor
    kernel: Kernel

    def forward(self) -> Tensor:
        """[B, Q, M*D], without a graph."""
        with torch.no_grad():
            return self.kernel(*self.leaves)

    def forward_backward(self) -> tuple[Tensor | None, ...]:
        """Gradients of value, locations (None in discrete mode) and weights."""
        out = self.kernel(*self.leaves)
        return torch.autograd.grad(out, self.leaves, self.grad_out, allow_unused=True)


@lru_cache(maxsize=1)
def inputs_of(case: Case) -> Inputs:
    """The seeded tensors of a case; the rows of one case share them."""
    return make_inputs(case.workload, case.dtype, seed=0, offsets=case.offsets)


def bind(case: Case, row: Row) -> Bound:
    """``row`` ready to be timed on ``case``."""
    inputs = inputs_of(case)
    kernel = row.bind(case.workload)
    if not row.mixed and case.dtype in (torch.bfloat16, torch.float16):
        kernel = _in_float32(kernel)
    leaves = inputs.leaves
    if row.classic:
        per_level = (len(case.workload.levels), case.workload.points[0])
        value, locations, weights = leaves
        leaves = (value, _leaf(locations, per_level), _leaf(weights, per_level))
    return Bound(leaves, inputs.grad_out, kernel)


def laps(cases: tuple[Case, ...], once: bool) -> Iterator[tuple[Case, int, Row]]:
    """(case, lap, row): rows take turns, so that a slow moment of the machine meets all of them."""
    for case in cases:
        rows = [row for row in ROWS if row.why_not(case.workload) is None]
        for lap in range(1 if once else case.lap_count):
            for row in rows:
                yield case, lap, row


def _leaf(tensor: Tensor, per_level: tuple[int, int]) -> Tensor:
    return tensor.detach().unflatten(3, per_level).requires_grad_()


def _in_float32(kernel: Kernel) -> Kernel:
    def cast(value: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
        return kernel(value.float(), locations, weights.float()).to(value.dtype)

    return cast
