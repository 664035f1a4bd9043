# SPDX-License-Identifier: Apache-2.0
"""Tables that depend on the size of the input alone: built once for each size."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

__all__ = ["SizeCache"]

T = TypeVar("T", bound="tuple[Tensor, ...]")

# Training at changing sizes uses a dozen; one entry of a 640x640 input is 150 KiB.
LIMIT = 32


class SizeCache(Generic[T]):
    """Remembers what ``make(*size, device)`` returned, for all threads. Nothing waits for the device.

    While a graph is traced, the table is built again: a compiler folds it to a constant, and torch.jit.trace follows
    the size. While a CUDA graph is captured, a table that is not there yet becomes part of the graph and is not kept:
    its numbers come with a replay.
    """

    def __init__(self, make: Callable[..., T]) -> None:
        self.make = make
        self.known: dict[Any, T] = {}
        self.lock = threading.Lock()

    def __call__(self, *size: Any, device: torch.device) -> T:
        if torch.compiler.is_compiling():
            return self.make(*size, device)
        key = (*size, device)
        table = self.known.get(key)
        return self._make(key) if table is None else table

    def _make(self, key: Any) -> T:
        # A tensor made under inference_mode could not be used in training afterwards.
        with torch.inference_mode(False), torch.no_grad():
            table = self.make(*key)
        if _is_final(table):
            with self.lock:
                while key not in self.known and len(self.known) >= LIMIT:
                    self.known.pop(next(iter(self.known)))
                self.known[key] = table
        return table

    def __deepcopy__(self, memo: Any) -> SizeCache[T]:
        return type(self)(self.make)

    def __reduce__(self) -> Any:
        return type(self), (self.make,)


def _is_final(tensors: tuple[Tensor, ...]) -> bool:
    """Whether these are numbers now, and not stand-ins of a trace or of a graph under capture."""
    if tensors[0].is_cuda and torch.cuda.is_current_stream_capturing():
        return False
    if torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        return False
    return all(type(tensor) in (Tensor, nn.Parameter) for tensor in tensors)
