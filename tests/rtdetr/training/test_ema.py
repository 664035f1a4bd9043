# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import pytest
import torch
from model_cases import tiny_model
from torch import nn

from rtdetr.training.ema import MovingAverage


def test_weights_and_statistics_follow_by_the_published_formula() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    average = MovingAverage(model, decay=0.9, tau=5.0)
    expected = {name: tensor.double() for name, tensor in model.state_dict().items()}
    for update in range(1, 7):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += torch.randn_like(parameter)
        model(torch.randn(8, 3))
        average.update(model)
        decay = 0.9 * (1 - math.exp(-update / 5))
        for name, tensor in model.state_dict().items():
            expected[name] = decay * expected[name] + (1 - decay) * tensor.double()
    state = average.module.state_dict()
    assert state["1.num_batches_tracked"] == 6
    for name in set(state) - {"1.num_batches_tracked"}:
        torch.testing.assert_close(state[name].double(), expected[name], rtol=1e-5, atol=1e-6)


def test_a_tensor_of_two_names_follows_once() -> None:
    model = tiny_model()
    average = MovingAverage(model, decay=1.0, tau=1.0)
    before = model.class_embed[0].weight.detach().clone()
    with torch.no_grad():
        model.class_embed[0].weight += 1
    average.update(model)
    moved = average.module.class_embed[0].weight - before
    torch.testing.assert_close(moved, torch.full_like(moved, math.exp(-1)))
    assert average.module.class_embed is average.module.model.decoder.class_embed


def test_it_evaluates_and_does_not_train() -> None:
    model = nn.BatchNorm1d(2).train()
    average = MovingAverage(model, decay=0.9, tau=1.0)
    assert not average.module.training
    assert not any(p.requires_grad for p in average.module.parameters())
    assert model.training


def test_a_restored_average_goes_on_as_if_never_stopped() -> None:
    model = nn.Linear(2, 2)
    first = MovingAverage(model, decay=0.9, tau=5.0)
    first.update(nn.Linear(2, 2))
    second = MovingAverage(nn.Linear(2, 2), decay=0.9, tau=5.0)
    second.load_state_dict(first.state_dict())
    other = nn.Linear(2, 2)
    for average in (first, second):
        average.update(other)
    assert torch.equal(first.module.weight, second.module.weight)


@pytest.mark.parametrize(("decay", "tau"), [(1.5, 1.0), (-0.1, 1.0), (0.9, 0.0)])
def test_numbers_out_of_range_are_named(decay: float, tau: float) -> None:
    with pytest.raises(ValueError, match=r"^(decay|tau): expected a number"):
        MovingAverage(nn.Linear(1, 1), decay=decay, tau=tau)
