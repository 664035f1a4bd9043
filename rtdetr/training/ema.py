# SPDX-License-Identifier: Apache-2.0
"""The moving average of a model's weights, which is what is evaluated and kept."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

__all__ = ["MovingAverage"]

M = TypeVar("M", bound=nn.Module)


class MovingAverage(Generic[M]):
    """A copy of a model whose weights and statistics follow those that train.

    After update u the copy is ``d * copy + (1 - d) * model`` with ``d = decay * (1 - exp(-u / tau))``: young averages
    follow closely. Counters, which are no floats, are copied.

    Args:
        model: what trains.
        decay: within 0..1.
        tau: updates by which the average grows old.
    """

    def __init__(self, model: M, *, decay: float, tau: float) -> None:
        if not 0 <= decay <= 1:
            raise ValueError(f"decay: expected a number within 0..1, got {decay}")
        if not tau > 0:
            raise ValueError(f"tau: expected a number above 0, got {tau}")
        self.module: M = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        self.tau = tau
        self.updates = 0

    @torch.no_grad()
    def update(self, model: M) -> None:
        """Take in the weights of ``model`` after a step."""
        self.updates += 1
        weight = 1 - self.decay * (1 - math.exp(-self.updates / self.tau))
        floats, followed = [], []
        for ours, theirs in zip(_tensors(self.module), _tensors(model), strict=True):
            if ours.is_floating_point():
                floats.append(ours)
                followed.append(theirs)
            else:
                ours.copy_(theirs)
        torch._foreach_lerp_(floats, followed, weight)

    def state_dict(self) -> dict[str, Any]:
        return {"module": self.module.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.module.load_state_dict(state["module"])
        self.updates = state["updates"]


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    """Parameters and buffers, each once, whatever number of names it has."""
    yield from model.parameters()
    yield from model.buffers()
