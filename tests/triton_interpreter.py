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
    _remember_types(language, interpreter)
    # It would compute each sum of integers once more, in 64 bits: the sizes in the tests stay far from overflow.
    interpreter.interpreter_builder.options = interpreter.InterpreterOptions(
        sanitize_overflow=False
    )
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


def _remember_types(language: Any, interpreter: Any) -> None:
    """Build the type of a block, what a tensor derives from it and the dtype of numpy once each."""
    core = language.core
    describe = core.block_type.__init__
    blocks: dict[Any, dict[str, Any]] = {}

    def describe_once(self: Any, element_ty: Any, shape: Any) -> None:
        sizes = tuple(size.value if isinstance(size, core.constexpr) else size for size in shape)
        key = str(element_ty), sizes
        if key not in blocks:
            describe(self, element_ty, shape)
            numel = core.constexpr(self.numel)
            blocks[key] = self.__dict__ | {"seen": (core.tuple(map(core.constexpr, sizes)), numel)}
        self.__dict__.update(blocks[key])

    scalar = core.tuple(()), core.constexpr(1)

    def wrap(self: Any, handle: Any, type: Any) -> None:  # noqa: A002
        self.handle, self.type, self.dtype = handle, type, type.scalar
        self.shape, self.numel = type.seen if type.is_block() else scalar

    core.block_type.__init__, core.tensor.__init__ = describe_once, wrap

    look_up, dtypes = interpreter._get_np_dtype, {}

    def look_up_once(dtype: Any) -> Any:
        key = str(dtype)
        if key not in dtypes:
            dtypes[key] = look_up(dtype)
        return dtypes[key]

    interpreter._get_np_dtype = look_up_once
