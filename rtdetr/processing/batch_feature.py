# SPDX-License-Identifier: Apache-2.0
"""A dictionary of arrays or tensors whose entries are attributes too."""

from __future__ import annotations

from typing import Any

import torch


class BatchFeature(dict[str, Any]):
    """What an image processor returns: ``model(**batch)``, ``batch["labels"]`` and ``batch.labels`` all work."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            known = ", ".join(self) or "none"
            raise AttributeError(f"no entry {name!r} in this batch; it has: {known}") from None

    def to(self, *args: Any, **kwargs: Any) -> BatchFeature:
        """Move every tensor, nested ones too, in place; takes what ``Tensor.to`` takes.

        A dtype applies to floating-point tensors only: labels and masks keep theirs.
        """
        device, dtype, non_blocking, _ = torch._C._nn._parse_to(*args, **kwargs)
        for name, value in self.items():
            self[name] = _moved(value, device, dtype, non_blocking)
        return self


def _moved(value: Any, device: Any, dtype: torch.dtype | None, non_blocking: bool) -> Any:
    if isinstance(value, torch.Tensor):
        kept = dtype if value.is_floating_point() else None
        return value.to(device=device, dtype=kept, non_blocking=non_blocking)
    if isinstance(value, BatchFeature):
        return value.to(device=device, dtype=dtype, non_blocking=non_blocking)
    if isinstance(value, list | tuple):
        return type(value)(_moved(item, device, dtype, non_blocking) for item in value)
    return value
