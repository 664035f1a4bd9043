# SPDX-License-Identifier: Apache-2.0
"""How far an epoch of training is."""

from __future__ import annotations

import sys
from typing import Any

from ..training.callbacks import Callback, Run
from ..training.step import StepResult
from .console import has_bar

__all__ = ["StepsBar"]


class StepsBar(Callback):
    """The steps of an epoch as a bar on stderr, if that is a terminal; a callback of training."""

    def __init__(self) -> None:
        self._bar: Any = None

    def step(self, run: Run, result: StepResult) -> None:
        """A step is over."""
        if not has_bar():
            return
        total, progress = run.plan.steps_per_epoch, run.progress
        if self._bar is None:
            from tqdm import tqdm

            title = f"epoch {progress.epoch + 1}/{run.plan.recipe.epochs}"
            self._bar = tqdm(
                total=total, initial=progress.step - 1, desc=title, leave=False, file=sys.stderr
            )
        self._bar.set_postfix(loss=f"{result.losses['loss']:.3f}", refresh=False)
        self._bar.update()
        if progress.step == total:
            self.close()

    def end(self, run: Run) -> None:
        """A run is over."""
        self.close()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
