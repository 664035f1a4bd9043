# SPDX-License-Identifier: Apache-2.0
"""Another Triton, with other internals, is refused in one sentence."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from interpreter import bfloat16, internals, speed

pytest.importorskip("triton")

from triton.runtime import interpreter


@pytest.mark.parametrize(
    ("change", "name", "parameters"),
    [
        (bfloat16.repair, "_convert_float", "input, input_dtype, output_dtype, rounding_mode"),
        (speed.speed_up, "_patch_attr", "obj, name, member, builder, scope"),
    ],
)
def test_changed_parameters_are_named(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[], None], name: str, parameters: str
) -> None:
    monkeypatch.setattr(interpreter, name, lambda scope, member: None)
    with pytest.raises(
        RuntimeError,
        match=rf"^triton \S+: expected triton\.runtime\.interpreter\.{name} with parameters "
        rf"{parameters}, got scope, member; adapt tests/interpreter$",
    ):
        change()


def test_an_absent_function_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(interpreter.TritonSemantic, "broadcast_impl_value")
    with pytest.raises(
        RuntimeError, match=r"TritonSemantic\.broadcast_impl_value .* got none such"
    ):
        internals.require(internals.SPEED)
