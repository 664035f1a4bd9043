# SPDX-License-Identifier: Apache-2.0
"""One training step of RT-DETRv2: as this package takes it, and as a loop around the model of transformers does.

Both begin with the same weights, on the same images and objects, with as many denoising queries; gradients are clipped,
AdamW has the same groups, and an average of weights follows.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from rtdetr import RTDetrV2ForObjectDetection
from rtdetr.data import Batch
from rtdetr.training.ema import MovingAverage
from rtdetr.training.optimizer import make_optimizer
from rtdetr.training.recipes import find_recipe
from rtdetr.training.schedule import Schedule
from rtdetr.training.step import TrainingStep
from rtdetr_ops.testing.models import make_rt_detr_v2

__all__ = ["LoopStep", "check_learning", "make_batch", "make_models", "make_step"]

RECIPE = find_recipe("rtdetrv2_r18vd")
SCHEDULE = Schedule.of(RECIPE, steps=10**6)
"""Only its first step is taken, again and again: the weights hardly move, and all steps have the same work."""

AGREEMENT = 1e-3
"""Largest difference of a loss term and of a parameter's gradient, in parts of it, at which two models learn alike."""

SEED = 1
"""Of the inputs. With 0 a unit of the decoder's feed-forward is so near 0 at 640x640 that rounding decides whether it
passes a gradient on: its row of one weight differs by 1.7e-3 in float32, all other gradients by 5e-4 at most."""

SMALLEST = 1e-3
"""Norm below which a difference is not measured in parts of it: a bias before a normalization has a gradient of 0, and
computes some 1e-7."""

NO_NOISE = {"label_noise_ratio": 0.0, "box_noise_scale": 1e-9}
"""Denoising queries that are their objects: noise is drawn in another order. At 0 transformers leaves the boxes without
the inverse sigmoid that the decoder expects."""


def make_models() -> tuple[RTDetrV2ForObjectDetection, Any]:
    """Ours and that of transformers with the same weights, in training mode; all of the backbone trains."""
    theirs = make_rt_detr_v2(freeze_backbone_batch_norms=False)
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        ours = RTDetrV2ForObjectDetection.from_pretrained(folder)
    return ours.train(), theirs.train()


def make_batch(images: int, side: int, objects: int, classes: int = 80) -> Batch:
    """Seeded noise, [B, 3, side, side] in float32, with so many objects in each image."""
    random = torch.Generator().manual_seed(SEED)
    pixels = torch.rand(images, 3, side, side, generator=random)
    labels: list[Any] = []
    for image in range(images):
        center = 0.2 + 0.6 * torch.rand(objects, 2, generator=random)
        size = 0.05 + 0.3 * torch.rand(objects, 2, generator=random)
        labels.append(
            {
                "class_labels": torch.randint(classes, (objects,), generator=random),
                "boxes": torch.cat([center, size], 1),
                "noise_seed": torch.tensor([image]),
            }
        )
    return {"pixel_values": pixels, "labels": labels}


def check_learning(
    ours: nn.Module,
    theirs: nn.Module,
    batch: Batch,
    around: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> float:
    """The largest difference of loss terms, and of what their classification terms teach each parameter.

    Box terms teach another thing: ours looks forward twice, as the original does.

    Args:
        ours: the model in question.
        theirs: that of transformers, unpatched.
        batch: what both see.
        around: what ``ours`` alone learns in.

    Raises:
        AssertionError: it is too large, or one of them lacks a term or a gradient.
    """
    with around():
        losses, gradients = _learn(ours, batch)
    true_losses, true_gradients = _learn(theirs, batch)
    worst = 0.0
    for found, truth in ((losses, true_losses), (gradients, true_gradients)):
        if found.keys() != truth.keys():
            raise AssertionError(f"ours or theirs alone: {sorted(found.keys() ^ truth.keys())}")
        for name, value in truth.items():
            difference = float((found[name] - value).norm() / value.norm().clamp(min=SMALLEST))
            if not difference <= AGREEMENT:
                raise AssertionError(f"{name}: differs from transformers by {difference:.1e}")
            worst = max(worst, difference)
    return worst


def _learn(model: Any, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Loss terms, and gradients of those of classification."""
    with _settings(model.config, NO_NOISE):
        terms = model(batch["pixel_values"], labels=batch["labels"]).loss_dict
    # Times 0, not left out: each parameter keeps its place in the graph.
    torch.stack([term * ("vfl" in name) for name, term in terms.items()]).sum().backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return {name: term.detach() for name, term in terms.items()}, gradients


@contextmanager
def _settings(config: Any, values: dict[str, float]) -> Iterator[None]:
    kept = {name: getattr(config, name) for name in values}
    try:
        for name, value in values.items():
            setattr(config, name, value)
        yield
    finally:
        for name, value in kept.items():
            setattr(config, name, value)


def make_step(model: RTDetrV2ForObjectDetection, batch: Batch) -> TrainingStep:
    """That of ``rtdetr train``."""
    optimizer, average = _optimizer_and_average(model)
    return TrainingStep(model, optimizer, SCHEDULE, average, len(batch["labels"]), RECIPE.clip)


class LoopStep:
    """What somebody writes around a model of transformers; its call is that of ``TrainingStep``."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.optimizer, self.average = _optimizer_and_average(model)

    def __call__(self, batch: Batch, number: int) -> float:
        SCHEDULE.apply(self.optimizer, number)
        loss = self.model(batch["pixel_values"], labels=batch["labels"]).loss
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), RECIPE.clip)
        self.optimizer.step()
        self.average.update(self.model)
        self.optimizer.zero_grad(set_to_none=True)
        return float(loss.item())


def _optimizer_and_average(model: Any) -> tuple[torch.optim.Optimizer, MovingAverage[Any]]:
    optimizer = make_optimizer(model, model.model.backbone, RECIPE)
    return optimizer, MovingAverage(model, decay=RECIPE.ema_decay, tau=RECIPE.ema_tau)
