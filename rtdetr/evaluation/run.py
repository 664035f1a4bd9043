# SPDX-License-Identifier: Apache-2.0
"""A detector on a data set: what ``rtdetr val`` and ``RTDETR.val`` do."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from ..data import DataSplits, ReadOptions, Split, load_data
from ..data.load import DataSource
from ..devices import count_cores
from ..errors import DataError, ModelError
from ..model import RTDetrV2ForObjectDetection
from ..processing.image_processor import RTDetrImageProcessor
from .metrics import Evaluation
from .options import ValOptions, split_words
from .predictions import PredictionTable
from .validation import Progress, validate

__all__ = ["ValRun", "choose_split", "evaluate_detector", "input_size", "run_validation"]

MOST_WORKERS = 8


@dataclass(frozen=True, eq=False)
class ValRun:
    """An evaluation and what it was made of.

    Args:
        evaluation: the numbers.
        predictions: of ``split``, with its classes.
        split: annotated images.
        imgsz: (height, width) of the input.
    """

    evaluation: Evaluation
    predictions: PredictionTable
    split: Split
    imgsz: tuple[int, int]


def evaluate_detector(
    model: RTDetrV2ForObjectDetection,
    processor: RTDetrImageProcessor,
    data: DataSource,
    words: Mapping[str, Any],
) -> Evaluation:
    """See :meth:`rtdetr.RTDETR.val`."""
    options, reading = split_words(words)
    size = input_size(processor, options)
    queries = model.config.num_queries
    read_options = ReadOptions(**reading, queries=queries, imgsz=min(size))
    names = [model.config.id2label[label] for label in range(model.config.num_labels)]
    splits = load_data(data, read_options, names=names)
    split = choose_split(splits, options.split, str(data) if _is_place(data) else "data")
    return run_validation(model, processor, split, options).evaluation


def run_validation(
    model: RTDetrV2ForObjectDetection,
    processor: RTDetrImageProcessor,
    split: Split,
    options: ValOptions,
    progress: Progress | None = None,
) -> ValRun:
    """Evaluate a model on a split; see :func:`validate` for the errors.

    Raises:
        ModelError: if the processor prepares images in another way than training does.
    """
    size = input_size(processor, options)
    evaluation, table = validate(
        model,
        split,
        imgsz=size,
        batch=options.batch,
        workers=_workers(options, model.device),
        progress=progress,
    )
    return ValRun(evaluation, table, split, size)


def choose_split(splits: DataSplits, name: str, place: str) -> Split:
    """The split of that name.

    Raises:
        DataError: if there is none.
    """
    split = splits.train if name == "train" else splits.val
    if split is None:
        raise DataError(f'{place}: has no split "{name}" ({splits.layout})')
    return split


def input_size(processor: RTDetrImageProcessor, options: ValOptions) -> tuple[int, int]:
    """(height, width) of the input.

    Raises:
        ModelError: if the processor does more than to resize an image to one size, as training does.
    """
    if options.imgsz is not None:
        assert isinstance(options.imgsz, tuple)
        processor = processor.with_input_size(*options.imgsz)
    size = processor.input_size
    keeps_aspect = not (isinstance(processor.size, Mapping) and "height" in processor.size)
    differences = {
        "it does not resize": not processor.do_resize,
        "it keeps the aspect of images": processor.do_resize and keeps_aspect,
        "it pads images": processor.do_pad and processor.pad_size not in (None, processor.size),
        "it normalizes colors": processor.do_normalize,
        "it does not resize bilinearly": processor.resample != int(Image.Resampling.BILINEAR),
        "it does not scale colors to 0..1": not processor.do_rescale
        or abs(processor.rescale_factor * 255 - 1) > 1e-6,
    }
    reasons = [reason for reason, differs in differences.items() if differs]
    if size is None or reasons:
        raise ModelError(
            f"val prepares images as training does: resized to one size, colors 0..1. The processor of this model "
            f"differs: {', '.join(reasons)}"
        )
    return size


def _workers(options: ValOptions, device: torch.device) -> int:
    if options.workers is not None:
        return options.workers
    if device.type == "cpu":
        return 0
    return min(MOST_WORKERS, count_cores())


def _is_place(data: DataSource) -> bool:
    return isinstance(data, (str, os.PathLike))
