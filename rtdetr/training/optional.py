# SPDX-License-Identifier: Apache-2.0
"""What a run can do without: plots, and services that numbers are sent to. Where one fails, it is a warning."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from .callbacks import Callback, Run
from .history import EpochRow
from .step import StepResult

__all__ = ["OptionalCallback", "tolerate"]


@contextmanager
def tolerate(what: str) -> Iterator[None]:
    """Turn an error of the block into a warning that names ``what``; Ctrl-C is none."""
    try:
        yield
    except Exception as error:
        why = " ".join(str(error).split())[:200]
        warnings.warn(
            f"{what} failed, which a run can do without ({type(error).__name__}: {why})",
            stacklevel=3,
        )


class OptionalCallback(Callback):
    """Another callback, whose errors do not end the run: one that could not start is not called again.

    Args:
        callback: which one.
        name: of it, in a warning.
    """

    def __init__(self, callback: Callback, name: str) -> None:
        self.callback, self.name = callback, name
        self._is_started = False

    def start(self, run: Run) -> None:
        self._is_started = False
        with tolerate(self.name):
            self.callback.start(run)
            self._is_started = True

    def step(self, run: Run, result: StepResult) -> None:
        if self._is_started:
            with tolerate(self.name):
                self.callback.step(run, result)

    def epoch(self, run: Run, row: EpochRow) -> None:
        if self._is_started:
            with tolerate(self.name):
                self.callback.epoch(run, row)

    def end(self, run: Run) -> None:
        if self._is_started:
            with tolerate(self.name):
                self.callback.end(run)
