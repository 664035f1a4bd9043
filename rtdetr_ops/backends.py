# SPDX-License-Identifier: Apache-2.0
"""Backends are rows of a table; what a row supports is data, and one function turns that data into a reason.

``select`` takes the first row of a table that has no reason against the call, ``explain_table`` prints the reasons of
all rows, and a row asked for by name either runs or raises that same sentence. Nothing here looks at the values of a
tensor, so the choice is traceable and costs no synchronisation.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import torch
from torch import Tensor

__all__ = [
    "Backend",
    "Support",
    "explain_table",
    "make_backend",
    "select",
    "use_backend",
    "why_not",
]

FLOAT_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Support:
    """What a backend can run.

    Args:
        devices: device types of ``value``, or None for any device.
        dtypes: dtypes of ``value``; the other arguments may have any floating dtype.
        missing: why the backend is absent from this installation, or None when it is present.
        capability: least compute capability of an NVIDIA device, or None for any.
        fallback_devices: device types on which running this row is a slow path worth a warning.
        transforms: whether ``torch.func`` transforms and forward-mode differentiation go through it. torch would drop
            the derivative of an operator without such rules in silence.
    """

    devices: tuple[str, ...] | None = None
    dtypes: tuple[torch.dtype, ...] = FLOAT_DTYPES
    missing: str | None = None
    capability: tuple[int, int] | None = None
    fallback_devices: tuple[str, ...] = ()
    transforms: bool = False


@dataclass(frozen=True)
class Backend:
    """One row.

    Args:
        name: what ``backend=`` and ``use_backend`` call it.
        run: the unfused entry, differentiable.
        run_fused: the fused entry, differentiable.
        gradients: the backward of ``run`` by itself: gradients of the tensors that need one, None for the others.
        gradients_fused: the same for ``run_fused``.
        support: where it runs.
    """

    name: str
    run: Callable[..., Tensor]
    run_fused: Callable[..., Tensor]
    gradients: Callable[..., list[Tensor | None]]
    gradients_fused: Callable[..., list[Tensor | None]]
    support: Support


class Implementation(Protocol):
    """What brings the functions of a row under these names: an object or a module."""

    @property
    def run(self) -> Callable[..., Tensor]: ...
    @property
    def run_fused(self) -> Callable[..., Tensor]: ...
    @property
    def gradients(self) -> Callable[..., list[Tensor | None]]: ...
    @property
    def gradients_fused(self) -> Callable[..., list[Tensor | None]]: ...


def make_backend(name: str, functions: Implementation, support: Support) -> Backend:
    """A row from what implements it."""
    return Backend(
        name,
        functions.run,
        functions.run_fused,
        functions.gradients,
        functions.gradients_fused,
        support,
    )


_forced: str | None = os.environ.get("RTDETR_OPS_BACKEND") or None


@contextmanager
def use_backend(name: str | None) -> Iterator[None]:
    """Force every call inside the ``with`` block onto one backend; ``None`` restores the automatic choice.

    The environment variable ``RTDETR_OPS_BACKEND`` does the same for a whole process. A ``backend=`` argument wins over
    both. The choice is process-wide, not per thread.

    Args:
        name: a row of the table, such as ``"cpu"`` or ``"reference"``.
    """
    global _forced
    previous, _forced = _forced, name
    try:
        yield
    finally:
        _forced = previous


def why_not(support: Support, value: Tensor) -> str | None:
    """One sentence saying why a backend cannot run on ``value``, or None when it can."""
    if support.missing is not None:
        return support.missing
    if support.devices is not None and value.device.type not in support.devices:
        return f"it runs on {' or '.join(support.devices)} tensors, and value is on {value.device}"
    if value.dtype not in support.dtypes:
        names = ", ".join(str(dtype).removeprefix("torch.") for dtype in support.dtypes)
        return f"value must be one of {names}, got {str(value.dtype).removeprefix('torch.')}"
    if support.capability is not None and not torch.compiler.is_compiling():
        found = _capability(value.device.index)
        if found is not None and found < support.capability:
            least, has = (".".join(map(str, pair)) for pair in (support.capability, found))
            return f"it needs compute capability {least} or newer, and {value.device} has {has}"
    if not support.transforms and _is_transformed():
        return "it has no rules for torch.func transforms and forward-mode differentiation"
    return None


@lru_cache
def _capability(device: int) -> tuple[int, int] | None:
    """Of a GPU; None where there is none, and tensors on one are only imagined."""
    return torch.cuda.get_device_capability(device) if torch.cuda.is_available() else None


def _is_transformed() -> bool:
    if torch.compiler.is_compiling():
        return False
    return (
        torch._C._functorch.peek_interpreter_stack() is not None
        or torch.autograd.forward_ad._current_level >= 0
    )


def select(table: tuple[Backend, ...], name: str | None, value: Tensor) -> Backend:
    """The row to run: the one named (argument, ``use_backend`` or environment), else the first that can.

    Raises:
        ValueError: the name is not in the table.
        RuntimeError: the named row, or every row, cannot run on ``value``.
    """
    name = name if name is not None else _forced
    if name is not None:
        return _select_named(table, name, value)
    for row in table:
        if why_not(row.support, value) is None:
            if value.device.type in row.support.fallback_devices:
                _warn_slow_path(row, value)
            return row
    raise RuntimeError("no backend can run this call:\n" + explain_table(table, None, value))


def explain_table(table: tuple[Backend, ...], name: str | None, value: Tensor) -> str:
    """One line per row: whether it can run on ``value``, why not, and which one is taken."""
    name = name if name is not None else _forced
    lines, taken = [], False
    for row in table:
        reason = why_not(row.support, value)
        wanted = name in (None, row.name)
        if reason is not None:
            lines.append(f"  {row.name}: no, {reason}")
        elif wanted and not taken:
            lines.append(f"  {row.name}: yes, taken")
            taken = True
        else:
            lines.append(f"  {row.name}: yes")
    return "\n".join(lines)


def _select_named(table: tuple[Backend, ...], name: str, value: Tensor) -> Backend:
    for row in table:
        if row.name == name:
            reason = why_not(row.support, value)
            if reason is not None:
                raise RuntimeError(f"backend: {name!r} cannot run this call: {reason}")
            return row
    known = ", ".join(repr(row.name) for row in table)
    raise ValueError(f"backend: expected one of {known}, got {name!r}")


_warned: set[tuple[str, str]] = set()


def _warn_slow_path(row: Backend, value: Tensor) -> None:
    key = (row.name, value.device.type)
    if torch.compiler.is_compiling() or key in _warned:
        return
    _warned.add(key)
    warnings.warn(
        f"rtdetr_ops: no fused kernel for {value.device.type} tensors in this installation; running the slower "
        f"{row.name!r} backend (backend={row.name!r} silences this)",
        stacklevel=4,
    )
