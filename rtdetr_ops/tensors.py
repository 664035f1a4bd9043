# SPDX-License-Identifier: Apache-2.0
"""Looking at a tensor without reading its numbers: that waits for a device, or crashes where the memory is gone."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["describe", "is_freed"]


def is_freed(tensor: Tensor) -> bool:
    """Whether the storage was freed under the tensor, as FSDP does by ``untyped_storage().resize_(0)``."""
    is_dense = tensor.layout == torch.strided
    return is_dense and tensor.numel() > 0 and tensor.untyped_storage().nbytes() == 0


def describe(value: object) -> str:
    """What an error says of a value that is not what was expected."""
    if isinstance(value, Tensor):
        return f"a tensor {list(value.shape)} of {value.dtype} on {value.device}"
    if isinstance(value, (tuple, list)) and _holds_tensor(value):
        return f"[{', '.join(map(describe, value))}]"
    return repr(value)


def _holds_tensor(value: object) -> bool:
    if isinstance(value, (tuple, list)):
        return any(map(_holds_tensor, value))
    return isinstance(value, Tensor)
