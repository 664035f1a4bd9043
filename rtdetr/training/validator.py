# SPDX-License-Identifier: Apache-2.0
"""The evaluation of each epoch: shared out among ranks, each image counted once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..data import Split
from ..evaluation import Evaluation, evaluate
from ..evaluation.predictions import merge_predictions
from ..evaluation.validation import IndexedBatch, ValidationBatches, predict_split
from ..model import RTDetrV2ForObjectDetection
from .distributed import World
from .interruption import InterruptedRunError, Interruption

__all__ = ["Validator"]


@dataclass
class Validator:
    """Measures models on a split.

    Args:
        split: N images; None measures nothing.
        size: (height, width) of the input.
        batch: images at once.
        workers: processes that read images, on each rank.
        world: the processes of the run.
    """

    split: Split | None
    size: tuple[int, int]
    batch: int
    workers: int
    world: World

    def __post_init__(self) -> None:
        if self.split is not None:
            self._batches = ValidationBatches(
                self.split,
                self.size,
                self.batch,
                self.workers,
                pin_memory=self.world.device.type == "cuda",
                rank=self.world.rank,
                ranks=self.world.size,
            )

    def __call__(
        self, model: RTDetrV2ForObjectDetection, interruption: Interruption
    ) -> Evaluation | None:
        """The numbers, on rank 0.

        Raises:
            InterruptedRunError: a signal asks a run of one process to stop.
        """
        if self.split is None:
            return None
        limit = model.config.num_queries
        table = predict_split(model, self._until(interruption), limit=limit)
        tables = self.world.gather(table)
        if not self.world.is_main:
            return None
        return evaluate(merge_predictions(tables), self.split.annotations, max_detections=limit)

    def close(self) -> None:
        """End the worker processes."""
        if self.split is not None:
            self._batches.close()

    def _until(self, interruption: Interruption) -> Iterator[IndexedBatch]:
        for batch in self._batches:
            # Among several ranks the others would wait for this one.
            if interruption.signal_number is not None and self.world.size == 1:
                raise InterruptedRunError("interrupted", interruption.signal_number)
            yield batch
