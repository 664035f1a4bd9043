# SPDX-License-Identifier: Apache-2.0
"""Less time in Triton's interpreter: what it works out anew for each operation is remembered.

A program of blocks is some thousand operations of a few numbers each, and all of its time goes into finding out what
each of them means. That depends on the types of the operands alone, so it is found out once. The arithmetic itself
stays the interpreter's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from . import internals

FUNCTIONS = ("binary_op", "create_addptr")
"""Of the interpreter's builder: what an operator ends in."""


def speed_up() -> None:
    """Do this once, before the first kernel runs."""
    internals.require(internals.SPEED)
    from triton.runtime import interpreter

    _remember_types(interpreter)
    _remember_promotions(interpreter)
    _call_directly(interpreter)
    _repeat_arithmetic(interpreter)
    _prepare_once(interpreter)
    # It would compute each sum of integers once more, in 64 bits: the sizes in the tests stay far from overflow.
    interpreter.interpreter_builder.options = interpreter.InterpreterOptions(
        sanitize_overflow=False
    )


def _remember_types(interpreter: Any) -> None:
    """Build the type of a block, what a tensor derives from it and the dtype of numpy once each."""
    core = interpreter.tl.core
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


def _remember_promotions(interpreter: Any) -> None:
    """Remember what two operands are promoted to; numpy broadcasts those of arithmetic by itself."""
    semantic, tensor = interpreter.TritonSemantic, interpreter.tl.tensor
    promote, broadcast = semantic.binary_op_type_checking_impl, semantic.broadcast_impl_value
    seen: dict[Any, tuple[Any, Any]] = {}

    def remember(key: Any, pair: tuple[Any, Any]) -> tuple[Any, Any]:
        seen[key] = pair[0].type, pair[1].type
        return pair

    def name(operand: Any) -> Any:
        return operand.type.name if operand.__class__ is tensor else (operand.__class__, operand)

    def bring(self: Any, operand: Any, type: Any) -> Any:  # noqa: A002
        if operand.__class__ is not tensor:
            return tensor(self.scalar_constant(operand, type.scalar).handle, type)
        if operand.type.name == type.name:
            return operand
        if operand.dtype is not type.scalar:
            operand = self.cast(operand, type.scalar)
        return spread(operand, type) if type.scalar.is_int1() else tensor(operand.handle, type)

    def spread(operand: Any, type: Any) -> Any:  # noqa: A002
        """A block of a boolean holds int8, which adds otherwise than numpy's own booleans."""
        if operand.type.is_block() or not type.is_block():
            return tensor(operand.handle, type)
        return tensor(interpreter.interpreter_builder.create_splat(type, operand.handle), type)

    def promote_again(self: Any, lhs: Any, rhs: Any, *rules: bool, **named: bool) -> Any:
        key = name(lhs), name(rhs), rules, *named.items()
        if key not in seen:
            return remember(key, promote(self, lhs, rhs, *rules, **named))
        first, second = seen[key]
        return bring(self, lhs, first), bring(self, rhs, second)

    def broadcast_to(operand: Any, type: Any) -> Any:  # noqa: A002
        if operand.type.name == type.name:
            return operand
        if type.scalar.is_int1() and not operand.type.is_block():
            return spread(operand, type)
        data = np.broadcast_to(operand.handle.data, type.shape.values)
        return tensor(interpreter.TensorHandle(data, operand.handle.dtype), type)

    def broadcast_again(self: Any, lhs: Any, rhs: Any) -> Any:
        key = lhs.type.name, rhs.type.name
        if key not in seen:
            return remember(key, broadcast(self, lhs, rhs))
        first, second = seen[key]
        return broadcast_to(lhs, first), broadcast_to(rhs, second)

    semantic.binary_op_type_checking_impl = promote_again
    semantic.broadcast_impl_value = broadcast_again


def _call_directly(interpreter: Any) -> None:
    """A builtin of the language gets its semantics without a filter of arguments and a check in between."""
    core = interpreter.tl.core
    unwrap = core._unwrap_if_constexpr

    def unwrap_unless_tensor(operand: Any) -> Any:
        return operand if operand.__class__ is core.tensor else unwrap(operand)

    def patch(obj: Any, name: str, member: Any, builder: Any, scope: Any) -> None:
        wrapped = getattr(member, "__wrapped__", member)

        def call(*args: Any, _semantic: Any = None, **kwargs: Any) -> Any:
            return wrapped(*args, _semantic=interpreter.interpreter_semantic, **kwargs)

        scope.set_attr(obj, name, call)

    interpreter._patch_attr, core._unwrap_if_constexpr = patch, unwrap_unless_tensor


def _repeat_arithmetic(interpreter: Any) -> None:
    """An operator ends in one function of two arrays; for types that it has met it begins there."""
    tensor, builder = interpreter.tl.tensor, interpreter.interpreter_builder

    @contextmanager
    def recorded() -> Iterator[list[Any]]:
        """Collect the calls of those functions: what to call again, both operands, the result."""
        calls: list[Any] = []

        def record(function: Any) -> Any:
            def call(lhs: Any, rhs: Any, *operation: Any) -> Any:
                made = function(lhs, rhs, *operation)
                calls.append((lambda a, b: function(a, b, *operation), lhs, rhs, made))
                return made

            return call

        for name in FUNCTIONS:
            setattr(builder, name, record(getattr(builder, name)))
        try:
            yield calls
        finally:
            for name in FUNCTIONS:
                delattr(builder, name)

    def end_of(calls: list[Any], own: Any, other: Any, result: Any) -> Any:
        """The function, whether it takes the own handle last, and the handle of a constant; None if there was more."""
        if len(calls) != 1 or calls[0][3] is not result.handle:
            return None
        function, lhs, rhs, _ = calls[0]
        if (lhs is own) == (rhs is own):
            return None
        beside = rhs if lhs is own else lhs
        if other is not None and beside is not other:
            return None
        return function, rhs is own, beside, result.type

    def repeated(long_way: Any) -> Any:
        ends: dict[Any, Any] = {}

        def operate(self: Any, other: Any) -> Any:
            varies = other.__class__ is tensor
            key = self.type.name, other.type.name if varies else (other.__class__, repr(other))
            if key in ends:
                function, last, constant, type = ends[key]  # noqa: A001
                own, beside = self.handle, other.handle if varies else constant
                return tensor(function(beside, own) if last else function(own, beside), type)
            with recorded() as calls:
                result = long_way(self, other, _semantic=interpreter.interpreter_semantic)
            end = end_of(calls, self.handle, other.handle if varies else None, result)
            if end is not None:
                ends[key] = end
            return result

        return operate

    for name in internals.OPERATORS:
        setattr(tensor, name, repeated(getattr(tensor, name).__wrapped__))


def _prepare_once(interpreter: Any) -> None:
    """Prepare the language for a launch, not for each function that a kernel calls."""
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
