# SPDX-License-Identifier: Apache-2.0
"""What the CUDA compiler made of the kernels: registers, memory of a thread, widths of accesses."""

from __future__ import annotations

import fnmatch
import importlib.util
from pathlib import Path

import pytest
from machine_code import Kernel, find_tools, read_kernels

import rtdetr_ops

TARGETS = ("sm_80", "sm_90")

# The first row that fits a kernel's name is its limit. A multiprocessor has 65536 registers: 64 of
# them for a thread leave room for 1024 threads, 80 for 768, 128 for 512.
REGISTERS = {
    "forward_kernel<*>": 80,
    "backward_kernel<*>": 128,
    "deterministic_value_kernel<*>": 128,
    "*": 64,
}

STORAGE = ("float", "BFloat16", "Float16")
SIXTEEN_BYTES = [f"{name}_kernel<{V}, 16>" for name in ("forward", "backward") for V in STORAGE]
VECTOR_REDUCTIONS = [f"backward_kernel<{V}, 16>" for V in STORAGE]


@pytest.fixture(scope="module", params=TARGETS)
def kernels(request: pytest.FixtureRequest) -> dict[str, Kernel]:
    built = rtdetr_ops.build_info()["cuda"]
    if request.param not in built.split():
        pytest.skip(f"needs a library with code for {request.param}; CUDA of this one: {built}")
    tools = find_tools()
    if tools is None:
        pytest.skip("needs cuobjdump and nvdisasm, from a CUDA toolkit or from triton")
    library = importlib.util.find_spec("rtdetr_ops._C")
    assert library is not None
    assert library.origin is not None
    found = read_kernels(Path(library.origin), request.param, tools)
    assert found, f"{library.origin} has no kernel for {request.param}"
    return found


def test_registers_leave_room_for_the_intended_threads(kernels: dict[str, Kernel]) -> None:
    above = {
        name: f"{kernel.registers} registers, expected at most {limit}"
        for name, kernel in kernels.items()
        if kernel.registers > (limit := _limit(name))
    }
    assert above == {}


def test_nothing_lives_in_local_memory(kernels: dict[str, Kernel]) -> None:
    """A spilled register, or an array indexed by a variable, would."""
    found = {
        name: [f"stack {kernel.stack}", f"local {kernel.local}", *_starting(kernel, "LDL", "STL")]
        for name, kernel in kernels.items()
        if kernel.stack or kernel.local or _starting(kernel, "LDL", "STL")
    }
    assert found == {}


@pytest.mark.parametrize("name", SIXTEEN_BYTES)
def test_channels_are_loaded_16_bytes_at_a_time(kernels: dict[str, Kernel], name: str) -> None:
    assert [op for op in _starting(kernels[name], "LDG.E.") if ".128" in op]


@pytest.mark.parametrize("kernels", ["sm_90"], indirect=True)  # the first that can
@pytest.mark.parametrize("name", VECTOR_REDUCTIONS)
def test_gradients_are_added_four_floats_at_a_time(kernels: dict[str, Kernel], name: str) -> None:
    assert [op for op in _starting(kernels[name], "RED") if ".ADD.F32x4" in op]


def test_no_addition_is_a_loop_of_compare_and_swap(kernels: dict[str, Kernel]) -> None:
    found = [
        (name, op) for name, kernel in kernels.items() for op in kernel.opcodes if ".CAS" in op
    ]
    assert found == []


def _limit(name: str) -> int:
    return next(limit for row, limit in REGISTERS.items() if fnmatch.fnmatchcase(name, row))


def _starting(kernel: Kernel, *starts: str) -> list[str]:
    return sorted(op for op in kernel.opcodes if op.startswith(starts))
