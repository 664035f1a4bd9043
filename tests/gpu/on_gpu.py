# SPDX-License-Identifier: Apache-2.0
"""Calls and targets of the shared tester on a GPU, in memory that is poisoned before every call."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from rtdetr_ops.ms_deform_attn.op import BACKENDS
from rtdetr_ops.testing.inputs import Call
from rtdetr_ops.testing.tester import Target, run

__all__ = ["DEVICE", "GpuTarget", "forward_backward", "gpu_targets", "poison"]

DEVICE = os.environ.get("RTDETR_OPS_TEST_DEVICE", "cuda")


@dataclass(frozen=True)
class GpuTarget(Target):
    """A backend of the table on a device."""

    def run(self, call: Call) -> dict[str, Tensor]:
        """The result and the gradients, back on the CPU; no byte of fresh memory was zero before."""
        call = call.to(self.device)
        poison()
        return {name: tensor.cpu() for name, tensor in run(call, self.backend).items()}


def gpu_targets() -> list[GpuTarget]:
    """Every row of this installation with kernels for tensors of ``DEVICE``."""
    rows = [row for row in BACKENDS if DEVICE in (row.support.devices or ())]
    return [GpuTarget(row.name, row.name, device=DEVICE) for row in rows if not row.support.missing]


def poison() -> None:
    """Fill with NaN what the caching allocator hands out next: a forgotten element is no lucky zero."""
    if DEVICE != "cuda" or os.environ.get("PYTORCH_NO_CUDA_MEMORY_CACHING"):
        return  # tests/conftest.py poisons the CPU's memory; without a cache nothing can be prepared
    # Every size from the smallest block on, for the allocator hands out the tightest that fits.
    blocks = [
        torch.full((2**power,), 0xFF, dtype=torch.uint8, device=DEVICE)
        for power in range(9, 26)
        for _ in range(4)
    ]
    del blocks


def forward_backward(call: Call, backend: str) -> Callable[[], tuple[Tensor, ...]]:
    """A function that runs ``call`` on the same leaves every time: the result, a gradient for each."""
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in call.tensors.items()}

    def once() -> tuple[Tensor, ...]:
        out = call.entry(**leaves, **call.options, backend=backend)
        inputs = tuple(leaves.values())
        grads = torch.autograd.grad(out, inputs, call.grad_out, materialize_grads=True)
        return out.detach(), *grads

    return once
