# SPDX-License-Identifier: Apache-2.0
"""Whole detectors of transformers, as they come and patched, taking turns on the same image."""

from __future__ import annotations

from functools import partial

import torch
from records import Record, summarise
from timing import take_turns
from torch import Tensor, nn

import rtdetr_ops
from rtdetr_ops.testing.models import MODELS

__all__ = ["measure_models"]

AGREEMENT = 1e-4
"""Largest difference of logits and boxes at which the patched model still counts as the same."""


def measure_models(quick: bool) -> list[Record]:
    """One record for each model as it comes, one for it patched."""
    names = list(MODELS)[:1] if quick else list(MODELS)
    return [record for name in names for record in _measure_model(name, rounds=1 if quick else 5)]


def _measure_model(name: str, rounds: int) -> list[Record]:
    model = MODELS[name]()
    image = torch.randn((1, 3, 640, 640), generator=torch.Generator().manual_seed(0))
    plain, patched = _outputs(model, image), _outputs_patched(model, image)
    difference = max(
        (one - other).abs().max().item() for one, other in zip(plain, patched, strict=True)
    )
    if not difference <= AGREEMENT:
        raise AssertionError(f"{name}: patched outputs differ by {difference:.1e}")
    turns = {
        "as it comes": partial(_outputs, model, image),
        "rtdetr_ops patched": partial(_outputs_patched, model, image),
    }
    return summarise("model", name, take_turns(turns, rounds), max_difference=difference)


def _outputs(model: nn.Module, image: Tensor) -> tuple[Tensor, Tensor]:
    with torch.inference_mode():
        found = model(image)
    return found.logits, found.pred_boxes


def _outputs_patched(model: nn.Module, image: Tensor) -> tuple[Tensor, Tensor]:
    """Patching is part of the turn: it costs microseconds, and the two forms share one model."""
    rtdetr_ops.patch(model)
    try:
        return _outputs(model, image)
    finally:
        rtdetr_ops.unpatch(model)
