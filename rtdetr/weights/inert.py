# SPDX-License-Identifier: Apache-2.0
"""Reading a pickled checkpoint without running anything it names.

Original checkpoints hold more than tensors: a date, the optimizer, sometimes a whole object of another library.
Tensors and containers are rebuilt; every other class or function becomes a stand-in that takes all arguments and does
nothing.
"""

from __future__ import annotations

import collections
import pickle
import types
from typing import IO, Any

import torch

__all__ = ["Inert", "inert_pickle"]

SAFE: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch", "Size"): torch.Size,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
}


class Inert:
    """Stands for anything that is neither a tensor nor a container."""

    path = ""

    def __new__(cls, *_: Any, **__: Any) -> Inert:
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __call__(self, *_: Any, **__: Any) -> Inert:
        return self

    def __setstate__(self, _: Any) -> None: ...

    def __setitem__(self, *_: Any) -> None: ...

    def append(self, _: Any) -> None: ...

    def extend(self, _: Any) -> None: ...

    def add(self, _: Any) -> None: ...


class InertUnpickler(pickle.Unpickler):
    """Looks names up in :data:`SAFE`, among the types of storage, and nowhere else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in SAFE:
            return SAFE[module, name]
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        if module in ("torch", "torch.storage") and name.endswith("Storage"):
            return getattr(torch, name, torch.UntypedStorage)
        return type(name, (Inert,), {"path": f"{module}.{name}"})


def _load(file: IO[bytes], **options: Any) -> Any:
    return InertUnpickler(file, **options).load()


inert_pickle = types.ModuleType("inert_pickle", "What torch.load takes as its pickle module.")
inert_pickle.Unpickler = InertUnpickler  # type: ignore[attr-defined]
inert_pickle.load = _load  # type: ignore[attr-defined]
