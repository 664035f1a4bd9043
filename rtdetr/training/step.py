# SPDX-License-Identifier: Apache-2.0
"""One step of training: gradients of a batch in parts that fit into memory, then one update."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..data import Batch
from ..errors import RTDetrError
from ..model import RTDetrV2ForObjectDetection
from .ema import MovingAverage
from .schedule import Schedule

__all__ = ["Precision", "StepResult", "TrainingStep"]


@dataclass(frozen=True)
class Precision:
    """What is computed in 16 bits.

    Args:
        dtype: of matrix products and convolutions under autocast; None computes all in float32.
        scaler: of gradients, which float16 needs.
    """

    dtype: torch.dtype | None = None
    scaler: torch.amp.GradScaler | None = None

    def autocast(self, device: torch.device) -> AbstractContextManager[object]:
        enabled = self.dtype is not None
        return torch.autocast(device.type, self.dtype, enabled=enabled)


@dataclass(frozen=True)
class StepResult:
    """What a step did.

    Args:
        losses: terms by name, and their sum as ``loss``; those of a step that was skipped too.
        gradient_norm: before it was clipped.
        skipped: whether loss or gradient was not finite, and the weights stayed.
        part: images of each part of the batch.
    """

    losses: dict[str, float]
    gradient_norm: float
    skipped: bool
    part: int


@dataclass
class TrainingStep:
    """Steps of a run, each a function of its batch and the state of model, optimizer and scaler.

    Where memory ends, the parts of a batch are halved for this step and all that follow.

    Args:
        model: what trains.
        optimizer: over its groups.
        schedule: of the learning rates.
        average: follows the model after every step that was not skipped.
        part: images whose gradients are computed at once.
        clip: largest norm of the gradient.
        precision: of the forward pass.
    """

    model: RTDetrV2ForObjectDetection
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    average: MovingAverage[RTDetrV2ForObjectDetection]
    part: int
    clip: float
    precision: Precision = field(default_factory=Precision)

    def __call__(self, batch: Batch, number: int) -> StepResult:
        """Take a step.

        Args:
            batch: pixels may be floating too, within 0..1.
            number: of the step in the run, the first being 0.

        Raises:
            RTDetrError: memory does not suffice for a single image.
        """
        self.schedule.apply(self.optimizer, number)
        losses = self._backward_within_memory(batch)
        names, values = list(losses), torch.stack(list(losses.values()))
        norm = self._clip()
        *terms, gradient_norm = torch.cat([values, norm[None]]).tolist()
        skipped = not (torch.isfinite(values).all() and torch.isfinite(norm))
        self._update(skipped)
        self.optimizer.zero_grad(set_to_none=True)
        report = dict(zip(names, terms, strict=True))
        return StepResult(report, gradient_norm, skipped, self.part)

    def state_dict(self) -> dict[str, Any]:
        """All that the next steps depend on, but the model's weights."""
        scaler = self.precision.scaler
        return {
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.state_dict(),
            "scaler": None if scaler is None else scaler.state_dict(),
            "part": self.part,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        self.average.load_state_dict(state["average"])
        if self.precision.scaler is not None and state["scaler"] is not None:
            self.precision.scaler.load_state_dict(state["scaler"])
        self.part = state["part"]

    def _backward_within_memory(self, batch: Batch) -> dict[str, Tensor]:
        while True:
            try:
                return self._backward(batch)
            except torch.OutOfMemoryError as error:
                self.optimizer.zero_grad(set_to_none=True)
                if self.part == 1:
                    height, width = batch["pixel_values"].shape[2:]
                    raise RTDetrError(
                        f"out of memory with one image of {width}x{height} at a time: train at a smaller size (imgsz), "
                        "a smaller model, or in 16 bits (amp)"
                    ) from error
            # Outside of the handler, whose traceback would keep the tensors of the failed part.
            self.part = -(-self.part // 2)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def _backward(self, batch: Batch) -> dict[str, Tensor]:
        """Gradients of the loss of the whole batch, part by part, and its terms."""
        totals: dict[str, Tensor] = {}
        for part in _split(batch, self.part):
            losses = self._losses(part)
            # A part's loss is divided by its own number of objects; the batch's, by that of all.
            share = max(1, _count_objects(part)) / max(1, _count_objects(batch))
            loss = torch.stack(list(losses.values())).sum() * share
            self._scaled(loss).backward()  # type: ignore[no-untyped-call]
            for name, term in (losses | {"loss": loss / share}).items():
                totals[name] = totals.get(name, torch.zeros_like(term)) + share * term.detach()
        return totals

    def _losses(self, part: Batch) -> dict[str, Tensor]:
        device = self.model.device
        pixels = part["pixel_values"].to(device, non_blocking=True)
        if not pixels.is_floating_point():
            pixels = pixels.float() / 255
        labels = part["labels"]
        generators = [torch.Generator().manual_seed(int(label["noise_seed"])) for label in labels]
        with self.precision.autocast(device):
            outputs = self.model(pixels, labels=labels, generators=generators, return_dict=True)
        losses: dict[str, Tensor] = outputs.loss_dict
        return losses

    def _scaled(self, loss: Tensor) -> Tensor:
        scaler = self.precision.scaler
        return loss if scaler is None else scaler.scale(loss)

    def _clip(self) -> Tensor:
        """Limit the gradient, and return the norm that it had."""
        if self.precision.scaler is not None:
            self.precision.scaler.unscale_(self.optimizer)
        return nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)

    def _update(self, skipped: bool) -> None:
        scaler = self.precision.scaler
        if scaler is not None:
            # It leaves the weights alone where it found infinity, and lowers its factor.
            scaler.step(self.optimizer)
            scaler.update()
        elif not skipped:
            self.optimizer.step()
        if not skipped:
            self.average.update(self.model)


def _split(batch: Batch, size: int) -> Iterator[Batch]:
    """The batch in parts of at most ``size`` images."""
    for start in range(0, len(batch["labels"]), size):
        part = slice(start, start + size)
        yield {"pixel_values": batch["pixel_values"][part], "labels": batch["labels"][part]}


def _count_objects(batch: Batch) -> int:
    return sum(len(label["class_labels"]) for label in batch["labels"])
