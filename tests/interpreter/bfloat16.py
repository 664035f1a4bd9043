# SPDX-License-Identifier: Apache-2.0
"""What tests need of Triton's interpreter beyond what it does: bfloat16 that is rounded, subnormals included."""

from __future__ import annotations

from typing import Any

import torch

from . import internals


def repair() -> None:
    """It cuts float32 off to bfloat16, and misreads bfloat16 subnormals."""
    internals.require(internals.BFLOAT16)
    from triton import language
    from triton.runtime import interpreter

    convert = interpreter._convert_float

    def rounded(data: Any, source: Any, target: Any, mode: Any) -> Any:
        if (source, target) == (language.float32, language.bfloat16):
            numbers = torch.from_numpy(data.view("float32"))
            return numbers.to(torch.bfloat16).view(torch.int16).numpy().view("uint16")
        if (source, target) == (language.bfloat16, language.float32):
            return data.astype("uint32") << 16
        return convert(data, source, target, mode)

    interpreter._convert_float = rounded
