# SPDX-License-Identifier: Apache-2.0
"""The loop: epochs of steps, each epoch with an evaluation, checkpoints, and an end in order."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..data import Batch, TrainingBatches, end_workers, resize_batch, side_of_step
from ..evaluation import Evaluation
from ..model import RTDetrV2ForObjectDetection
from .callbacks import Callback
from .checkpoint import LAST, write_checkpoint
from .distributed import World
from .failures import stop_at_failures
from .freezing import start_training
from .history import EpochRow, Progress
from .interruption import InterruptedRunError, Interruption
from .optional import tolerate
from .plan import Plan
from .step import StepResult, TrainingStep
from .validator import Validator

__all__ = ["BEST", "TrainingRun"]

BEST = "best.safetensors"


@dataclass
class TrainingRun:
    """A run of training, from where its progress is.

    Every random number is a function of the seed and of what it is for, so that weights, optimizer and progress are all
    that a run needs to go on, and a run that goes on ends with the same bits.

    Args:
        plan: its numbers.
        step: model, optimizer and average.
        batches: which images make each batch.
        loader: the batches.
        world: the processes of the run.
        folder: where its files go.
        callback: is told of its moments, on rank 0.
        evaluate: says how good the average is.
        save_best: writes a model for people.
        names: file names of images by their id.
        constants: what a checkpoint keeps beside the state: options, recipe, data.
        seed: of every random number.
        save_every: seconds between checkpoints inside an epoch.
        patience: epochs without a better AP until it stops; 0 for never.
        frozen: modules that do not train.
    """

    plan: Plan
    step: TrainingStep
    batches: TrainingBatches
    loader: Any
    world: World
    folder: Path
    callback: Callback
    evaluate: Validator
    save_best: Callable[[RTDetrV2ForObjectDetection, Path], None]
    names: Callable[[int], str]
    constants: dict[str, Any]
    seed: int
    save_every: float
    patience: int
    frozen: list[nn.Module] = field(default_factory=list)
    progress: Progress = field(default_factory=Progress)
    evaluation: Evaluation | None = field(default=None, init=False)
    """Of the last epoch."""

    _is_stopped: bool = field(default=False, init=False)
    _saved: float = field(default=0.0, init=False)

    @property
    def model(self) -> RTDetrV2ForObjectDetection:
        """What trains."""
        return self.step.model

    @property
    def average(self) -> RTDetrV2ForObjectDetection:
        """What is evaluated and kept."""
        return self.step.average.module

    @property
    def number(self) -> int:
        """Of the step that comes next, counted over the run from 0."""
        return self.progress.epoch * self.plan.steps_per_epoch + self.progress.step

    @property
    def is_finished(self) -> bool:
        """Whether no epoch is left, patience is at its end, or somebody called :meth:`stop`."""
        progress = self.progress
        stale = progress.epoch - 1 - max(progress.best_epoch, 0)
        is_out_of_patience = 0 < self.patience <= stale
        # A run leaves a model, so that one which is stopped before its first epoch takes that.
        is_stopped = self._is_stopped and bool(progress.rows)
        return progress.epoch >= self.plan.recipe.epochs or is_out_of_patience or is_stopped

    def stop(self) -> None:
        """End after this epoch; before the first, after that."""
        self._is_stopped = True

    def train(self) -> None:
        """Run to the end.

        Raises:
            InterruptedRunError: a signal asked to stop; a checkpoint is written.
            RTDetrError: memory does not suffice for one image, or numbers stay not finite.
            OSError: a file cannot be written; the last checkpoint is whole.
        """
        self._saved = time.monotonic()
        with Interruption.listening() as interruption:
            try:
                if self.world.is_main:
                    self.callback.start(self)
                while not self.world.broadcast(self.is_finished):
                    self._run_epoch(interruption)
            except BaseException:
                if self.world.is_main:
                    with tolerate("the end of a callback"):  # the error that ended the run counts
                        self.callback.end(self)
                raise
            finally:
                end_workers(self.loader)
                self.evaluate.close()
            if self.world.is_main:
                self.callback.end(self)

    def state(self) -> dict[str, Any]:
        """All that is not in the files of the data."""
        return {
            **self.constants,
            "model": self.model.state_dict(),
            "step": self.step.state_dict(),
            "progress": self.progress.to_dict(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self.model.load_state_dict(state["model"])
        self.step.load_state_dict(state["step"])
        self.progress = Progress.from_dict(state["progress"])

    def _run_epoch(self, interruption: Interruption) -> None:
        start_training(self.model, self.frozen)
        for batch in self._batches():
            started = time.monotonic()
            result = self._take_step(batch)
            self.progress.seconds += time.monotonic() - started
            if self.world.is_main:
                self.callback.step(self, result)
            self._save_or_stop(interruption)
        self._finish_epoch(interruption)

    def _batches(self) -> Iterator[Batch]:
        """Those of the epoch that are left, counting the time that they are waited for."""
        self.batches.set_epoch(self.progress.epoch, self.progress.step)
        batches = iter(self.loader)
        while True:
            started = time.monotonic()
            batch = next(batches, None)
            waited = time.monotonic() - started
            self.progress.waiting += waited
            self.progress.seconds += waited
            if batch is None:
                return
            yield batch

    def _take_step(self, batch: Batch) -> StepResult:
        progress, number = self.progress, self.number
        # For dropout, where a model has any.
        torch.manual_seed(_step_seed(self.seed, number, self.world.rank))
        if self.plan.has_sides(progress.epoch):
            side = side_of_step(self.seed, number, self.plan.sides)
            batch = {**batch, "pixel_values": resize_batch(batch["pixel_values"], side)}
        result = self.step(batch, number)
        progress.add(result)
        progress.broken += sum(int(label["skipped"]) for label in batch["labels"])
        stop_at_failures(self, batch, result, self.names)
        return result

    def _save_or_stop(self, interruption: Interruption) -> None:
        """Between two steps: write a checkpoint if it is time, and stop if a signal asks for it."""
        is_time = time.monotonic() - self._saved >= self.save_every
        asked = [interruption.signal_number or 0, int(is_time)]
        signal_number, is_due = self.world.exchange(torch.tensor(asked)).amax(0).tolist()
        if signal_number or is_due:
            self._save()
        if signal_number:
            raise self._interrupted(signal_number)

    def _save(self) -> None:
        if self.world.is_main:
            write_checkpoint(self.folder, self.state())
        self._saved = time.monotonic()

    def _interrupted(self, signal_number: int) -> InterruptedRunError:
        epoch, step = self.progress.epoch + 1, self.progress.step
        return InterruptedRunError(
            f"stopped in epoch {epoch} after step {step:,} of {self.plan.steps_per_epoch:,}; {self.folder / LAST} is "
            f"written. Go on with: rtdetr train --resume {self.folder}",
            signal_number,
        )

    def _finish_epoch(self, interruption: Interruption) -> None:
        progress = self.progress
        lr = float(self.step.optimizer.param_groups[0]["lr"])
        row = progress.row(lr=lr, part=self.step.part, memory=_memory(self.world.device))
        started = time.monotonic()
        try:
            self.evaluation = self.evaluate(self.average, interruption)
        except InterruptedRunError as error:
            self._save()
            raise self._interrupted(error.exit_code - 128) from None
        row["evaluation"] = round(time.monotonic() - started, 2)
        self._keep_best(row)
        progress.next_epoch(row)
        self._save()
        if self.world.is_main:
            self.callback.epoch(self, row)

    def _keep_best(self, row: EpochRow) -> None:
        """Add the evaluation to the row; write the average if it is the best, or cannot be told to be worse."""
        evaluation = self.evaluation
        if evaluation is not None:
            row |= evaluation.numbers()
        ap = None if evaluation is None else evaluation.ap
        is_best = ap is None or self.progress.is_better(ap)
        if is_best:
            self.progress.best_epoch = self.progress.epoch
            self.progress.best_ap = -1.0 if ap is None else ap
        row["best"] = int(is_best)
        if is_best and self.world.is_main:
            self.save_best(self.average, self.folder / BEST)


def _step_seed(seed: int, number: int, rank: int) -> int:
    return int(np.random.SeedSequence((seed, number, rank)).generate_state(1, np.uint64)[0] >> 1)


def _memory(device: torch.device) -> float:
    """The most that was in use, GB: of the GPU, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    if sys.platform == "win32":
        return 0.0
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
