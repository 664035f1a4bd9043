# SPDX-License-Identifier: Apache-2.0
"""Synchronized normalization in one process, beside torch's; test_distributed.py has two."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from rtdetr.training.distributed import World
from rtdetr.training.sync_norm import NormExchange, SyncedBatchNorm, synchronize_norms

TWO = World(0, 2)  # of which nothing is asked here


def draw_norm(channels: int = 6) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels, eps=1e-3, momentum=0.2)
    with torch.no_grad():
        for tensor in (norm.weight, norm.bias, norm.running_mean):
            assert tensor is not None
            tensor.normal_(generator=torch.Generator().manual_seed(1))
    return norm


def run(norm: nn.Module, x: Tensor) -> list[Tensor]:
    """Output, gradients and buffers."""
    x = x.detach().requires_grad_()
    y = norm(x)
    random = torch.Generator().manual_seed(2)
    y.backward(torch.randn(y.shape, generator=random, dtype=torch.float64).to(y.dtype))
    gradients = [tensor.grad for tensor in (x, *norm.parameters()) if tensor.grad is not None]
    return [y.detach(), *gradients, *(buffer.double() for buffer in norm.buffers())]


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, 1e-12), (torch.float32, 1e-4), (torch.bfloat16, 0.05)],
    ids=str,
)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("training", [True, False])
def test_one_process_has_what_torch_has(
    dtype: torch.dtype, tolerance: float, layout: torch.memory_format, training: bool
) -> None:
    """With a mean far from 0, where a difference of squares would lose digits."""
    random = torch.Generator().manual_seed(0)
    x = torch.randn(4, 6, 5, 7, generator=random, dtype=torch.float64) + 3
    x = x.to(dtype).to(memory_format=layout)
    plain = draw_norm().train(training)
    plain = plain.double() if dtype == torch.float64 else plain
    synced = SyncedBatchNorm.of(copy.deepcopy(plain))
    NormExchange(World(), [synced])
    results = zip(run(synced, x), run(plain, x), strict=True)
    for ours, theirs in results:
        assert ours.dtype == theirs.dtype
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


def test_norms_that_train_are_replaced_and_keep_parameters_and_names() -> None:
    model = nn.Sequential(draw_norm(), nn.Sequential(draw_norm(4)), draw_norm(), draw_norm())
    model[2].eval()
    model[3].requires_grad_(False)
    before = dict(model.named_parameters()), list(model.state_dict())
    exchange = synchronize_norms(model, TWO)
    assert [type(layer) is SyncedBatchNorm for layer in model.modules()] == [
        False, True, False, True, False, False,
    ]  # fmt: skip
    assert exchange.width == 13
    assert list(model.state_dict()) == before[1]
    assert all(parameter is before[0][name] for name, parameter in model.named_parameters())


def test_one_process_keeps_its_norms() -> None:
    model = nn.Sequential(draw_norm())
    synchronize_norms(model, World())
    assert type(model[0]) is nn.BatchNorm2d
