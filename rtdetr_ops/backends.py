# SPDX-License-Identifier: Apache-2.0
"""A table of backends: what each supports is data, and one function turns that data into a reason.

``select`` takes the first backend of a table that has no reason against the call, ``explain_table`` gives the reasons
of all, and a backend asked for by name either runs or raises that same sentence. Nothing here looks at the values of a
tensor, so the choice is traceable and costs no synchronization.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import torch
from torch import Tensor

from . import environment
from .levels import Levels

__all__ = [
    "Backend",
    "Explanation",
    "Implementation",
    "Support",
    "explain_table",
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
        fallback_devices: device types on which this backend is a slow path worth a warning.
        transforms: whether ``torch.func`` transforms and forward-mode differentiation go through it. torch would drop
            the derivative of an operator without such rules in silence.
    """

    devices: tuple[str, ...] | None = None
    dtypes: tuple[torch.dtype, ...] = FLOAT_DTYPES
    missing: str | None = None
    capability: tuple[int, int] | None = None
    fallback_devices: tuple[str, ...] = ()
    transforms: bool = False


class Implementation(Protocol):
    """The functions of a backend, in an object or a module. Arguments have passed the checks."""

    def run(
        self,
        value: Tensor,  # [B, S, M, D]
        levels: Levels,  # L pairs (H, W)
        locations: Tensor,  # [B, Q, M, T, 2]
        weights: Tensor,  # [B, Q, M, T]
        points: Sequence[int],  # L counts, sum T
        mode: str,
    ) -> Tensor:  # [B, Q, M*D]
        """The plain entry, differentiable."""

    def run_fused(
        self,
        value: Tensor,  # [B, S, M, D]
        levels: Levels,  # L pairs (H, W)
        reference: Tensor,  # [B, Q, 1|L, 2|4]
        offsets: Tensor,  # [B, Q, M, T, 2]
        logits: Tensor,  # [B, Q, M, T]
        points: Sequence[int],  # L counts, sum T
        mode: str,
        offset_scale: float,
        value_mask: Tensor | None,  # [B, S], True keeps
    ) -> Tensor:  # [B, Q, M*D]
        """The fused entry, differentiable."""

    def gradients(
        self,
        grad_output: Tensor,  # [B, Q, M*D]
        inputs: Sequence[Tensor],  # value, locations, weights
        levels: Levels,  # L pairs (H, W)
        points: Sequence[int],  # L counts, sum T
        mode: str,
        needs: Sequence[bool],  # one for each input
    ) -> list[Tensor | None]:  # one for each input
        """The backward of ``run`` by itself; None where no gradient is needed."""

    def gradients_fused(
        self,
        grad_output: Tensor,  # [B, Q, M*D]
        inputs: Sequence[Tensor],  # value, reference, offsets, logits
        levels: Levels,  # L pairs (H, W)
        points: Sequence[int],  # L counts, sum T
        mode: str,
        offset_scale: float,
        value_mask: Tensor | None,  # [B, S], True keeps
        needs: Sequence[bool],  # one for each input
    ) -> list[Tensor | None]:  # one for each input
        """The backward of ``run_fused`` by itself; None where no gradient is needed."""


@dataclass(frozen=True)
class Backend:
    """One backend of a table.

    Args:
        name: what ``backend=`` and ``use_backend`` call it.
        implementation: its functions.
        support: where it runs.
    """

    name: str
    implementation: Implementation
    support: Support


@dataclass(frozen=True)
class Explanation:
    """Which backend runs on a tensor and why the others do not; ``print`` shows a line for each.

    Attributes:
        chosen: name of the backend that runs, or None where none can.
        reasons: name of each backend, in order of preference, and why it cannot run; None where it can.
    """

    chosen: str | None
    reasons: Mapping[str, str | None]

    def __str__(self) -> str:
        lines = []
        for name, reason in self.reasons.items():
            taken = ", taken" if name == self.chosen else ""
            lines.append(f"  {name}: yes{taken}" if reason is None else f"  {name}: no, {reason}")
        return "\n".join(lines)


_forced = environment.BACKEND


@contextmanager
def use_backend(name: str | None) -> Iterator[None]:
    """Force every call inside the ``with`` block onto one backend; ``None`` restores the automatic choice.

    The environment variable ``RTDETR_OPS_BACKEND`` does the same for a whole process. A ``backend=`` argument wins over
    both. The choice is process-wide, not per thread.

    Args:
        name: a backend of the table, such as ``"cpu"`` or ``"reference"``.
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
        actual = _capability(value.device.index)
        if actual is not None and actual < support.capability:
            least, has = (".".join(map(str, pair)) for pair in (support.capability, actual))
            return f"it needs compute capability {least} or newer, and {value.device} has {has}"
    if not support.transforms and _is_transformed():
        return "it has no rules for torch.func transforms and forward-mode differentiation"
    return None


@lru_cache
def _capability(device: int) -> tuple[int, int] | None:
    """Compute capability of a GPU; None without one, where its tensors are fake."""
    return torch.cuda.get_device_capability(device) if torch.cuda.is_available() else None


def _is_transformed() -> bool:
    if torch.compiler.is_compiling():
        return False
    return (
        torch._C._functorch.peek_interpreter_stack() is not None
        or torch.autograd.forward_ad._current_level >= 0
    )


def select(table: tuple[Backend, ...], name: str | None, value: Tensor) -> Backend:
    """The backend to run: the one named (argument, ``use_backend`` or environment), else the first that can.

    Raises:
        ValueError: the name is not in the table.
        RuntimeError: the named backend, or every backend, cannot run on ``value``.
    """
    name = name if name is not None else _forced
    if name is not None:
        return _select_named(table, name, value)
    for backend in table:
        if why_not(backend.support, value) is None:
            if value.device.type in backend.support.fallback_devices:
                _warn_slow_path(backend, value)
            return backend
    raise RuntimeError(f"no backend can run this call:\n{explain_table(table, None, value)}")


def explain_table(table: tuple[Backend, ...], name: str | None, value: Tensor) -> Explanation:
    """What ``select`` chooses among the backends of a table, and why."""
    name = name if name is not None else _forced
    reasons = {backend.name: why_not(backend.support, value) for backend in table}
    able = (backend for backend, reason in reasons.items() if reason is None)
    return Explanation(next((it for it in able if name in (None, it)), None), reasons)


def _select_named(table: tuple[Backend, ...], name: str, value: Tensor) -> Backend:
    for backend in table:
        if backend.name == name:
            reason = why_not(backend.support, value)
            if reason is not None:
                raise RuntimeError(f"backend: {name!r} cannot run this call: {reason}")
            return backend
    known = ", ".join(repr(backend.name) for backend in table)
    raise ValueError(f"backend: expected one of {known}, got {name!r}")


_warned: set[tuple[str, str]] = set()


def _warn_slow_path(backend: Backend, value: Tensor) -> None:
    key = (backend.name, value.device.type)
    if torch.compiler.is_compiling() or key in _warned:
        return
    _warned.add(key)
    warnings.warn(
        f"rtdetr_ops: no fused kernel for {value.device.type} tensors in this installation; running the slower "
        f"{backend.name!r} backend (backend={backend.name!r} silences this)",
        stacklevel=4,
    )
