# SPDX-License-Identifier: Apache-2.0
"""The images that a run leaves: what the model sees, what the data hold, how it went, and what the best model finds."""

from __future__ import annotations

from pathlib import Path

from ..data import DataSplits, DetectionDataset, collate
from ..evaluation import Evaluation
from ..evaluation.plots import plot_confusion, plot_history, plot_labels, plot_precision_recall
from ..evaluation.samples import draw_batch, draw_samples
from ..evaluation.validation import validate
from ..model import RTDetrV2ForObjectDetection
from .callbacks import Callback, Run
from .optional import tolerate
from .plan import Plan
from .run_folder import write_json

__all__ = ["Plots", "report_best"]

METRICS = "metrics.json"
SHOWN_IMAGES = 16
SHOWN_SCORE = 0.3
"""Where no threshold is best, since nothing right was found."""


class Plots(Callback):
    """``labels.jpg`` and ``train_batch.jpg`` at the start, ``curves.png`` at the end.

    Args:
        splits: the data.
        dataset: what the model sees of them.
    """

    def __init__(self, splits: DataSplits, dataset: DetectionDataset) -> None:
        assert splits.train is not None
        self._annotations, self._dataset = splits.train.annotations, dataset

    def start(self, run: Run) -> None:
        with tolerate("labels.jpg"):
            plot_labels(self._annotations, run.folder / "labels.jpg")
        with tolerate("train_batch.jpg"):
            self._draw_batch(run)

    def _draw_batch(self, run: Run) -> None:
        run.batches.set_epoch(0)
        keys = next(iter(run.batches))[:SHOWN_IMAGES]
        batch = collate([self._dataset[key] for key in keys])
        names = self._annotations.categories.names
        draw_batch(batch, names, run.folder / "train_batch.jpg", most=SHOWN_IMAGES)

    def end(self, run: Run) -> None:
        if run.progress.rows:
            with tolerate("curves.png"):
                plot_history(run.progress.rows, run.folder / "curves.png")


def report_best(
    best: Path, splits: DataSplits, plan: Plan, device: str, has_plots: bool
) -> Evaluation | None:
    """Measure the best model once more, from its file, and write and draw what was measured beside it.

    Args:
        best: its file.
        splits: the data; without a val split there is nothing to measure.
        plan: of the run.
        device: where to.
        has_plots: whether to draw.
    """
    if splits.val is None:
        return None
    model: RTDetrV2ForObjectDetection = RTDetrV2ForObjectDetection.from_pretrained(best)
    evaluation, table = validate(
        model.to(device), splits.val, imgsz=plan.size, workers=plan.workers
    )
    write_json(best.parent, evaluation.as_dict(), METRICS)
    if has_plots:
        with tolerate("pr.png"):
            plot_precision_recall(evaluation, best.parent / "pr.png")
        with tolerate("confusion.png"):
            plot_confusion(evaluation.confusion, best.parent / "confusion.png")
        threshold = SHOWN_SCORE if evaluation.threshold is None else evaluation.threshold
        with tolerate("val_samples.jpg"):
            draw_samples(splits.val, table, best.parent / "val_samples.jpg", threshold)
    return evaluation
