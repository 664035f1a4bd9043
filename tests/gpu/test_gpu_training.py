# SPDX-License-Identifier: Apache-2.0
"""The layer under autocast and under torch.compile."""

from __future__ import annotations

import pytest
import torch
from on_gpu import DEVICE, GpuTarget
from torch import Tensor, nn

import rtdetr_ops

LEVELS = ((8, 12), (4, 6))
COMPILER = "inductor" if DEVICE == "cuda" else "aot_eager"


@pytest.fixture
def layer(kernel: GpuTarget) -> nn.Module:
    torch.manual_seed(0)
    return rtdetr_ops.MSDeformAttn(d_model=64, n_levels=2, n_heads=4, n_points=4).to(DEVICE)


def arguments() -> tuple[Tensor, Tensor, Tensor]:
    """Query, reference points, features."""
    random = torch.Generator().manual_seed(0)
    pixels = sum(height * width for height, width in LEVELS)
    drawn = (
        torch.randn((2, 50, 64), generator=random),
        torch.rand((2, 50, 1, 4), generator=random),
        torch.randn((2, pixels, 64), generator=random),
    )
    query, reference, features = (tensor.to(DEVICE) for tensor in drawn)
    return query.requires_grad_(), reference, features.requires_grad_()


def results(layer: nn.Module, call: nn.Module, backend: str) -> list[Tensor]:
    """The output, then the gradients of query, features and parameters."""
    query, reference, features = arguments()
    with rtdetr_ops.use_backend(backend):
        out = call(query, reference, features, LEVELS)
        leaves = [query, features, *layer.parameters()]
        grads = torch.autograd.grad(out.float().square().sum(), leaves)
    return [out.detach().float(), *grads]


def assert_near(got: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    for one, other in zip(got, expected, strict=True):
        largest = other.abs().max().item()
        torch.testing.assert_close(one, other, rtol=0, atol=tolerance * largest)


def test_autocast(kernel: GpuTarget, layer: nn.Module) -> None:
    expected = results(layer, layer, kernel.backend)
    with torch.autocast(DEVICE, dtype=torch.bfloat16):
        got = results(layer, layer, kernel.backend)
        plain = results(layer, layer, "reference")
    # bfloat16 keeps 8 bits; the projections round before and after the operator.
    assert_near(got[:1], expected[:1], 0.03)
    assert_near(got[:1], plain[:1], 0.03)
    assert all(grad.isfinite().all() for grad in got)


def test_compiled_in_one_graph(kernel: GpuTarget, layer: nn.Module) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, backend=COMPILER)
    assert_near(
        results(layer, compiled, kernel.backend), results(layer, layer, kernel.backend), 1e-4
    )
