# SPDX-License-Identifier: Apache-2.0
"""Every random number of the data, as a function of the seed and what it is for: no generator has a state to lose.

NumPy reads a short list of whole numbers as one with zeros behind it, so all lists here have four.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

__all__ = ["image_stream", "noise_seed", "order_stream", "repeat_stream", "seeded", "size_stream"]

# Above any number of times that an image can come in an epoch, which noise is counted from.
NOISE = 2**30
ORDER, SIZE, REPEAT = 2**31, 2**31 + 1, 2**31 + 2


def image_stream(seed: int, epoch: int, index: int, repeat: int = 0) -> np.random.Generator:
    """For augmenting image ``index`` when it comes for the ``repeat``-th time in ``epoch``, from 0."""
    return np.random.default_rng((seed, epoch, index, repeat))


def noise_seed(seed: int, epoch: int, index: int, repeat: int = 0) -> int:
    """Of the generator of the denoising noise of the image that :func:`image_stream` augments; below 2**63."""
    return int(np.random.default_rng((seed, epoch, index, NOISE + repeat)).integers(2**63))


def order_stream(seed: int, epoch: int) -> np.random.Generator:
    """For the order of the images in ``epoch``."""
    return np.random.default_rng((seed, epoch, 0, ORDER))


def repeat_stream(seed: int, epoch: int) -> np.random.Generator:
    """For how often images of rare classes come in ``epoch``."""
    return np.random.default_rng((seed, epoch, 0, REPEAT))


def size_stream(seed: int, step: int) -> np.random.Generator:
    """For the size of the images in ``step``."""
    return np.random.default_rng((seed, step, 0, SIZE))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """The generators of Python, NumPy and torch (CPU) begin at ``seed``, 0..2**32-1, and afterwards go on as before."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 -- what others' code draws from
    with torch.random.fork_rng(devices=[]):
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        torch.default_generator.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002
