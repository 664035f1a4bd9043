# SPDX-License-Identifier: Apache-2.0
"""One training step of RT-DETRv2 on a CPU: this package against transformers, taking turns; and the parts of ours."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from statistics import median

from core.devices import Device
from core.memory import memory_kept
from core.patched import patched
from core.records import TRAINING, Record, summarize
from core.stopwatch import REST, Stopwatch
from core.timing import take_turns
from core.training_steps import LoopStep, check_learning, make_batch, make_models, make_step

__all__ = ["OURS", "PARTS", "measure_training"]

OURS, PATCHED = "rtdetr", "transformers, rtdetr_ops patched"
SIDES = (320, 640)
"""Of the square images, in pixels."""
IMAGES, OBJECTS = 2, 20
"""Of a batch, and of each image: 200 denoising queries."""

PARTS = {
    "backbone": "rtdetr.model.backbone.Backbone.forward",
    "encoder": "rtdetr.model.hybrid_encoder.HybridEncoder.forward",
    "denoising queries": "rtdetr.model.RTDetrV2Model.denoise",
    "decoder": "rtdetr.model.decoder.Decoder.forward",
    "rest of the network": "rtdetr.RTDetrV2ForObjectDetection.forward",
    "losses": "rtdetr.model.detection.compute_losses",
    "matching: costs": "rtdetr.loss.MatchingCosts.of_pairs",
    "matching: assignment": "rtdetr.loss.criterion.match",
    "backward": "torch.Tensor.backward",
    "clipping": "torch.nn.utils.clip_grad_norm_",
    "optimizer": "torch.optim.AdamW.step",
    "average of weights": "rtdetr.training.ema.MovingAverage.update",
}
"""Of a step of ours, and the function that is each."""


def measure_training(device: Device, quick: bool) -> list[Record]:
    """For each size one record of each contender; that of ours says what its parts take."""
    return [
        record for side in SIDES[: 1 if quick else None] for record in _measure(device, side, quick)
    ]


def _measure(device: Device, side: int, quick: bool) -> list[Record]:
    batch = make_batch(IMAGES, side, OBJECTS)
    ours, theirs = make_models()
    patch = partial(patched, theirs)
    difference = max(
        check_learning(ours, theirs, batch),
        check_learning(theirs, copy.deepcopy(theirs), batch, around=patch),
    )
    loop = partial(LoopStep(theirs), batch, 0)
    step = partial(make_step(ours, batch), batch, 0)
    seconds = take_turns(
        device,
        {
            OURS: step,
            "transformers": loop,
            PATCHED: loop,
            f"{OURS}, memory kept": step,
        },
        rounds=1 if quick else 9,
        warmup=0 if quick else 1,
        around={PATCHED: patch, f"{OURS}, memory kept": memory_kept},
    )
    case = f"RT-DETRv2 R18 {side}x{side}, batch {IMAGES}"
    first, *others = summarize(TRAINING, case, seconds, max_difference=difference)
    parts = measure_parts(step, rounds=1 if quick else 5)
    return [replace(first, details=first.details | parts), *others]


def measure_parts(step: Callable[[], object], rounds: int) -> dict[str, float]:
    """The median seconds of each part of a step of ours.

    Raises:
        AssertionError: a function of ``PARTS`` is not called.
    """
    watched = []
    for _ in range(rounds):
        with Stopwatch().watch(PARTS) as seconds:
            step()
        if seconds.keys() != {*PARTS, REST}:
            raise AssertionError(
                f"parts that a step does not call: {PARTS.keys() - seconds.keys()}"
            )
        watched.append(seconds)
    return {part: median(seconds[part] for seconds in watched) for part in (*PARTS, REST)}
