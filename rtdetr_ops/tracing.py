# SPDX-License-Identifier: Apache-2.0
"""Whether somebody records what is done to tensors, so that a number read out of one would become a constant."""

from __future__ import annotations

import torch

__all__ = ["is_jit_tracing", "is_traced"]


def is_jit_tracing() -> bool:
    """Whether torch.jit.trace is at work, also for torch.onnx.export with ``dynamo=False`` and for OpenVINO.

    Sizes are tensors without axes then, and such tensors may stand where sizes are expected.
    """
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined, no-untyped-call]


def is_traced() -> bool:
    """Whether torch.compile, torch.export or torch.jit.trace is at work."""
    return torch.compiler.is_compiling() or is_jit_tracing()
