# SPDX-License-Identifier: Apache-2.0
"""torchvision beside a torch without its compiled operators (a CPU build, say): two of their names have to exist."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


@contextmanager
def torchvision_importable() -> Iterator[None]:
    """Inside, torchvision can be imported; the names exist as long as the library does."""
    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in SCHEMAS:
        if not hasattr(torch.ops.torchvision, schema.split("(")[0]):
            library.define(schema)
    yield
    del library
