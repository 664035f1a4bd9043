# SPDX-License-Identifier: Apache-2.0
"""A model of somebody else with the fused op in it, for its own turns."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

import rtdetr_ops

__all__ = ["patched"]


@contextmanager
def patched(model: nn.Module) -> Iterator[None]:
    """Patch a model inside the block; what it shares with others, as a function of its module, is patched for all."""
    rtdetr_ops.patch(model)
    try:
        yield
    finally:
        rtdetr_ops.unpatch(model)
