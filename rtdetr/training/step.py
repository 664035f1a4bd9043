# SPDX-License-Identifier: Apache-2.0
"""One step of training: gradients of a batch in parts that fit into memory, then one update."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..data import Batch
from ..errors import RTDetrError
from ..loss import BatchTotals, Objects
from ..model import RTDetrV2ForObjectDetection
from .distributed import World
from .ema import MovingAverage
from .schedule import Schedule
from .sync_norm import synchronize_norms

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

    Where memory ends, on any rank, the parts of a batch are halved on all, for this step and those that follow.

    Args:
        model: what trains.
        optimizer: over its groups.
        schedule: of the learning rates.
        average: follows the model after every step that was not skipped.
        part: images whose gradients are computed at once.
        clip: largest norm of the gradient.
        precision: of the forward pass.
        world: the processes that take each step together, each with a batch of the same number of images. The losses
            and the norm in a result are those of all, which has the same value on each.

    All ranks begin with the model and the average of rank 0. Batch normalizations that are in training mode then become
    those of :mod:`~rtdetr.training.sync_norm`, so that a step depends on the images of all ranks and not on which has
    which; parts of the model are frozen before.
    """

    model: RTDetrV2ForObjectDetection
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    average: MovingAverage[RTDetrV2ForObjectDetection]
    part: int
    clip: float
    precision: Precision = field(default_factory=Precision)
    world: World = field(default_factory=World)

    def __post_init__(self) -> None:
        for model in (self.model, self.average.module):
            self.world.synchronize(model)
        self.statistics = _Statistics(self.model)
        self.norms = synchronize_norms(self.model, self.world)

    def __call__(self, batch: Batch, number: int) -> StepResult:
        """Take a step, on all ranks together.

        Args:
            batch: of this rank; pixels may be floating too, within 0..1.
            number: of the step in the run, the first being 0.

        Raises:
            RTDetrError: on some rank memory does not suffice for a single image.
        """
        self.schedule.apply(self.optimizer, number)
        self.statistics.save()
        losses = self._backward_within_memory(batch)
        names, values = list(losses), torch.stack(list(losses.values()))
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        # What is not finite on one rank is not finite in any sum, so that all ranks decide alike from here on.
        self.world.sum_([values, *gradients])
        norm = self._clip()
        *terms, gradient_norm = torch.cat([values, norm[None]]).tolist()
        skipped = not (torch.isfinite(values).all() and torch.isfinite(norm))
        self._update(skipped)
        if skipped:
            self.statistics.restore()
        self.optimizer.zero_grad(set_to_none=True)
        report = dict(zip(names, terms, strict=True))
        return StepResult(report, gradient_norm, skipped, self.part)

    def rehearse(self, batch: Batch) -> None:
        """Compute the gradients of a batch and forget them, so that ``part`` becomes what memory suffices for.

        Args:
            batch: as large as any of the run.

        Raises:
            RTDetrError: on some rank memory does not suffice for a single image.
        """
        self.statistics.save()
        self._backward_within_memory(batch)
        self.statistics.restore()
        self.optimizer.zero_grad(set_to_none=True)

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
        whole = _count_objects(batch, self.world)
        while True:
            losses = self._try_backward(batch, whole)
            is_out_of_memory = self.world.any(losses is None)
            if losses is not None and not is_out_of_memory:
                return losses
            self.optimizer.zero_grad(set_to_none=True)
            self.statistics.restore()
            if self.part == 1:
                height, width = batch["pixel_values"].shape[2:]
                raise RTDetrError(
                    f"out of memory with one image of {width}x{height} at a time: train at a smaller size (imgsz), "
                    "a smaller model, or in 16 bits (amp)"
                )
            self.part = -(-self.part // 2)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def _try_backward(self, batch: Batch, whole: BatchTotals) -> dict[str, Tensor] | None:
        """None where memory does not suffice, after this rank sent all messages that others wait for."""
        self.norms.begin(-(-len(batch["labels"]) // self.part))
        losses = None
        with suppress(torch.OutOfMemoryError):
            losses = self._backward(batch, whole)
        self.norms.finish()
        return losses

    def _backward(self, batch: Batch, whole: BatchTotals) -> dict[str, Tensor]:
        """Gradients of this rank's share of the loss, part by part, and its share of the terms."""
        totals: dict[str, Tensor] = {}
        for part in _split(batch, self.part):
            losses = self._losses(part, whole)
            loss = torch.stack(list(losses.values())).sum()
            self._scaled(loss).backward()  # type: ignore[no-untyped-call]
            for name, term in (losses | {"loss": loss}).items():
                totals[name] = totals.get(name, torch.zeros_like(term)) + term.detach()
        return totals

    def _losses(self, part: Batch, whole: BatchTotals) -> dict[str, Tensor]:
        device = self.model.device
        pixels = part["pixel_values"].to(device, non_blocking=True)
        if not pixels.is_floating_point():
            pixels = pixels.float() / 255
        labels = part["labels"]
        classes = self.model.config.num_labels
        objects = Objects.from_labels(labels, len(labels), classes, device, whole)
        generators = [torch.Generator().manual_seed(int(label["noise_seed"])) for label in labels]
        with self.precision.autocast(device):
            outputs = self.model(pixels, labels=objects, generators=generators, return_dict=True)
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
        if not skipped:
            if scaler is None:
                self.optimizer.step()
            else:
                scaler.step(self.optimizer)
            self.average.update(self.model)
        if scaler is not None:
            scaler.update()  # lowers its factor where it met infinity


class _Statistics:
    """The buffers of a model, which a forward pass changes."""

    def __init__(self, model: nn.Module) -> None:
        self.buffers = list(model.buffers())
        self.copies = [buffer.clone() for buffer in self.buffers]

    @torch.no_grad()
    def save(self) -> None:
        torch._foreach_copy_(self.copies, self.buffers)

    @torch.no_grad()
    def restore(self) -> None:
        torch._foreach_copy_(self.buffers, self.copies)


def _split(batch: Batch, size: int) -> Iterator[Batch]:
    """The batch in parts of at most ``size`` images."""
    for start in range(0, len(batch["labels"]), size):
        part = slice(start, start + size)
        yield {"pixel_values": batch["pixel_values"][part], "labels": batch["labels"][part]}


def _count_objects(batch: Batch, world: World) -> BatchTotals:
    """Of the batches of all ranks."""
    counts = [len(label["class_labels"]) for label in batch["labels"]]
    ranks = world.exchange(torch.tensor([sum(counts), max(counts)]))
    return BatchTotals(int(ranks[:, 0].sum()), int(ranks[:, 1].max()))
