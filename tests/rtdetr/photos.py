# SPDX-License-Identifier: Apache-2.0
"""A photo for the tests of the detector: the usual one where it is at hand, else one that scikit-learn ships."""

from __future__ import annotations

import functools
import os
from pathlib import Path

import numpy as np
from PIL import Image

USUAL = "000000039769.png"


@functools.cache
def photo() -> Image.Image:
    """RTDETR_TEST_PHOTO, the photo of the usual example beside the checkout, scikit-learn's, or a drawn one."""
    named = os.environ.get("RTDETR_TEST_PHOTO")
    usual = Path(named) if named else Path(__file__).parents[3] / "shared" / "data" / USUAL
    if usual.is_file():
        with Image.open(usual) as image:
            return image.convert("RGB")
    try:
        from sklearn.datasets import load_sample_image
    except ImportError:
        return drawn(480, 640)
    return Image.fromarray(load_sample_image("china.jpg"))


def drawn(height: int, width: int, seed: int = 0) -> Image.Image:
    """An image with smooth areas, edges and noise."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    channels = [rows * 255 // height, columns * 255 // width, (rows // 8 + columns // 8) % 2 * 255]
    noise = rng.integers(-20, 20, (height, width, 3))
    return Image.fromarray((np.stack(channels, axis=-1) + noise).clip(0, 255).astype(np.uint8))
