# SPDX-License-Identifier: Apache-2.0
"""Run every operator on every kind of operand in one mode of the interpreter, and the operator's kernels.

Usage, with TRITON_INTERPRET=1 and in the folder ``tests``: ``python -m interpreter.probe {repaired,fast} FILE``.
The file gets, as JSON, the type and the bytes of each result, and how often the interpreter worked something out.
"""

from __future__ import annotations

import argparse
import itertools
import json
import operator
from collections import Counter
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import torch
import triton
import triton.language as tl
from triton.runtime import interpreter

from interpreter import bfloat16, speed
from rtdetr_ops.testing.inputs import Case, Fused, Storage, make_call
from rtdetr_ops.testing.tester import run
from rtdetr_ops.testing.workloads import Workload

MODES: dict[str, tuple[Callable[[], None], ...]] = {
    "repaired": (bfloat16.repair,),
    "fast": (bfloat16.repair, speed.speed_up),
}

DTYPES = {
    "bool": torch.bool,
    **{f"int{bits}": getattr(torch, f"int{bits}") for bits in (8, 16, 32, 64)},
    "uint8": torch.uint8,
    **{name: getattr(torch, name) for name in ("float16", "bfloat16", "float32", "float64")},
}

OPERATIONS: dict[str, Callable[[Any, Any], Any]] = {
    **{name: getattr(operator, name) for name in ("add", "sub", "mul", "and_", "or_")},
    **{name: getattr(operator, name) for name in ("lt", "le", "gt", "ge", "eq", "ne")},
}

CONSTANTS = (True, 0, 3, -2, 2**40, 0.0, -0.0, 0.1, float("inf"), float("nan"))

COUNTED = {
    "promotions": (interpreter.TritonSemantic, "binary_op_type_checking_impl"),
    "broadcasts": (interpreter.TritonSemantic, "broadcast_impl_value"),
    "preparations": (interpreter, "_patch_lang"),
}

COUNTS: Counter[str] = Counter()
RESULTS: dict[str, list[str]] = {}


def main() -> None:
    """Run all of it in the mode asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mode", choices=MODES)
    parser.add_argument("file", type=Path)
    options = parser.parse_args()
    for name, (owner, attribute) in COUNTED.items():
        setattr(owner, attribute, counting(name, getattr(owner, attribute)))
    for change in MODES[options.mode]:
        change()
    probe_operators()
    probe_pointers()
    probe_conversions()
    probe_kernels()
    COUNTS.clear()
    repeat_kernel[(1,)](torch.zeros(8), 50)
    options.file.write_text(json.dumps({"results": RESULTS, "counts": COUNTS}))


def counting(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)  # its parameters are compared
    def call(*args: Any, **kwargs: Any) -> Any:
        COUNTS[name] += 1
        return function(*args, **kwargs)

    return call


def numbers(dtype: torch.dtype, second: bool) -> torch.Tensor:
    """Eight numbers, others the second time; a sum or product of integers fits into 8 bits."""
    if not dtype.is_floating_point:
        return torch.tensor([0, 1, 2, 3, 5, 7, 8, 9] if second else [4, 2, 7, 1, 0, 3, 6, 5]).to(
            dtype
        )
    tiny = torch.finfo(dtype).tiny
    first = [0.0, -0.0, 1.0, -1.5, float("inf"), float("nan"), tiny, tiny / 4]
    other = [1.0, 0.0, -1.0, 2.5, float("-inf"), 3.0, -tiny / 2, 0.1]
    return torch.tensor(other if second else first, dtype=torch.float64).to(dtype)


def record(case: str, compute: Callable[[], Any]) -> None:
    """Keep type and bytes of a result, or the class of the error."""
    try:
        result = compute()
    except Exception as error:
        RESULTS[case] = [type(error).__name__]
    else:
        data = result.handle.data
        RESULTS[case] = [str(result.type), str(data.dtype), str(data.shape), data.tobytes().hex()]


def record_operations(case: str, left: Any, right: Any) -> None:
    for name, operation in OPERATIONS.items():
        record(f"{name} {case}", lambda operation=operation: operation(left, right))


def record_constants(case: str, block: Any) -> None:
    for constant in CONSTANTS:
        record_operations(f"{case} block {constant!r}", block, constant)
        record_operations(f"{case} {constant!r} block", constant, block)
        record_operations(f"{case} block constexpr {constant!r}", block, tl.constexpr(constant))


@triton.jit
def pair_kernel(left, right, case: tl.constexpr):
    """Both operands of a pair of dtypes in every shape."""
    n = tl.arange(0, 8)
    a = tl.load(left + n)
    b = tl.load(right + n)
    record_operations(case + " block block", a, b)
    record_operations(case + " column row", a[:, None], b[None, :])
    record_operations(case + " scalar block", tl.load(left + 3), b)
    record_operations(case + " block scalar", a, tl.load(right + 3))
    record_operations(case + " scalar scalar", tl.load(left + 2), tl.load(right + 2))


@triton.jit
def constant_kernel(left, case: tl.constexpr):
    """A block and numbers of Python, on both sides."""
    a = tl.load(left + tl.arange(0, 8))
    record_constants(case, a)


def probe_operators() -> None:
    """Twice, because what is remembered of the first time serves the second."""
    for name, second in itertools.product(DTYPES, (False, True)):
        constant_kernel[(1,)](numbers(DTYPES[name], second), f"{name} {second}")
    pairs = itertools.combinations_with_replacement(DTYPES, 2)
    for (name, other), second in itertools.product(pairs, (False, True)):
        left, right = numbers(DTYPES[name], second), numbers(DTYPES[other], not second)
        pair_kernel[(1,)](left, right, f"{name} {other} {second}")


def record_pointers(case: str, base: Any, pointer: Any, offset: Any) -> None:
    """Addresses relative to the block of memory, which lies elsewhere in every process."""
    for name, compute in {
        "add": lambda: pointer + offset,
        "radd": lambda: offset + pointer,
        "sub": lambda: pointer - offset,
    }.items():
        record(f"pointer {name} {case}", lambda compute=compute: compute().to(tl.int64) - base)


@triton.jit
def pointer_kernel(data, offsets, case: tl.constexpr):
    """Pointers and blocks of them, moved by every kind of offset."""
    base = data.to(tl.int64)
    n = tl.arange(0, 8)
    block = data + n
    moved = tl.load(offsets + n)
    record_pointers(case + " pointer block", base, data, moved)
    record_pointers(case + " block block", base, block, moved)
    record_pointers(case + " block scalar", base, block, tl.load(offsets + 1))
    record_pointers(case + " pointer scalar", base, data, tl.load(offsets + 1))
    record_pointers(case + " column row", base, block[:, None], moved[None, :])
    record_pointers(case + " pointer int", base, data, 3)
    record_pointers(case + " block int", base, block, 3)
    record_pointers(case + " block constexpr", base, block, tl.constexpr(3))


def probe_pointers() -> None:
    for name, offset, second in itertools.product(DTYPES, ("int32", "int64"), (False, True)):
        data, offsets = torch.zeros(64, dtype=DTYPES[name]), numbers(DTYPES[offset], second)
        pointer_kernel[(1,)](data, offsets, f"{name} {offset} {second}")


@triton.jit
def convert_kernel(result, data, count: tl.constexpr):
    """To the dtype of ``result``."""
    n = tl.arange(0, count)
    tl.store(result + n, tl.load(data + n).to(result.dtype.element_ty))


def probe_conversions() -> None:
    """Every bfloat16 to float32; to bfloat16 every float32 around the ties, and the subnormals."""
    patterns = torch.arange(2**16).to(torch.int16)
    convert("bfloat16 to float32", patterns.view(torch.bfloat16), torch.float32)
    tails = torch.tensor([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], dtype=torch.int32)
    for tail in tails:
        wide = (torch.arange(2**16) << 16).to(torch.int32) | tail
        convert(f"float32 to bfloat16 {tail:#x}", wide.view(torch.float32), torch.bfloat16)


def convert(case: str, data: torch.Tensor, dtype: torch.dtype) -> None:
    result = torch.empty(len(data), dtype=dtype)
    convert_kernel[(1,)](result, data, len(data))
    kept = result.nan_to_num(nan=1.0).view(torch.uint8), result.isnan().view(torch.uint8)
    RESULTS[case] = [tensor.numpy().tobytes().hex() for tensor in kept]


SHAPE = Workload("probe", 2, 3, 2, ((3, 4), (2, 2)), (2, 1), 5)
FORMS = {"plain": None, "fused": Fused(4, masked=True)}


def probe_kernels() -> None:
    """The kernels of this package, with every gradient."""
    for form, mode, dtype in itertools.product(
        FORMS, ("bilinear", "discrete"), ("float64", "float32", "bfloat16", "float16")
    ):
        shape = Workload(**{**SHAPE.__dict__, "mode": mode})
        call = make_call(Case(shape, Storage(DTYPES[dtype]), FORMS[form]))
        for name, tensor in run(call, "triton").items():
            data = tensor.contiguous().view(torch.uint8).numpy()
            RESULTS[f"kernel {form} {mode} {dtype} {name}"] = [data.tobytes().hex()]


@triton.jit
def _add_twice(a, b):
    return a + b + 1.0


@triton.jit
def repeat_kernel(data, count: tl.constexpr):
    """The same few operations over and over."""
    n = tl.arange(0, 8)
    total = tl.load(data + n)
    for _ in range(count):
        total = tl.maximum(_add_twice(total, total), total)


if __name__ == "__main__":
    main()
