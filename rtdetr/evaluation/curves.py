# SPDX-License-Identifier: Apache-2.0
"""Precision, recall and confusion as functions of the score from which a prediction counts.

P predictions, T boxes, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..data import Annotations
from .matching import Matches, match_rest
from .predictions import PredictionTable

__all__ = ["Confusion", "Counts", "ScoreCurves", "confuse"]

GRID = np.linspace(0, 1, 201)
"""Scores at which curves are drawn."""

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Counts:
    """How many predictions are right and wrong, of how many boxes.

    Args:
        right: predictions that found a box.
        wrong: predictions that found none.
        boxes: to be found.
    """

    right: int
    wrong: int
    boxes: int

    @property
    def precision(self) -> float:
        """Share of the predictions that are right, 0..1; 0 where there are none."""
        return self.right / max(1, self.right + self.wrong)

    @property
    def recall(self) -> float:
        """Share of the boxes that are found, 0..1."""
        return self.right / max(1, self.boxes)

    @property
    def f1(self) -> float:
        """Harmonic mean of both."""
        return 2 * self.right / max(1, self.right + self.wrong + self.boxes)


@dataclass(frozen=True, eq=False)
class ScoreCurves:
    """Precision, recall and F1 of all predictions above a score, at an IoU of 0.5.

    Args:
        scores: [P] descending.
        right: [P + 1] right ones among the first 0..P.
        boxes: to be found.
    """

    scores: npt.NDArray[np.float32]
    right: IntArray
    boxes: int

    @classmethod
    def of(cls, scores: npt.NDArray[np.float32], right: BoolArray, boxes: int) -> ScoreCurves:
        """Of predictions in any order, [P] each; without those that are neither right nor wrong."""
        order = np.argsort(-scores, kind="stable")
        return cls(scores[order], np.concatenate([[0], np.cumsum(right[order])]), boxes)

    def above(self, score: float) -> Counts:
        """The predictions with a greater score."""
        count = int(np.searchsorted(-self.scores, -np.float64(score), "left"))
        right = int(self.right[count])
        return Counts(right, count - right, self.boxes)

    def best_threshold(self) -> float | None:
        """The score above which F1 is best; None where no prediction is right."""
        if not len(self.scores) or not self.right[-1]:
            return None
        counts = np.arange(1, len(self.scores) + 1)
        f1 = 2 * self.right[1:] / (counts + self.boxes)
        following = np.append(self.scores[1:], 0).astype(np.float64)
        # Of equal scores all or none are above a threshold.
        f1[self.scores == following] = -1
        best = int(np.argmax(f1))
        return (float(self.scores[best]) + float(following[best])) / 2

    def on_grid(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Precision, recall and F1 [201] above :data:`GRID`."""
        counts = [self.above(score) for score in GRID.tolist()]
        return (
            np.asarray([count.precision for count in counts]),
            np.asarray([count.recall for count in counts]),
            np.asarray([count.f1 for count in counts]),
        )


@dataclass(frozen=True, eq=False)
class Confusion:
    """What boxes were taken for.

    Args:
        names: K names.
        counts: [K + 1, K + 1] by class of the box and class of the prediction; the last row has predictions where
            there is no box, the last column boxes that no prediction found.
    """

    names: tuple[str, ...]
    counts: IntArray

    def as_list(self) -> list[dict[str, str | int | None]]:
        """The counts that are not 0; None stands for nothing."""
        names = (*self.names, None)
        return [
            {
                "truth": names[row],
                "predicted": names[column],
                "count": int(self.counts[row, column]),
            }
            for row, column in zip(*np.nonzero(self.counts), strict=True)
        ]


def confuse(
    table: PredictionTable, matches: Matches, annotations: Annotations, threshold: float
) -> Confusion:
    """What the boxes were taken for by predictions with a greater score.

    A prediction that finds a box of its class is right; the others then share out the boxes that are left.
    """
    shown = (table.scores > threshold) & ~matches.ignored
    table, boxes = table.select(shown), matches.boxes[shown]
    free = ~annotations.crowds
    free[boxes[boxes >= 0]] = False
    rest = np.flatnonzero(boxes < 0)
    boxes[rest] = match_rest(table.select(rest), annotations, free)
    free[boxes[boxes >= 0]] = False
    nothing = len(annotations.categories)
    counts = np.zeros((nothing + 1, nothing + 1), dtype=np.int64)
    truth = np.append(annotations.classes, nothing)[boxes]
    np.add.at(counts, (truth, table.classes), 1)
    np.add.at(counts[:, nothing], annotations.classes[free], 1)
    return Confusion(annotations.categories.names, counts)
