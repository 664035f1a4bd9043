# SPDX-License-Identifier: Apache-2.0
"""What of Triton's interpreter is replaced here, with the parameters that the replacements were written for."""

from __future__ import annotations

import inspect
from operator import attrgetter

__all__ = ["BFLOAT16", "OPERATORS", "SPEED", "require"]

OPERATORS = (
    *("__add__", "__radd__", "__sub__", "__rsub__", "__mul__", "__rmul__", "__and__", "__or__"),
    *("__lt__", "__le__", "__gt__", "__ge__", "__eq__", "__ne__"),
)
"""Of a tensor of the language."""

PROMOTION = (
    "self",
    "lhs",
    "rhs",
    "allow_lhs_ptr",
    "allow_rhs_ptr",
    "arithmetic_check",
    "div_or_mod",
)

Parameters = dict[str, tuple[str, ...]]
"""Of functions below triton.runtime.interpreter."""

BFLOAT16: Parameters = {
    "_convert_float": ("input", "input_dtype", "output_dtype", "rounding_mode"),
}

SPEED: Parameters = {
    "_get_np_dtype": ("tt_dtype",),
    "_patch_attr": ("obj", "name", "member", "builder", "scope"),
    "_patch_lang": ("fn",),
    "GridExecutor.__call__": ("self", "args_dev", "kwargs"),
    "InterpreterBuilder.binary_op": ("self", "lhs", "rhs", "op"),
    "InterpreterBuilder.create_addptr": ("self", "ptr", "offset"),
    "InterpreterBuilder.create_splat": ("self", "ret_ty", "arg"),
    "TensorHandle": ("data", "dtype", "attr"),
    "TritonSemantic.binary_op_type_checking_impl": PROMOTION,
    "TritonSemantic.broadcast_impl_value": ("self", "lhs", "rhs"),
    "TritonSemantic.cast": ("self", "input", "dst_ty", "fp_downcast_rounding"),
    "TritonSemantic.scalar_constant": ("self", "value", "dtype"),
    "tl.core._unwrap_if_constexpr": ("o",),
    "tl.core.block_type.__init__": ("self", "element_ty", "shape"),
    "tl.core.tensor.__init__": ("self", "handle", "type"),
    **{f"tl.core.tensor.{name}": ("self", "other", "_semantic") for name in OPERATORS},
}


def require(parameters: Parameters) -> None:
    """Compare the installed Triton, not yet changed, with ``parameters``.

    Raises:
        RuntimeError: it differs; the sentence names the first function that does.
    """
    import triton
    from triton.runtime import interpreter

    for name, expected in parameters.items():
        try:
            found = tuple(inspect.signature(attrgetter(name)(interpreter)).parameters)
        except AttributeError:
            found = None
        if found != expected:
            raise RuntimeError(
                f"triton {triton.__version__}: expected triton.runtime.interpreter.{name} with parameters "
                f"{', '.join(expected)}, got {'none such' if found is None else ', '.join(found)}; "
                "adapt tests/interpreter"
            )
