# SPDX-License-Identifier: Apache-2.0
"""When a call is lowered to portable operators, and to which of their forms."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from .. import environment
from ..tracing import is_jit_tracing

__all__ = ["FORMS", "current_form", "export_form", "is_exporting", "should_lower"]

FORMS = ("gather", "grid_sample", "operator")

_form = environment.EXPORT_FORM or FORMS[0]


@contextmanager
def export_form(form: str) -> Iterator[None]:
    """Choose what the operator becomes in graphs exported inside the ``with`` block.

    The environment variable ``RTDETR_OPS_EXPORT`` does the same for a whole process. The choice is
    process-wide, not per thread, and does not touch eager calls or ``torch.compile``.

    Args:
        form: ``"gather"`` (default), ``"grid_sample"``, or ``"operator"``, which leaves the call to
            the backends: a compiled one stays in the graph as its registered operator, for runtimes
            that load this package, such as AOTInductor.

    Raises:
        ValueError: the form is none of these.
    """
    global _form
    previous, _form = _form, _check_form("form", form)
    try:
        yield
    finally:
        _form = previous


def is_exporting() -> bool:
    """Whether torch.export, torch.onnx.export or torch.jit.trace is at work; not torch.compile.

    torch.onnx.export needs no question of its own: it traces with torch.export, or with
    torch.jit.trace when ``dynamo=False``.
    """
    # torch.compile of 2.10 and 2.11 takes torch.compiler.is_exporting() for True; the flag behind it is right.
    flag: bool | None = getattr(torch.compiler, "_is_exporting_flag", None)
    exporting = torch.compiler.is_exporting() if flag is None else flag
    return exporting or is_jit_tracing()


def should_lower() -> bool:
    """Whether a call made now becomes portable operators.

    Raises:
        ValueError: ``RTDETR_OPS_EXPORT`` names no form.
    """
    return is_exporting() and _check_form("RTDETR_OPS_EXPORT", _form) != "operator"


def current_form() -> str:
    """The form of graphs exported now."""
    return _form


def _check_form(name: str, form: str) -> str:
    if form not in FORMS:
        raise ValueError(f"{name}: expected one of {', '.join(map(repr, FORMS))}, got {form!r}")
    return form
