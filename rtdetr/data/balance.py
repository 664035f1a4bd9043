# SPDX-License-Identifier: Apache-2.0
"""How often images with rare classes come in an epoch.

Source: LVIS: A Dataset for Large Vocabulary Instance Segmentation (Gupta et al., 2019), appendix B.2.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .annotations import Annotations, IntArray

__all__ = ["THRESHOLD", "repeat_factors", "round_at_random"]

THRESHOLD = 0.001
"""Of the paper: classes in a larger share of the images come as they are."""

Factors = npt.NDArray[np.float64]


def repeat_factors(annotations: Annotations, threshold: float = THRESHOLD) -> Factors:
    """[N], at least 1: for the rarest class of an image, the root of ``threshold`` over the share of images with it."""
    total, classes = len(annotations), len(annotations.categories)
    owners = np.repeat(np.arange(total), annotations.counts())[~annotations.crowds]
    present = np.unique(owners * classes + annotations.classes[~annotations.crowds])
    images = np.bincount(present % classes, minlength=classes)
    by_class = np.sqrt(threshold * total / images.clip(1)).clip(1)
    factors = np.ones(total)
    np.maximum.at(factors, present // classes, by_class[present % classes])
    return factors


def round_at_random(factors: Factors, rng: np.random.Generator) -> IntArray:
    """[N] whole numbers whose mean over many draws is ``factors``."""
    whole = np.floor(factors)
    return (whole + (rng.random(len(factors)) < factors - whole)).astype(np.int64)
