# SPDX-License-Identifier: Apache-2.0
"""A training run from options and data: everything is checked and said before the first step."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typing_extensions import Unpack

from ..checking import shows_options
from ..data import DataSource, DataSplits, load_data
from ..data.augmentation import Transforms
from ..errors import UsageError
from ..evaluation import Evaluation
from ..files import home_path
from ..images.names import one_line
from .artifacts import report_best
from .callbacks import Callback
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
from .torch_state import torch_state_of_a_run

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
        resumed = Resumed.read(folder, anyway)
        resumed.check_options(changes)
        source = resumed.state["options"]["data"] if data is None else data
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
            **{**resumed.words, **changes},
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

    def _prepare(self, splits: DataSplits, world: World) -> Preparation:
        return Preparation(
            options=self.options,
            stored=self._stored_options(),
            splits=splits,
            world=world,
            say=self._say_line if world.is_main else _say_nothing,
            callbacks=[*self._loggers, *self.callbacks],
            transforms=self.transforms,
            resumed=self._resumed,
            dry_run=self.dry_run,
        )

    def _say_line(self, text: str) -> None:
        """Names of classes and files may hold anything."""
        self._say(one_line(text))

    def _stored_options(self) -> dict[str, Any]:
        is_place = isinstance(self.data, str | os.PathLike)
        # A run goes on from any folder.
        data = str(home_path(self.data).absolute()) if is_place else None  # type: ignore[arg-type]
        own = vars(self.options)
        reading = {name: self.words[name] for name in sorted(self.words) if name not in own}
        return {"data": data, **self.options.to_dict(), **reading}


Trainer.__init__ = shows_options(TrainOptions, known_words(), HINTS)(Trainer.__init__)  # type: ignore[method-assign]


def _train_rank(world: World, trainer: Trainer) -> TrainResult:
    return trainer.train_in(world)


def _say_nothing(_: str) -> None:
    pass
