# SPDX-License-Identifier: Apache-2.0
"""What tests need of Triton's interpreter beyond what it does: right bfloat16, and less time per call."""

from __future__ import annotations

from typing import Any

import torch


def mend() -> None:
    """It cuts float32 off to bfloat16, misreads bfloat16 subnormals, and prepares each call of a function anew."""
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
    patch, launch = interpreter._patch_lang, interpreter.GridExecutor.__call__
    prepared: dict[int, Any] = {}

    def patch_once(function: Any) -> Any:
        module = id(function.__globals__)
        if module not in prepared:
            prepared[module] = patch(function)
        return prepared[module]

    def launch_afresh(*args: Any, **kwargs: Any) -> None:
        prepared.clear()
        launch(*args, **kwargs)

    interpreter._patch_lang, interpreter.GridExecutor.__call__ = patch_once, launch_afresh
