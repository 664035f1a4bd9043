# SPDX-License-Identifier: Apache-2.0
"""Arithmetic in float32 on GPUs that would rather use fewer bits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["full_float32"]


@contextmanager
def full_float32() -> Iterator[None]:
    """Inside the ``with`` block no convolution and no matrix product rounds float32 inputs to TF32.

    torch lets convolutions do so by default: three digits remain, which is enough to detect and too few to compare.
    """
    settings = (torch.backends.cudnn.conv, torch.backends.cuda.matmul)  # type: ignore[attr-defined]
    before = [setting.fp32_precision for setting in settings]
    for setting in settings:
        setting.fp32_precision = "ieee"
    try:
        yield
    finally:
        for setting, precision in zip(settings, before, strict=True):
            setting.fp32_precision = precision
