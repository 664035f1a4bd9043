# SPDX-License-Identifier: Apache-2.0
"""The detectors on a GPU: in which modes and sizes, in which order.

Each is timed as its user waits for it: from the call until the boxes are there. Convolutions run as torch sets them
up by itself, in TF32 where the GPU has it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from core.detections import as_detector, check_detections
from core.detectors import (
    CONTENDERS,
    DetectorContender,
    Models,
    case_name,
    compiled,
    make_images,
    replayed,
)
from core.devices import Device, Limits
from core.records import DETECTOR
from torch import Tensor

from gpu.jobs import Plan
from gpu.result_file import Key, Measurement
from rtdetr.devices import full_float32

__all__ = ["DetectorJob", "jobs", "plan"]

LIMITS = {False: Limits(1.0, 10, 100), True: Limits(0, 2, 2)}
"""By whether it is a dry run."""

BATCHES = {False: (1, 8), True: (1,)}
SIDE = {False: 640, True: 128}
"""Of the square images, in pixels."""

HALF = torch.bfloat16

GPU_CONTENDERS = (
    DetectorContender("rtdetr optimized, CUDA graph", Models.optimized, mode=replayed),
    DetectorContender("rtdetr optimized bfloat16, CUDA graph", Models.optimized, HALF, replayed),
    *CONTENDERS,
    DetectorContender("transformers bfloat16", Models.theirs, HALF),
    DetectorContender("transformers, CUDA graph", Models.theirs, mode=replayed),
    DetectorContender(
        "rtdetr optimized bfloat16, compiled", Models.optimized, HALF, compiled, slow=True
    ),
    DetectorContender("transformers bfloat16, compiled", Models.theirs, HALF, compiled, slow=True),
)


@dataclass(frozen=True)
class DetectorJob:
    """One contender on one batch of square images.

    Args:
        contender: that is timed.
        models: to choose from.
        batch: how many images.
        side: of an image, in pixels.
    """

    contender: DetectorContender
    models: Models
    batch: int
    side: int

    @property
    def keys(self) -> tuple[Key]:
        """A single one."""
        return (Key(DETECTOR, f"{case_name(self.side)}, batch {self.batch}", self.contender.name),)

    def prepare(self, device: Device, limits: Limits) -> Callable[[Key], Measurement]:
        """Check the arithmetic of the model, then make the call."""
        images = make_images(self.batch, self.side, device)
        if self.contender.exact:
            self._check_exactly(images)
        run = self.contender.bind(self.models, images, device)

        def measure(key: Key) -> Measurement:
            truth = self.models.detect(images)
            difference = check_detections(self.contender.name, truth, run(), exact=False)
            return device.time_host(run, 1, limits), {"max_difference": difference}

        return measure

    def _check_exactly(self, images: Tensor) -> None:
        """Without TF32 every detection is found again."""
        contender = self.contender
        detect = as_detector(contender.model(self.models, contender.dtype))
        with full_float32():
            truth = self.models.detect(images)
            check_detections(contender.name, truth, detect(images), exact=True)


def plan(device: Device, dry_run: bool) -> Plan:
    """The modes of a GPU; a dry run goes through those that a CPU runs quickly."""
    contenders = [
        contender
        for contender in GPU_CONTENDERS
        if not dry_run or (contender.exact and not contender.slow)
    ]
    names = (contender.name for contender in contenders)
    return Plan(
        versions=dict.fromkeys(names, "this repository, transformers"),
        jobs=jobs(contenders, device, dry_run),
        limits=LIMITS[dry_run],
        hangs=200,
    )


def jobs(
    contenders: list[DetectorContender], device: Device, dry_run: bool
) -> Iterator[DetectorJob]:
    """What starts quickly first."""
    with tempfile.TemporaryDirectory() as folder:
        models = Models(Path(folder), device)
        for slow in (False, True):
            for batch in BATCHES[dry_run]:
                for contender in contenders:
                    if contender.slow == slow:
                        yield DetectorJob(contender, models, batch, SIDE[dry_run])
