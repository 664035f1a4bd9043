# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
from torch import nn

from rtdetr.training.schedule import Schedule


def test_rates_rise_stay_and_fall() -> None:
    schedule = Schedule(steps=1000, warmup=100, cosine=0.3, final=0.05)
    assert schedule.factor(0) == pytest.approx(0.01)
    assert schedule.factor(99) == 1
    assert schedule.factor(699) == 1
    assert schedule.factor(850) == pytest.approx(0.525)
    assert schedule.factor(1000) == pytest.approx(0.05)
    assert schedule.factor(5000) == pytest.approx(0.05)


def test_the_published_schedule_stays() -> None:
    schedule = Schedule(steps=100_000, warmup=2000, cosine=0.0, final=0.05)
    assert schedule.factor(1999) == schedule.factor(99_999) == 1
    assert schedule.factor(999) == pytest.approx(0.5)


def test_each_group_keeps_its_own_rate() -> None:
    parameters = [nn.Parameter(torch.zeros(1)) for _ in range(2)]
    groups = [{"params": [p], "lr": lr} for p, lr in zip(parameters, (1e-4, 1e-5), strict=True)]
    optimizer = torch.optim.AdamW(groups)
    schedule = Schedule(steps=10, warmup=4, cosine=0.0, final=1.0)
    for step, factor in enumerate((0.25, 0.5, 0.75, 1.0, 1.0)):
        schedule.apply(optimizer, step)
        rates = [group["lr"] for group in optimizer.param_groups]
        assert rates == pytest.approx([1e-4 * factor, 1e-5 * factor])
