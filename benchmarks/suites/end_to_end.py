# SPDX-License-Identifier: Apache-2.0
"""Whole detectors of transformers, unpatched and patched, taking turns on the same image."""

from __future__ import annotations

from functools import partial

import torch
from core.detections import Outputs, as_detector
from core.devices import Device
from core.patched import patched
from core.records import Record, summarize
from core.timing import take_turns

from rtdetr_ops.testing.models import MODELS

__all__ = ["measure_models"]

AGREEMENT = 1e-4
"""Largest difference of logits and boxes at which the patched model still counts as the same."""


def measure_models(device: Device, quick: bool) -> list[Record]:
    """One record for each model unpatched, one for it patched."""
    names = list(MODELS)[:1] if quick else list(MODELS)
    rounds = 1 if quick else 5
    return [record for name in names for record in _measure_model(device, name, rounds)]


def _measure_model(device: Device, name: str, rounds: int) -> list[Record]:
    model = MODELS[name]().to(device.type)
    image = torch.randn((1, 3, 640, 640), generator=torch.Generator().manual_seed(0))
    run = partial(as_detector(model), image.to(device.type))
    plain = run()
    with patched(model):
        fused = run()
    difference = check_same(name, plain, fused)
    seconds = take_turns(
        device,
        {"unpatched": run, "rtdetr_ops patched": run},
        rounds,
        around={"rtdetr_ops patched": partial(patched, model)},
    )
    return summarize("model", name, seconds, max_difference=difference)


def check_same(name: str, plain: Outputs, patched: Outputs) -> float:
    """The largest difference of logits and boxes.

    Raises:
        AssertionError: it is too large, or NaN.
    """
    pairs = zip(plain, patched, strict=True)
    difference = torch.stack([(one - other).abs().max() for one, other in pairs]).max().item()
    if not difference <= AGREEMENT:
        raise AssertionError(f"{name}: patched outputs differ by {difference:.1e}")
    return difference
