# SPDX-License-Identifier: Apache-2.0
"""A training run from options and data: everything is checked and said before the first step."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from typing_extensions import Unpack

from ..checking import shows_options
from ..config import RTDetrV2Config
from ..data import (
    AUGMENTATIONS,
    Batch,
    DataSource,
    DataSplits,
    DetectionDataset,
    ObjectLabels,
    TrainingBatches,
    load_data,
    make_loader,
    repeat_factors,
)
from ..data.augmentation import Transforms
from ..data.fingerprint import list_changes
from ..devices import describe_device
from ..errors import RTDetrError, UsageError
from ..evaluation import Evaluation
from ..files import home_path, is_file
from ..images.names import one_line
from ..model import RTDetrV2ForObjectDetection
from ..processing.image_processor import RTDetrImageProcessor
from ..weights import save_checkpoint
from .artifacts import Plots, report_best
from .callbacks import Callback, Callbacks
from .checkpoint import LAST, read_checkpoint, remove_leftovers
from .distributed import World
from .history import EpochRow
from .launch import find_devices, launch
from .loggers import make_loggers
from .options import HINTS, TrainOptions, TrainWords, known_words, split_words
from .plan import make_precision
from .preparation import Preparation
from .requirements import require_packages
from .resuming import Resumed
from .run import BEST, TrainingRun
from .run_folder import claim_run_folder, list_versions, write_config, write_json
from .schedule import Schedule
from .starting_weights import load_for_training
from .step import TrainingStep
from .torch_state import torch_state_of_a_run
from .validator import Validator

__all__ = ["TrainResult", "Trainer"]


@dataclass(frozen=True)
class TrainResult:
    """What a run has left.

    Args:
        folder: of its files.
        best: the best model; ``RTDETR(best)`` loads it.
        ap: of the best epoch; None without a split to measure on.
        epoch: the best one, from 1.
        rows: the numbers of each epoch.
        evaluation: of the best model, with its tables.
    """

    folder: Path
    best: Path
    ap: float | None
    epoch: int
    rows: tuple[EpochRow, ...]
    evaluation: Evaluation | None

    @classmethod
    def of(cls, run: TrainingRun, evaluation: Evaluation | None) -> TrainResult:
        progress = run.progress
        return cls(
            folder=run.folder,
            best=run.folder / BEST,
            ap=progress.best_ap if progress.best_ap >= 0 else None,
            epoch=progress.best_epoch + 1,
            rows=tuple(progress.rows),
            evaluation=evaluation,
        )


class Trainer:
    """Trains a detector: ``Trainer("helmets/", epochs=30).train()``.

    Args:
        data: a folder or file in COCO's, YOLO's, Roboflow's or Pascal VOC's layout, or images from memory; see
            :data:`rtdetr.data.load.DataSource`.
        names: of the classes, for images from memory.
        transforms: a user's augmentation instead of the recipe's; see :data:`rtdetr.data.augmentation.Transforms`.
        callbacks: are told of the moments of the run; see :class:`~rtdetr.training.callbacks.Callback`.
        strict: whether a warning about the data is an error.
        say: takes the lines that tell how it goes; None prints nothing.
        dry_run: whether to check and say everything, and train nothing.
        **options: the fields of :class:`~rtdetr.training.options.TrainOptions`, and those of
            :class:`~rtdetr.data.ReadOptions`.

    Raises:
        UsageError: naming the option that has a wrong value.
        TypeError: for an unknown option, with the nearest known one.
    """

    def __init__(
        self,
        data: DataSource,
        *,
        names: Sequence[str] | None = None,
        transforms: Transforms | None = None,
        callbacks: Iterable[Callback] = (),
        strict: bool = False,
        say: Callable[[str], None] | None = print,
        dry_run: bool = False,
        **options: Unpack[TrainWords],
    ) -> None:
        self.data, self.names, self.transforms = data, names, transforms
        self.callbacks, self.strict, self.dry_run = list(callbacks), strict, dry_run
        self.words: Mapping[str, Any] = dict(options)
        self.options, self.read_options = split_words(options)
        self._say = say or _say_nothing
        self._loggers: list[Callback] = []
        self._resumed: Resumed | None = None

    @classmethod
    def resume(
        cls,
        folder: str | Path,
        *,
        data: DataSource | None = None,
        anyway: bool = False,
        callbacks: Iterable[Callback] = (),
        transforms: Transforms | None = None,
        strict: bool = False,
        say: Callable[[str], None] | None = print,
        dry_run: bool = False,
        **changes: Unpack[TrainWords],
    ) -> Trainer:
        """A trainer that goes on with the run in ``folder``, and ends with the same bits as if it had never stopped.

        Args:
            folder: of the run, or its last.ckpt.
            data: where the data are now; None for where they were. Images from memory have to be passed.
            anyway: go on although the data or the recipe have changed.
            callbacks: as for a new run.
            transforms: likewise.
            strict: likewise.
            say: likewise.
            dry_run: likewise.
            **changes: options that may change on the way: more ``epochs``, the device, workers, patience, loggers.

        Raises:
            RTDetrError: there is no checkpoint, or it is damaged.
            UsageError: an option is changed that decides the weights.
        """
        folder = home_path(folder)
        folder = folder.parent if folder.name == LAST and is_file(folder) else folder
        state = read_checkpoint(folder)
        stored: dict[str, Any] = state["options"]
        _check_known(folder, state)
        changed = sorted(name for name in changes if name in RECIPE_FIELDS)
        changed = [name for name in changed if _differs(name, changes, stored)]
        if changed and not anyway:
            was = ", ".join(f"{name} was {stored[name]!r}" for name in changed)
            raise UsageError(
                f"{was}: a run goes on with the same recipe; start a new one, or go on anyway (resume_anyway)"
            )
        source = stored["data"] if data is None else data
        if source is None:
            raise UsageError("data: the images of this run were in memory; pass them again")
        trainer = cls(
            source,
            names=resumed.state["names"],
            transforms=transforms,
            callbacks=callbacks,
            strict=strict,
            say=say,
            dry_run=dry_run,
            **{**words, **changes},
        )
        trainer._resumed = resumed
        return trainer

    def train(self, devices: str | None = None) -> TrainResult:
        """Run to the end.

        Args:
            devices: "0,1" starts a process for each of these GPUs, which share each step; "cpu,cpu" two on the CPU.
                None trains in this process, or as the one among those of torchrun that it is.

        Raises:
            DataError: something is wrong with the data; the message has a sentence for each kind.
            ModelError: there is no such model, or it does not fit.
            InterruptedRunError: Ctrl-C, SIGTERM or SIGHUP; a checkpoint is written.
            RTDetrError: memory does not suffice for one image, or numbers stay not finite.
            OSError: a file cannot be written; the last checkpoint is whole.
        """
        if devices is not None:
            return launch(find_devices(devices), _train_rank, self)
        with World.start(self.options.device) as world:
            return self.train_in(world)

    def train_in(self, world: World) -> TrainResult:
        """As :meth:`train`, as one process of a world that has been started."""
        with torch_state_of_a_run(world.device, self.options.deterministic):
            splits = self._load(world)
            run = self._prepare(splits, world).run()
            if self.dry_run:
                return TrainResult.of(run, None)
            run.train()
            evaluation = None
            if world.is_main:
                device, plots = str(world.device), self.options.plots
                evaluation = report_best(run.folder / BEST, splits, run.plan, device, plots)
            world.barrier()
            return TrainResult.of(run, evaluation)

    def _load(self, world: World) -> DataSplits:
        """The data, after all that can be wrong without them."""
        make_precision(self.options.amp, world.device)
        require_packages(self.options.plots)
        self._loggers = make_loggers(self.options.loggers) if world.is_main else []
        splits = load_data(self.data, self.read_options, names=self.names, strict=self.strict)
        if self._resumed is not None:
            self._resumed.check_data(splits.fingerprint())
        return splits

    def _prepare(self, splits: DataSplits, world: World) -> TrainingRun:
        say = self._say_line if world.is_main else _say_nothing
        precision = make_precision(self.options.amp, world.device)
        assert splits.train is not None
        _say_data(say, splits)
        model, frozen = self._start(say, splits)
        model.to(world.device)
        plan = self._plan(model, splits, world)
        say(f"device  {describe_device(world.device)}, {_describe_precision(precision.dtype)}")
        for line in plan.lines():
            say(line)
        folder = world.broadcast(self._claim() if world.is_main and not self.dry_run else Path())
        options = self._stored_options()
        if world.is_main and not self.dry_run:
            write_config(folder, options)
            say(f"folder  {folder}")
        step = _make_step(model, plan, precision, world)
        if self.options.batch is None and self._state is None and world.device.type == "cuda":
            step.rehearse(_largest_batch(splits, plan))
            if step.part < plan.batch:
                say(f"memory  {step.part} images at once")
        batches = _make_batches(self.options, splits, plan, world)
        dataset = self._dataset(splits, plan)
        run = TrainingRun(
            plan=plan,
            step=step,
            batches=batches,
            loader=make_loader(
                dataset,
                batches,
                workers=plan.workers,
                pin_memory=world.device.type == "cuda",
            ),
            world=world,
            say=self._say if world.is_main else _say_nothing,
            callbacks=[*self._loggers, *self.callbacks],
            transforms=self.transforms,
            resumed=self._resumed,
            dry_run=self.dry_run,
        )
        if self._state is not None:
            with _naming_version(self._state):
                run.load_state(self._state)
            say(f"resume  epoch {run.progress.epoch + 1}, step {run.progress.step + 1:,}")
            if run.is_finished:
                say("resume  this run is finished; more epochs let it go on")
        if world.is_main and not self.dry_run:
            write_json(folder, _describe_run(run, splits))
        return run

    def _say_line(self, text: str) -> None:
        """Names of classes and files may hold anything."""
        self._say(one_line(text))

    def _callbacks(
        self, say: Callable[[str], None], splits: DataSplits, dataset: DetectionDataset
    ) -> list[Callback]:
        plots = [Plots(splits, dataset)] if self.options.plots else []
        return [*self._loggers, *plots, LineLogger(say), *self.callbacks]

    def _start(
        self, say: Callable[[str], None], splits: DataSplits
    ) -> tuple[RTDetrV2ForObjectDetection, list[nn.Module]]:
        """The model with its starting weights, and what of it is frozen."""
        options = self.options
        if self._state is not None:
            config = RTDetrV2Config.from_dict(json.loads(self._state["config"]))
            model = RTDetrV2ForObjectDetection(config)
        else:
            model = self._load_weights(say, splits)
        frozen = freeze(model, options.freeze)
        if frozen:
            total = sum(p.numel() for p in model.parameters())
            fixed = sum(p.numel() for p in model.parameters() if not p.requires_grad)
            say(f"frozen  {', '.join(options.freeze)}: {fixed:,} of {total:,} parameters")
        return model, frozen

    def _load_weights(
        self, say: Callable[[str], None], splits: DataSplits
    ) -> RTDetrV2ForObjectDetection:
        options = self.options
        assert splits.train is not None
        categories = splits.train.annotations.categories
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
            say(f"weights {sentence}")
        return start.model

    def _plan(self, model: RTDetrV2ForObjectDetection, splits: DataSplits, world: World) -> Plan:
        assert splits.train is not None
        if self._state is None:
            return make_plan(self.options, model, len(splits.train), world)
        stored = self._state["plan"]
        plan = make_plan(self.options, model, len(splits.train), world, batch=stored["batch"])
        recipe = stored["recipe"]
        # What was a share of the run stays what it was when the run gets longer.
        kept = {name: recipe[name] for name in ("warmup", "ema_tau", "ema_decay")}
        plan = dataclasses.replace(plan, recipe=dataclasses.replace(plan.recipe, **kept))
        self._check_plan(stored, _as_plain(plan))
        return plan

    def _check_plan(self, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
        if after["recipe"]["epochs"] < self._state["progress"]["epoch"]:  # type: ignore[index]
            done = self._state["progress"]["epoch"]  # type: ignore[index]
            raise UsageError(
                f"epochs: expected at least {done}, which are over, got {after['recipe']['epochs']}"
            )
        names = ("steps_per_epoch", "effective_batch", "size")
        changed = [
            f"{name} was {before[name]}, is {after[name]}"
            for name in names
            if before[name] != after[name]
        ]
        if changed and not self._goes_on_anyway:
            raise UsageError(
                f"{'; '.join(changed)}: a run goes on with the same recipe; start a new one, or go on anyway "
                "(resume_anyway)"
            )

    def _check_data(self, splits: DataSplits) -> None:
        if self._state is None or self._goes_on_anyway:
            return
        changes = list_changes(self._state["data"], splits.fingerprint())
        if changes:
            raise UsageError(
                f"the data have changed since this run began: {'; '.join(changes)}. Start a new run, or go on anyway "
                "(resume_anyway)"
            )

    def _claim(self) -> Path:
        if self._folder is None:
            return claim_run_folder(self.options.out)
        remove_leftovers(self._folder)
        return self._folder

    def _stored_options(self) -> dict[str, Any]:
        is_place = isinstance(self.data, str | os.PathLike)
        # A run goes on from any folder.
        data = str(home_path(self.data).absolute()) if is_place else None  # type: ignore[arg-type]
        reading = {
            name: self.words[name] for name in sorted(self.words) if name not in vars(self.options)
        }
        return {"data": data, **self.options.to_dict(), **reading}

    def _dataset(self, splits: DataSplits, plan: Plan) -> DetectionDataset:
        assert splits.train is not None
        return DetectionDataset(
            splits.train,
            plan.size,
            augmentation=AUGMENTATIONS[self.options.augment],
            transforms=self.transforms,
            strong_epochs=plan.recipe.strong_epochs,
            seed=self.options.seed,
            skip_broken=self.options.skip_broken,
        )


Trainer.__init__ = shows_options(TrainOptions, known_words(), HINTS)(Trainer.__init__)  # type: ignore[method-assign]


def _train_rank(world: World, trainer: Trainer) -> TrainResult:
    return trainer.train_in(world)


@dataclass(frozen=True)
class _Saver:
    """Writes a model with what prepares its images."""

    size: tuple[int, int]

    def __call__(self, model: RTDetrV2ForObjectDetection, path: Path) -> None:
        height, width = self.size
        processor = RTDetrImageProcessor(size={"height": height, "width": width})
        save_checkpoint(model, path, processor)


class _Names:
    """File names of training images by their id."""

    def __init__(self, splits: DataSplits) -> None:
        assert splits.train is not None
        self._annotations = splits.train.annotations

    def __call__(self, image_id: int) -> str:
        (places,) = (self._annotations.image_ids == image_id).nonzero()
        return self._annotations.names[int(places[0])]


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


def _largest_batch(splits: DataSplits, plan: Plan) -> Batch:
    """A batch of a rank that asks for as much memory as any of the run."""
    assert splits.train is not None
    side = max(plan.sides, default=0)
    height, width = max(side, plan.size[0]), max(side, plan.size[1])
    objects = int(splits.train.annotations.counts().max(initial=0))
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


def _make_batches(
    options: TrainOptions, splits: DataSplits, plan: Plan, world: World
) -> TrainingBatches:
    assert splits.train is not None
    return TrainingBatches(
        len(splits.train),
        plan.images_per_rank,
        seed=options.seed,
        rank=world.rank,
        ranks=world.size,
        factors=repeat_factors(splits.train.annotations) if options.balance else None,
    )


def _say_data(say: Callable[[str], None], splits: DataSplits) -> None:
    assert splits.train is not None
    parts = {"train": splits.train, "val": splits.val}
    counts = "   ".join(
        f"{name} {len(split):,} images, {len(split.annotations.boxes):,} boxes"
        for name, split in parts.items()
        if split is not None
    )
    categories = splits.train.annotations.categories
    names = ", ".join(categories.names[:10]) + (", ..." if len(categories) > 10 else "")
    say(f"data    {splits.layout}   {counts}")
    say(f"classes {len(categories)}: {names}")
    for line in splits.report.lines():
        say(f"        {line}")
    if splits.val is None:
        say("        no val split: nothing is measured, and the last epoch counts as the best")


def _describe_precision(dtype: torch.dtype | None) -> str:
    return "float32" if dtype is None else f"{str(dtype).removeprefix('torch.')} where it is safe"


def _describe_run(run: TrainingRun, splits: DataSplits) -> dict[str, Any]:
    return {
        "versions": run.constants["versions"],
        "device": describe_device(run.world.device),
        "options": run.constants["options"],
        "plan": run.constants["plan"],
        "weights": list(run.model.load_report.adapted) if run.model.load_report else [],
        "data": {"layout": splits.layout, "fingerprint": run.constants["data"]},
        "findings": splits.report.as_dicts(),
    }


def _as_plain(plan: Plan) -> dict[str, Any]:
    recipe = dataclasses.asdict(plan.recipe)
    recipe["undecayed"] = sorted(role.value for role in plan.recipe.undecayed)
    return {
        **dataclasses.asdict(plan),
        "recipe": recipe,
        "size": list(plan.size),
        "sides": list(plan.sides),
        "effective_batch": plan.effective_batch,
    }


def _check_known(folder: Path, state: Mapping[str, Any]) -> None:
    unknown = sorted(set(state["options"]) - known_words() - {"data"})
    if unknown:
        version = state["versions"].get("rtdetr")
        raise RTDetrError(
            f"{folder}: rtdetr {version} wrote this run, with options that this version does not have: "
            f"{', '.join(unknown)}. Go on with that version"
        )


@contextmanager
def _naming_version(state: Mapping[str, Any]) -> Iterator[None]:
    """What does not fit into this model or this version was written by another."""
    try:
        yield
    except (RuntimeError, ValueError, TypeError, KeyError) as error:
        why = " ".join(str(error).split())[:200]
        raise RTDetrError(
            f"the checkpoint, written by rtdetr {state['versions'].get('rtdetr')}, does not fit this version ({why})"
        ) from error


def _differs(name: str, changes: Mapping[str, Any], stored: Mapping[str, Any]) -> bool:
    words = {key: value for key, value in stored.items() if key in vars(TrainOptions())}
    before, after = TrainOptions(**words), TrainOptions(**{**words, name: changes[name]})
    return bool(before.to_dict()[name] != after.to_dict()[name])


def _result(run: TrainingRun, evaluation: Evaluation | None) -> TrainResult:
    progress = run.progress
    return TrainResult(
        folder=run.folder,
        best=run.folder / BEST,
        ap=progress.best_ap if progress.best_ap >= 0 else None,
        epoch=progress.best_epoch + 1,
        rows=tuple(progress.rows),
        evaluation=evaluation,
    )


def _say_nothing(_: str) -> None:
    pass
