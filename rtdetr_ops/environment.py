# SPDX-License-Identifier: Apache-2.0
"""The environment variables of this package, each read here and nowhere else.

``ms_deform_attn/README.md`` has them in a table.
"""

from __future__ import annotations

import os

__all__ = ["BACKEND", "CHECK", "EXPORT_FORM", "TRITON_INTERPRETED", "autotunes_triton"]

BACKEND = os.environ.get("RTDETR_OPS_BACKEND") or None
"""The backend of the process; ``select`` refuses an unknown name."""

CHECK = os.environ.get("RTDETR_OPS_CHECK") == "1"
"""Whether level sizes and start indices on an accelerator are checked too, which waits for it."""

EXPORT_FORM = os.environ.get("RTDETR_OPS_EXPORT") or None
"""The form of exported graphs; ``should_lower`` refuses an unknown name."""

TRITON_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
"""Whether Triton runs its kernels on the CPU, for tests and for debugging."""


def autotunes_triton() -> bool:
    """Whether Triton searches for block sizes; asked at each launch."""
    return os.environ.get("RTDETR_OPS_TRITON_AUTOTUNE") == "1"
