# SPDX-License-Identifier: Apache-2.0
"""The moments of a run at which other code may look: its start, each step, each epoch, its end."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

from ..data import TrainingBatches
from ..model import RTDetrV2ForObjectDetection
from .distributed import World
from .history import EpochRow, Progress
from .plan import Plan
from .step import StepResult, TrainingStep

__all__ = ["Callback", "Callbacks", "Run"]


class Run(Protocol):
    """What a callback sees of a run: :class:`rtdetr.training.run.TrainingRun`, which says what each is."""

    plan: Plan
    step: TrainingStep
    batches: TrainingBatches
    loader: Any
    world: World
    folder: Path
    constants: dict[str, Any]
    progress: Progress

    @property
    def model(self) -> RTDetrV2ForObjectDetection:
        """What trains."""

    @property
    def average(self) -> RTDetrV2ForObjectDetection:
        """What is evaluated and kept."""

    @property
    def number(self) -> int:
        """Of the step that comes next, counted over the run from 0."""

    def stop(self) -> None:
        """End after this epoch; before the first, after that."""


class Callback:
    """What a user's code inherits; each method does nothing.

    A method may read all of ``run``, and call ``run.stop()``. Only rank 0 calls it.
    """

    def start(self, run: Run) -> None:
        """Before the first step, of a run that goes on too."""

    def step(self, run: Run, result: StepResult) -> None:
        """After each step."""

    def epoch(self, run: Run, row: EpochRow) -> None:
        """After each epoch, its evaluation and its files."""

    def end(self, run: Run) -> None:
        """After the last epoch, also of a run that ends by an error or an interruption."""


class Callbacks(Callback):
    """Several as one."""

    def __init__(self, callbacks: Iterable[Callback]) -> None:
        self.all = list(callbacks)

    def start(self, run: Run) -> None:
        for callback in self.all:
            callback.start(run)

    def step(self, run: Run, result: StepResult) -> None:
        for callback in self.all:
            callback.step(run, result)

    def epoch(self, run: Run, row: EpochRow) -> None:
        for callback in self.all:
            callback.epoch(run, row)

    def end(self, run: Run) -> None:
        """All of them, also after one that raises."""
        with ExitStack() as stack:
            for callback in reversed(self.all):
                stack.callback(callback.end, run)
