# SPDX-License-Identifier: Apache-2.0
"""Detectors as functions, and whether two of them detect the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["Detector", "Outputs", "as_detector", "check_detections"]

Outputs = tuple[Tensor, Tensor]
"""Logits [B, Q, K] and boxes [B, Q, 4], (cx, cy, w, h) in 0..1."""
Detector = Callable[[Tensor], Outputs]

AGREEMENT = 1e-3
"""Largest difference of scores and boxes, query by query, at which a float32 contender counts as the same detector."""

CLOSE_QUERIES = 0.9
"""Part of the detections that a contender in fewer bits must find again within ``CLOSE``."""
CLOSE = 0.05


def as_detector(model: Any) -> Detector:
    """A model of this package or of transformers."""

    def run(images: Tensor) -> Outputs:
        with torch.inference_mode():
            outputs = model(images)
        return outputs.logits, outputs.pred_boxes

    return run


def check_detections(name: str, truth: Outputs, outputs: Outputs, exact: bool) -> float:
    """How far ``outputs`` are from ``truth``: queries whose scores are close may change places.

    Args:
        name: of the contender, for the error.
        truth: what it has to detect.
        outputs: what it detects.
        exact: whether every detection must be found again, as float32 does, or most of them, nearly.

    Raises:
        AssertionError: too far; a time of a wrong detector means nothing.
    """
    expected, got = (
        torch.cat([logits.float().sigmoid(), boxes.float()], -1)
        for logits, boxes in (truth, outputs)
    )
    if not got.isfinite().all():  # cdist passes over NaN
        raise AssertionError(f"{name}: a detection is not finite")
    nearest = torch.cdist(expected, got, p=float("inf")).amin(-1)  # [B, Q]
    if exact:
        worst = nearest.max().item()
        if not worst <= AGREEMENT:
            raise AssertionError(f"{name}: a detection differs by {worst:.1e}")
        return worst
    share = (nearest < CLOSE).double().mean().item()
    if not share >= CLOSE_QUERIES:
        raise AssertionError(f"{name}: finds {share:.0%} of the detections again")
    return nearest.quantile(CLOSE_QUERIES).item()
