# SPDX-License-Identifier: Apache-2.0
"""Steps whose numbers are not finite: a few are passed over, many in a row end the run and leave their batch."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import torch

from ..data import Batch
from ..errors import RTDetrError
from ..files import atomic_write
from .callbacks import Run
from .step import StepResult

__all__ = ["BATCH_FILE", "MOST_FAILURES", "describe_batch", "stop_at_failures"]

BATCH_FILE = "nan_batch.pt"
MOST_FAILURES = 5
"""In a row; a scaler that looks for its factor needs a few."""


def stop_at_failures(
    run: Run, batch: Batch, result: StepResult, names: Callable[[int], str]
) -> None:
    """End the run where too many steps in a row were not finite.

    Args:
        run: that took the step.
        batch: of the step.
        result: of the step.
        names: file names of images by their id.

    Raises:
        RTDetrError: it names the terms, and the file that ``rtdetr train --replay`` reads.
    """
    if run.progress.skipped_in_a_row < MOST_FAILURES:
        return
    rank = run.world.rank
    path = run.folder / (BATCH_FILE if rank == 0 else f"rank{rank}_{BATCH_FILE}")
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        torch.save(describe_batch(run, batch, names), file)
    epoch = run.progress.epoch + 1
    terms = [name for name, value in result.losses.items() if not math.isfinite(value)]
    what = ", ".join(terms[:6]) or f"gradient (norm {result.gradient_norm})"
    raise RTDetrError(
        f"epoch {epoch}: loss or gradient was not finite {MOST_FAILURES} steps in a row ({what}). The batch is in "
        f"{path}; rtdetr train --replay {path} says where it begins. Perhaps a lower lr helps, or amp off."
    )


def describe_batch(run: Run, batch: Batch, names: Callable[[int], str]) -> dict[str, Any]:
    """All that a step depends on, for :func:`rtdetr.training.replay.replay`."""
    precision = run.step.precision.dtype
    return {
        "config": json.dumps(run.model.config.to_dict()),
        "model": run.model.state_dict(),
        "pixel_values": batch["pixel_values"],
        "labels": [dict(label) for label in batch["labels"]],
        "names": [names(int(label["image_id"])) for label in batch["labels"]],
        "amp": "off" if precision is None else str(precision).removeprefix("torch."),
        "step": run.number,
    }
