# SPDX-License-Identifier: Apache-2.0
"""From options and data to a run that can begin, saying on the way what it will be."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..data import (
    Annotations,
    Augmentation,
    Batch,
    DataSplits,
    DetectionDataset,
    ObjectLabels,
    TrainingBatches,
    make_loader,
    repeat_factors,
)
from ..data.augmentation import Transforms
from ..devices import describe_device
from ..inference.options import STRIDE
from ..model import RTDetrV2ForObjectDetection
from ..processing.image_processor import RTDetrImageProcessor
from ..weights import save_checkpoint
from .artifacts import Plots
from .callbacks import Callback, Callbacks
from .checkpoint import remove_leftovers
from .distributed import World
from .ema import MovingAverage
from .freezing import freeze
from .loggers import LineLogger
from .optimizer import make_optimizer
from .options import DEFAULT_SIZE, TrainOptions
from .plan import Plan, make_plan, make_precision
from .resuming import Resumed
from .run import TrainingRun
from .run_folder import claim_run_folder, list_versions, write_config, write_json
from .schedule import Schedule
from .starting_weights import load_for_training
from .step import TrainingStep
from .validator import Validator

__all__ = ["Preparation"]

VAL_BATCH = 8


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """What a run is made of.

    Args:
        options: of the user.
        stored: the options as config.yaml and checkpoints have them, where the data are among them.
        splits: the data.
        world: the processes of the run.
        say: takes lines; on rank 0.
        callbacks: are told of its moments; on rank 0.
        transforms: a user's augmentation.
        resumed: what the run goes on from; None for a new one.
        dry_run: whether nothing is written.
    """

    options: TrainOptions
    stored: Mapping[str, Any]
    splits: DataSplits
    world: World
    say: Callable[[str], None]
    callbacks: Sequence[Callback]
    transforms: Transforms | None
    resumed: Resumed | None
    dry_run: bool

    def run(self) -> TrainingRun:
        """The run, at its beginning or where it goes on."""
        self._say_data()
        model, size = self._model()
        frozen = self._freeze(model)
        model.to(self.world.device)
        plan = self._plan(model, size)
        precision = make_precision(self.options.amp, self.world.device)
        self._say_plan(plan, precision.dtype)
        folder = self._folder()
        step = _make_step(model, plan, precision, self.world)
        self._rehearse(step, plan)
        dataset, batches = self._dataset(plan), self._batches(plan)
        run = TrainingRun(
            plan=plan,
            step=step,
            batches=batches,
            loader=make_loader(dataset, batches, workers=plan.workers, pin_memory=self._is_on_gpu),
            world=self.world,
            folder=folder,
            callback=Callbacks(self._callbacks(dataset)),
            evaluate=Validator(self.splits.val, plan.size, VAL_BATCH, plan.workers, self.world),
            save_best=Saver(plan.size),
            names=Names(self._train),
            constants=self._constants(model, plan),
            seed=self.options.seed,
            save_every=self.options.save_every * 60,
            patience=self.options.patience,
            frozen=frozen,
        )
        self._go_on(run)
        if self._writes:
            write_json(folder, self._describe(run))
        return run

    @property
    def _train(self) -> Annotations:
        assert self.splits.train is not None
        return self.splits.train.annotations

    @property
    def _is_on_gpu(self) -> bool:
        return self.world.device.type == "cuda"

    @property
    def _writes(self) -> bool:
        return self.world.is_main and not self.dry_run

    def _say_data(self) -> None:
        parts = {"train": self.splits.train, "val": self.splits.val}
        counts = "   ".join(
            f"{name} {len(split):,} images, {len(split.annotations.boxes):,} boxes"
            for name, split in parts.items()
            if split is not None
        )
        names = self._train.categories.names
        self.say(f"data    {self.splits.layout}   {counts}")
        self.say(
            f"classes {len(names)}: {', '.join(names[:10])}{', ...' if len(names) > 10 else ''}"
        )
        for line in self.splits.report.lines():
            self.say(f"        {line}")
        if self.splits.val is None:
            self.say(
                "        no val split: nothing is measured, and the last epoch counts as the best"
            )

    def _model(self) -> tuple[RTDetrV2ForObjectDetection, tuple[int, int]]:
        """With its starting weights, and the size of its input; the weights of a run that goes on are in its state."""
        if self.resumed is not None:
            size = self.options.size or self.resumed.size
            return RTDetrV2ForObjectDetection(self.resumed.config), size
        options, categories = self.options, self._train.categories
        source = options.model if options.weights in (None, "auto") else options.weights
        assert source is not None
        start = load_for_training(
            source,
            categories.names,
            category_ids=categories.ids,
            queries=options.queries,
            pretrained=options.weights is not None,
            seed=options.seed,
        )
        for sentence in start.report.adapted:
            self.say(f"weights {sentence}")
        own = start.processor.input_size or DEFAULT_SIZE
        is_fit = all(side % STRIDE == 0 for side in own)
        return start.model, self.options.size or (own if is_fit else DEFAULT_SIZE)

    def _freeze(self, model: RTDetrV2ForObjectDetection) -> list[nn.Module]:
        frozen = freeze(model, self.options.freeze)
        if frozen:
            total = sum(p.numel() for p in model.parameters())
            fixed = sum(p.numel() for p in model.parameters() if not p.requires_grad)
            words = ", ".join(self.options.freeze)
            self.say(f"frozen  {words}: {fixed:,} of {total:,} parameters")
        return frozen

    def _plan(self, model: RTDetrV2ForObjectDetection, size: tuple[int, int]) -> Plan:
        images, resumed = len(self._train), self.resumed
        fitting = None if resumed is None else resumed.state["plan"]["batch"]
        plan = make_plan(self.options, model, images, self.world, size, batch=fitting)
        return plan if resumed is None else resumed.adapt(plan)

    def _say_plan(self, plan: Plan, dtype: torch.dtype | None) -> None:
        precision = "float32"
        if dtype is not None:
            precision = f"{str(dtype).removeprefix('torch.')} where it is safe"
        self.say(f"device  {describe_device(self.world.device)}, {precision}")
        for line in plan.lines():
            self.say(line)

    def _folder(self) -> Path:
        folder = self.world.broadcast(self._claim() if self._writes else Path())
        if self._writes:
            write_config(folder, self.stored)
            self.say(f"folder  {folder}")
        return folder

    def _claim(self) -> Path:
        if self.resumed is None:
            return claim_run_folder(self.options.out)
        remove_leftovers(self.resumed.folder)
        return self.resumed.folder

    def _rehearse(self, step: TrainingStep, plan: Plan) -> None:
        """Find how many images fit into a GPU at once, where the user leaves it open."""
        if not self._is_on_gpu or self.options.batch is not None or self.resumed is not None:
            return
        objects = int(self._train.counts().max(initial=0))
        step.rehearse(_largest_batch(plan, objects))
        if step.part < plan.batch:
            self.say(f"memory  {step.part} images at once")

    def _dataset(self, plan: Plan) -> DetectionDataset:
        assert self.splits.train is not None
        return DetectionDataset(
            self.splits.train,
            plan.size,
            augmentation=_choose_augmentation(self.options),
            transforms=self.transforms,
            strong_epochs=plan.recipe.strong_epochs,
            seed=self.options.seed,
            skip_broken=self.options.skip_broken,
        )

    def _batches(self, plan: Plan) -> TrainingBatches:
        return TrainingBatches(
            len(self._train),
            plan.images_per_rank,
            seed=self.options.seed,
            rank=self.world.rank,
            ranks=self.world.size,
            factors=repeat_factors(self._train) if self.options.balance else None,
        )

    def _callbacks(self, dataset: DetectionDataset) -> list[Callback]:
        if not self.world.is_main:
            return []
        plots = [Plots(self.splits, dataset)] if self.options.plots else []
        return [*plots, LineLogger(self.say), *self.callbacks]

    def _constants(self, model: RTDetrV2ForObjectDetection, plan: Plan) -> dict[str, Any]:
        return {
            "options": dict(self.stored),
            "config": json.dumps(model.config.to_dict()),
            "names": list(self._train.categories.names),
            "data": self.splits.fingerprint(),
            "plan": plan.to_dict(),
            "versions": list_versions(),
        }

    def _go_on(self, run: TrainingRun) -> None:
        if self.resumed is None:
            return
        with self.resumed.naming_version():
            run.load_state(self.resumed.state)
        if run.is_finished:
            self.say("resume  this run is finished; more epochs let it go on")
        else:
            self.say(f"resume  epoch {run.progress.epoch + 1}, step {run.progress.step + 1:,}")

    def _describe(self, run: TrainingRun) -> dict[str, Any]:
        report = run.model.load_report
        return {
            "versions": run.constants["versions"],
            "device": describe_device(self.world.device),
            "options": run.constants["options"],
            "plan": run.constants["plan"],
            "weights": [] if report is None else list(report.adapted),
            "data": {"layout": self.splits.layout, "fingerprint": run.constants["data"]},
            "findings": self.splits.report.as_dicts(),
        }


@dataclass(frozen=True)
class Saver:
    """Writes a model with what prepares its images.

    Args:
        size: (height, width) of its input.
    """

    size: tuple[int, int]

    def __call__(self, model: RTDetrV2ForObjectDetection, path: Path) -> None:
        height, width = self.size
        processor = RTDetrImageProcessor(size={"height": height, "width": width})
        save_checkpoint(model, path, processor)


@dataclass(frozen=True)
class Names:
    """File names of images by their id."""

    annotations: Annotations

    def __call__(self, image_id: int) -> str:
        (places,) = (self.annotations.image_ids == image_id).nonzero()
        return self.annotations.names[int(places[0])]


def _choose_augmentation(options: TrainOptions) -> Augmentation:
    augmentation = Augmentation() if options.augment else Augmentation().weak()
    return augmentation if options.flip else replace(augmentation, flip=0)


def _make_step(
    model: RTDetrV2ForObjectDetection, plan: Plan, precision: Any, world: World
) -> TrainingStep:
    recipe = plan.recipe
    return TrainingStep(
        model,
        make_optimizer(model, model.model.backbone, recipe),
        Schedule.of(recipe, plan.steps),
        MovingAverage(model, decay=recipe.ema_decay, tau=recipe.ema_tau),
        part=plan.batch,
        clip=recipe.clip,
        precision=precision,
        world=world,
    )


def _largest_batch(plan: Plan, objects: int) -> Batch:
    """A batch of a rank that asks for as much memory as any of the run."""
    side = max(plan.sides, default=0)
    height, width = (max(side, own) for own in plan.size)
    labels: ObjectLabels = {
        "class_labels": torch.zeros(objects, dtype=torch.int64),
        "boxes": torch.full((objects, 4), 0.5),
        "image_id": torch.zeros(1, dtype=torch.int64),
        "orig_size": torch.tensor([height, width]),
        "size": torch.tensor([height, width]),
        "noise_seed": torch.zeros(1, dtype=torch.int64),
        "skipped": torch.zeros(1, dtype=torch.int64),
    }
    images = plan.images_per_rank
    pixels = torch.zeros(images, 3, height, width, dtype=torch.uint8)
    return {"pixel_values": pixels, "labels": [labels] * images}
