# SPDX-License-Identifier: Apache-2.0
"""Where a run is, and what it has measured so far: plain numbers that a checkpoint keeps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from .step import StepResult

__all__ = ["EpochRow", "Progress"]

EpochRow = dict[str, float | int | None]
"""The numbers of an epoch, in the order of the columns of results.csv; None where there is nothing to measure."""

SHOWN_LOSSES = ("loss", "loss_vfl", "loss_bbox", "loss_giou")
"""Of some thirty terms: the sum, and those of the last layer."""


@dataclass
class Progress:
    """The place of a run and its measurements.

    Args:
        epoch: that runs, the first being 0.
        step: that comes next in it, the first being 0.
        skipped: steps of the epoch whose loss or gradient was not finite.
        skipped_in_a_row: the same, up to now without one between that was.
        broken: images of the epoch that could not be read, and were replaced.
        sums: of the losses and the gradient norm over the finite steps of the epoch.
        seconds: of the epoch.
        waiting: seconds of the epoch in which the images were not ready.
        best_ap: so far; below 0 before the first evaluation.
        best_epoch: in which it was reached; -1 before the first.
        rows: of the epochs that are over.
    """

    epoch: int = 0
    step: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0
    broken: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    waiting: float = 0.0
    best_ap: float = -1.0
    best_epoch: int = -1
    rows: list[EpochRow] = field(default_factory=list)

    def add(self, result: StepResult) -> None:
        """Count a step."""
        self.step += 1
        if result.skipped:
            self.skipped += 1
            self.skipped_in_a_row += 1
            return
        self.skipped_in_a_row = 0
        shown = {name: result.losses[name] for name in SHOWN_LOSSES}
        for name, value in {**shown, "gradient_norm": result.gradient_norm}.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def mean(self, name: str) -> float | None:
        """Over the finite steps of the epoch so far."""
        steps = self.step - self.skipped
        return self.sums[name] / steps if steps else None

    def row(self, *, lr: float, part: int, memory: float) -> EpochRow:
        """The numbers of the epoch, without those of its evaluation.

        Args:
            lr: of its last step.
            part: images at once at its end.
            memory: most that was in use, GB.
        """
        return {
            "epoch": self.epoch + 1,
            "seconds": round(self.seconds, 2),
            "waiting": round(self.waiting / self.seconds, 4) if self.seconds else 0.0,
            "memory": round(memory, 2),
            **{name: self.mean(name) for name in (*SHOWN_LOSSES, "gradient_norm")},
            "lr": lr,
            "batch": part,
            "skipped": self.skipped,
            "broken": self.broken,
        }

    def is_better(self, ap: float) -> bool:
        """Whether this is the best epoch so far; a later one of the same AP is not."""
        return not math.isnan(ap) and ap > self.best_ap

    def next_epoch(self, row: EpochRow) -> None:
        """Close the epoch with its row."""
        self.rows.append(row)
        self.epoch += 1
        self.step = self.skipped = self.broken = 0
        self.sums = {}
        self.seconds = self.waiting = 0.0

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Progress:
        return cls(**values)
