# SPDX-License-Identifier: Apache-2.0
"""Learning rates over the steps of a run."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from .recipes import Recipe

__all__ = ["Schedule"]


@dataclass(frozen=True)
class Schedule:
    """A function of the step alone, so that a resumed run needs no state of it.

    Args:
        steps: of the run.
        warmup: the first steps, over which the factor rises to 1.
        cosine: share of the run, its end, over which the factor falls.
        final: what it falls to.
    """

    steps: int
    warmup: int
    cosine: float
    final: float

    @classmethod
    def of(cls, recipe: Recipe, steps: int) -> Schedule:
        return cls(steps, recipe.warmup, recipe.cosine, recipe.final_lr)

    def factor(self, step: int) -> float:
        """What learning rates are multiplied by in a step, the first being 0."""
        rising = min(1.0, (step + 1) / max(1, self.warmup))
        start = self.steps * (1 - self.cosine)
        if step < start or self.cosine == 0:
            return rising
        done = min(1.0, (step - start) / max(1.0, self.steps - start))
        falling = self.final + (1 - self.final) * (1 + math.cos(math.pi * done)) / 2
        return rising * falling

    def apply(self, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Set the learning rates of ``step``; each group keeps its own as ``initial_lr``."""
        for group in optimizer.param_groups:
            initial = group.setdefault("initial_lr", group["lr"])
            group["lr"] = initial * self.factor(step)
