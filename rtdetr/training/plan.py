# SPDX-License-Identifier: Apache-2.0
"""What follows from a user's options, the data and the model: every number of a run, before it starts."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from ..data import sides_for, strong_epochs
from ..devices import count_cores
from ..errors import UsageError
from ..model import RTDetrV2ForObjectDetection
from .distributed import World
from .options import TrainOptions
from .recipes import Recipe, recipe_for
from .step import Precision

__all__ = ["Plan", "make_plan", "make_precision"]

FINETUNE_EPOCHS = 50
CPU_PIXELS = 4 * 640 * 640
"""Of the images whose gradients a CPU computes at once."""
MOST_WORKERS = 8


@dataclass(frozen=True)
class Plan:
    """The numbers of a run.

    Args:
        recipe: with the learning rates of this run.
        images: N, of the training split.
        batch: images whose gradients are computed at once on each rank.
        accum: such batches in a step.
        ranks: R, processes that share a step.
        steps_per_epoch: steps of an epoch.
        size: (height, width) of the input.
        sides: from which each step of the multi-scale epochs draws its size; empty for one size.
        lr_factor: by which the images of a step changed the learning rates.
        workers: processes that read images, on each rank.
        augment: whether images are augmented, beyond flips.
    """

    recipe: Recipe
    images: int
    batch: int
    accum: int
    ranks: int
    steps_per_epoch: int
    size: tuple[int, int]
    sides: tuple[int, ...]
    lr_factor: float
    workers: int
    augment: bool

    @property
    def images_per_rank(self) -> int:
        """Of a step."""
        return self.batch * self.accum

    @property
    def effective_batch(self) -> int:
        """Images of a step, over all ranks."""
        return self.batch * self.accum * self.ranks

    @property
    def steps(self) -> int:
        """Of the run."""
        return self.recipe.epochs * self.steps_per_epoch

    def has_sides(self, epoch: int) -> bool:
        """Whether each step of an epoch has a size of its own."""
        return bool(self.sides) and epoch < self.recipe.multi_scale_epochs

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as checkpoints and run.json have them."""
        recipe = asdict(self.recipe)
        recipe["undecayed"] = sorted(role.value for role in self.recipe.undecayed)
        return {
            **asdict(self),
            "recipe": recipe,
            "size": list(self.size),
            "sides": list(self.sides),
            "effective_batch": self.effective_batch,
        }

    def lines(self) -> list[str]:
        """How the run goes, for its first lines."""
        recipe = self.recipe
        parts = f"{self.batch} x {self.accum} accumulated" + (
            f" x {self.ranks} processes" if self.ranks > 1 else ""
        )
        scaled = "" if self.lr_factor == 1 else f" (times {self.lr_factor:.3g} for this batch)"
        cosine = (
            f", last {recipe.cosine:.0%} fall to {recipe.final_lr:.0%}" if recipe.cosine else ""
        )
        height, width = self.size
        sizes = f"{min(self.sides)} to {max(self.sides)}" if self.sides else f"{width}x{height}"
        return [
            f"steps   {recipe.epochs} epochs x {self.steps_per_epoch:,} = {self.steps:,} steps of "
            f"{self.effective_batch} images ({parts})",
            f"lr      {recipe.lr:.3g}, backbone {recipe.backbone_lr:.3g}{scaled}; warm-up "
            f"{recipe.warmup:,} steps{cosine}",
            f"average decay {recipe.ema_decay:.6g}, grown after {recipe.ema_tau:,} steps; it is what is evaluated",
            f"images  {sizes} px, {self._describe_augmentation()}",
        ]

    def _describe_augmentation(self) -> str:
        if not self.augment:
            return "no strong augmentation"
        weak = self.recipe.epochs - self.recipe.strong_epochs
        last = "the last epoch" if weak == 1 else f"the last {weak} epochs"
        return "strong augmentation " + (f"but for {last}" if weak else "throughout")


def make_plan(
    options: TrainOptions,
    model: RTDetrV2ForObjectDetection,
    images: int,
    world: World,
    size: tuple[int, int],
    *,
    batch: int | None = None,
) -> Plan:
    """The numbers of a run.

    Args:
        options: of the user.
        model: what trains.
        images: N, of the training split.
        world: the processes that share it.
        size: (height, width) of the input.
        batch: what fits into memory at once, where the options leave it open.
    """
    published = recipe_for(model.config)
    if batch is None and world.device.type != "cuda":
        batch = max(1, CPU_PIXELS // (size[0] * size[1]))
    batch, accum = _choose_batch(options, published.batch, world, batch)
    effective = batch * accum * world.size
    steps = max(1, images // effective)
    factor = math.sqrt(effective / published.batch)
    recipe = _shape(options, published, steps)
    recipe = _set_rates(options, recipe, factor)
    height, width = size
    is_varied = recipe.multi_scale_epochs > 0
    if options.multi_scale and height != width:
        raise UsageError(f"multi_scale: expected a square imgsz, got {height},{width}")
    if is_varied and height != width:
        recipe, is_varied = replace(recipe, multi_scale_epochs=0), False
    return Plan(
        recipe=recipe,
        images=images,
        batch=batch,
        accum=accum,
        ranks=world.size,
        steps_per_epoch=steps,
        size=size,
        sides=sides_for(height) if is_varied else (),
        lr_factor=1.0 if options.lr is not None else factor,
        workers=_count_workers(options.workers, world.size),
        augment=options.augment,
    )


def make_precision(amp: str, device: torch.device) -> Precision:
    """What is computed in 16 bits for a word of the options.

    Raises:
        UsageError: the device cannot.
    """
    if amp == "off" or (amp == "auto" and device.type != "cuda"):
        return Precision()
    if amp == "fp16" and device.type != "cuda":
        raise UsageError(
            f"amp: expected off or bf16 on {device.type}, which does not train in fp16, got fp16"
        )
    # Emulated, it is slower than float32.
    is_native = device.type != "cuda" or torch.cuda.get_device_capability(device) >= (8, 0)
    if amp == "bf16" or (amp == "auto" and is_native):
        return Precision(torch.bfloat16)
    return Precision(torch.float16, torch.amp.GradScaler(device.type))


def _choose_batch(
    options: TrainOptions, published: int, world: World, fitting: int | None
) -> tuple[int, int]:
    """Images at once on a rank, and how often in a step."""
    share = max(1, published // world.size)  # of a rank in a step as published
    batch = options.batch
    if batch is None:
        limit = share if options.accum is None else max(1, share // options.accum)
        # A GPU begins with all of them, and takes fewer where memory ends.
        batch = min(limit, fitting or limit)
        while share % batch:
            batch -= 1
    return batch, options.accum or max(1, share // batch)


def _shape(options: TrainOptions, published: Recipe, steps: int) -> Recipe:
    """The recipe over the epochs of this run."""
    if options.recipe == "paper":
        epochs = options.epochs or published.epochs
        recipe = published
        if epochs != published.epochs:
            strong = strong_epochs(epochs, published.strong_epochs / published.epochs)
            multi_scale = strong if published.multi_scale_epochs else 0
            recipe = replace(
                published, epochs=epochs, strong_epochs=strong, multi_scale_epochs=multi_scale
            )
    else:
        recipe = published.shortened(options.epochs or FINETUNE_EPOCHS, steps)
    if options.multi_scale is not None:
        sizes = recipe.strong_epochs if options.multi_scale else 0
        recipe = replace(recipe, multi_scale_epochs=sizes)
    return recipe


def _set_rates(options: TrainOptions, recipe: Recipe, factor: float) -> Recipe:
    lr = recipe.lr * factor if options.lr is None else options.lr
    backbone = options.backbone_lr
    if backbone is None:
        backbone = recipe.backbone_lr / recipe.lr * lr
    return replace(recipe, lr=lr, backbone_lr=backbone)


def _count_workers(workers: int | None, ranks: int) -> int:
    """One core of each rank computes."""
    if workers is not None:
        return workers
    return min(MOST_WORKERS, max(0, count_cores() // ranks - 1))
