# SPDX-License-Identifier: Apache-2.0
"""What Triton's compiler makes of the launches: compiled ahead of time for three GPUs, without any of them.

The launch code runs on tensors without memory. A stand-in for Triton's driver names the GPU, and a hook keeps what
would be compiled for it: argument types, constants and options are those of the launches, not a copy of them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from environments import run
from machine_code import find_tools

from rtdetr_ops import environment

triton = pytest.importorskip("triton")
if environment.TRITON_INTERPRETED:
    pytest.skip("TRITON_INTERPRET=1 takes the place of the compiler", allow_module_level=True)

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from rtdetr_ops.ms_deform_attn import triton_launch  # noqa: E402

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}


@dataclass(frozen=True)
class Call:
    """One call with every gradient asked for."""

    dtype: torch.dtype
    coords: int = 0  # of the reference points; 0 for the plain entry
    mask: bool = False
    discrete: bool = False
    sizes_on_device: bool = False
    deterministic: bool = False
    channels: int = 32
    queries: int = 8400  # times 8 heads: many rows
    sizes: tuple[tuple[int, int], ...] = ((80, 80),)

    @property
    def fused(self) -> bool:
        return self.coords > 0


FEW_QUERIES = 300
THREE = ((80, 80), (40, 40), (20, 20))
CALLS = {
    "float32": Call(torch.float32, sizes=THREE),
    "float32-boxes": Call(torch.float32, coords=4, sizes=THREE),
    "float16-points": Call(torch.float16, coords=2),
    "bfloat16-boxes-mask": Call(torch.bfloat16, coords=4, mask=True),
    "float64-boxes": Call(torch.float64, coords=4),
    "float32-discrete": Call(torch.float32, discrete=True),
    "float16-points-mask-discrete": Call(torch.float16, coords=2, mask=True, discrete=True),
    "float32-points-sizes-on-device": Call(torch.float32, coords=2, sizes_on_device=True),
    "bfloat16-24-channels": Call(torch.bfloat16, channels=24),
    "bfloat16-few-queries": Call(torch.bfloat16, queries=FEW_QUERIES),
    "float32-deterministic": Call(torch.float32, deterministic=True),
    "bfloat16-boxes-deterministic": Call(torch.bfloat16, coords=4, deterministic=True),
    "float64-deterministic": Call(torch.float64, deterministic=True),
}

SPILLED_BYTES = {
    # Triton 3.7.1 spills two registers; 3.9.0 spills none.
    (CALLS["float32-boxes"], "sm_90", "forward_kernel"): 8,
}
"""(call, target, kernel) -> what a thread may keep in memory; nothing where no entry is."""

KERNELS = {
    (False, False): {"forward_kernel", "backward_kernel"},
    (True, False): {"forward_kernel", "backward_kernel", "softmax_backward_kernel"},
    (False, True): {"forward_kernel", "backward_kernel", "deterministic_value_kernel"},
    (True, True): {
        *("forward_kernel", "backward_kernel"),
        *("softmax_backward_kernel", "deterministic_value_kernel"),
    },
}
"""(fused, deterministic) -> what a call launches."""


LOADS = {
    "nvidia": {16: r"LDG\.E\.128", 8: r"LDG\.E\.64", 4: r"LDG\.E(?:\.CONSTANT)?$"},
    "amd": {
        16: r"(?:buffer|global)_load_dwordx4",
        8: r"(?:buffer|global)_load_dwordx2",
        4: r"(?:buffer|global)_load_dword$",
    },
}
"""Maker of the GPU -> bytes -> machine instruction."""

ADDITION = {
    ("sm_80", "f32"): r"REDG?\.E\.ADD\.F32\.",
    ("sm_90", "f32"): r"REDG?\.E\.ADD\.F32x{width}\.",
    ("gfx942", "f32"): r"(?:buffer|global)_atomic_add_f32",
    ("sm_80", "f64"): r"REDG?\.E\.ADD\.F64\.",
    ("sm_90", "f64"): r"REDG?\.E\.ADD\.F64\.",
    ("gfx942", "f64"): r"(?:buffer|global)_atomic_add_f64",
}
"""(target, type of the sums) -> machine instruction, one that returns nothing."""

ATOMIC = r"REDG?\.|ATOM|\w+_atomic_"

CONTRACTED = (
    r"\bfma\.rn\.f\d+|\bv_(?:pk_)?(?:fma|fmac|mad|mac)_(?!mix.*neg\(0\))(?:\w+_)?f(?:16|32|64)"
)
"""A fused multiply-add. An AMD GPU takes one that adds -0 for a product of mixed types."""

MULTI_SCALE = tuple(range(416, 801, 32))
"""The 13 image sizes that RT-DETR could be trained on, in pixels."""


@dataclass(frozen=True)
class Launch:
    """What one launch asks Triton to compile."""

    name: str
    key: str  # of Triton's cache in memory: another key is another compilation
    constants: dict[str, Any]
    source: Any
    options: dict[str, Any]


@dataclass(frozen=True)
class Report:
    """One compiled kernel."""

    code: str  # PTX, or the assembly of an AMD GPU
    opcodes: Counter[str]  # of the machine code
    local_bytes: int  # memory of a thread: spilled registers, arrays
    channels: int  # of one row, held by a thread


class _Driver:
    """As much of Triton's driver as a launch needs before it compiles."""

    def __init__(self, target: GPUTarget) -> None:
        self.target = target

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> str:
        return str(self.target.arch)

    def get_current_stream(self, device: str) -> int:
        return 0


@contextmanager
def recorded_launches(target: GPUTarget) -> Iterator[list[Launch]]:
    """Collect the launches of the block; nothing is compiled or run."""
    launches: list[Launch] = []

    def record(*, key: str, fn: Any, compile: dict[str, Any], **_: Any) -> bool:  # noqa: A002
        (attributes,) = compile["configs"]
        source = ASTSource(fn.jit_function, compile["signature"], compile["constants"], attributes)
        options = {name: compile[name] for name in ("num_warps", "num_stages", "enable_fp_fusion")}
        names = fn.jit_function.arg_names
        constants = {names[first]: value for (first, *_), value in compile["constants"].items()}
        launches.append(Launch(fn.name.split(".")[-1], str(key), constants, source, options))
        return True  # Triton then leaves the launch alone

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(triton.knobs.runtime, "jit_cache_hook", record)
        triton.runtime.driver.set_active(_Driver(target))
        triton_launch._lanes.cache_clear()
        yield launches
        triton_launch._lanes.cache_clear()
        triton.runtime.driver.set_active(None)  # found out again when somebody asks


def perform(call: Call) -> None:
    """Forward and backward of a call on tensors without memory."""
    tensors, others = _arguments(call)
    entry = "_fused" if call.fused else ""
    forward: Callable[..., Any] = getattr(triton_launch, f"forward{entry}")
    backward: Callable[..., Any] = getattr(triton_launch, f"backward{entry}")
    output = forward(*tensors, *others)
    needs = (True,) * (4 if call.fused else 3)
    backward(torch.empty_like(output), *tensors, *others, call.deterministic, *needs)


def _arguments(call: Call) -> tuple[list[Any], list[Any]]:
    batch, heads, points = 1, 8, 4
    levels = [number for size in call.sizes for number in size]
    rows = (batch, call.queries, heads, points * len(call.sizes))

    def empty(*shape: int, dtype: torch.dtype = call.dtype) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    pixels = sum(height * width for height, width in call.sizes)
    on_device = empty(len(call.sizes), 2, dtype=torch.int64) if call.sizes_on_device else None
    tensors: list[Any] = [empty(batch, pixels, heads, call.channels), levels, on_device]
    others: list[Any] = [[points] * len(call.sizes), call.discrete]
    if call.fused:
        tensors.append(empty(batch, call.queries, 1, call.coords))
        others += [0.5, empty(batch, pixels, dtype=torch.bool) if call.mask else None]
    return [*tensors, empty(*rows, 2), empty(*rows)], others


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Triton's cache on disk, empty."""
    folder = tmp_path_factory.mktemp("triton")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_CACHE_DIR", str(folder))
        yield folder


@pytest.fixture(scope="module", params=TARGETS)
def target(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module", params=CALLS)
def call(request: pytest.FixtureRequest) -> Call:
    return CALLS[request.param]


@pytest.fixture(scope="module")
def kernels(call: Call, target: str, cache: Path) -> dict[str, Report]:
    with recorded_launches(TARGETS[target]) as launches:
        perform(call)
    return {launch.name: _compile(launch, target, cache) for launch in launches}


def _compile(launch: Launch, target: str, folder: Path) -> Report:
    made = triton.compile(launch.source, target=TARGETS[target], options=launch.options)
    read = _read_amd if "amdgcn" in made.asm else _read_nvidia
    code, opcodes, local_bytes = read(made.asm, folder)
    numbers = launch.constants.get("BLOCK_Q", 0) * launch.constants.get("BLOCK_D", 0)
    threads = launch.options["num_warps"] * TARGETS[target].warp_size
    return Report(code, Counter(opcodes), local_bytes, numbers // threads)


def _read_amd(asm: dict[str, Any], _: Path) -> tuple[str, list[str], int]:
    code = asm["amdgcn"]
    (local,) = re.findall(r"\.private_segment_fixed_size: +(\d+)", code)
    return code, re.findall(r"^\s+([a-z]\w+)\s", code, re.MULTILINE), int(local)


def _read_nvidia(asm: dict[str, Any], folder: Path) -> tuple[str, list[str], int]:
    tools = find_tools()
    assert tools is not None, "triton brings cuobjdump and nvdisasm along"
    binary = folder / "kernel.cubin"
    binary.write_bytes(asm["cubin"])
    printed = run(tools / "cuobjdump", "-res-usage", "-sass", binary, env={"PATH": str(tools)})
    ((stack, local),) = re.findall(r"STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", printed)
    opcodes = re.findall(r"/\*[0-9a-f]{4,}\*/ +(?:@!?U?P\w+ +)?([A-Z][\w.]*)", printed)
    return asm["ptx"], opcodes, int(stack) + int(local)


@pytest.mark.slow
def test_every_kernel_of_a_call_compiles(call: Call, kernels: dict[str, Report]) -> None:
    assert set(kernels) == KERNELS[call.fused, call.deterministic]


@pytest.mark.slow
def test_nothing_lives_in_memory_of_a_thread(
    call: Call, target: str, kernels: dict[str, Report]
) -> None:
    if call.dtype == torch.float64:
        pytest.skip("float64 is for checks: twice the registers do not always fit")
    assert {
        name: kernel.local_bytes
        for name, kernel in kernels.items()
        if kernel.local_bytes > SPILLED_BYTES.get((call, target, name), 0)
    } == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["forward_kernel", "backward_kernel"])
def test_channels_of_a_thread_are_loaded_at_once(
    call: Call, target: str, kernels: dict[str, Report], name: str
) -> None:
    if call.channels != 32:
        pytest.skip("a mask along the channels leaves the width to the compiler")
    maker = "amd" if target.startswith("gfx") else "nvidia"
    width = min(16, kernels[name].channels * call.dtype.itemsize)
    corners = 1 if call.discrete else 4
    assert _count(kernels[name], LOADS[maker][width]) >= corners


@pytest.mark.slow
@pytest.mark.parametrize("target", ["sm_80", "sm_90"], indirect=True)
def test_forward_loads_16_bytes(call: Call, kernels: dict[str, Report]) -> None:
    if call.queries == FEW_QUERIES:
        pytest.skip("many small programs hide latency better")
    assert kernels["forward_kernel"].channels * call.dtype.itemsize >= 16


@pytest.mark.slow
def test_gradients_are_added_without_an_answer(
    call: Call, target: str, kernels: dict[str, Report]
) -> None:
    backward = kernels["backward_kernel"]
    corners = 1 if call.discrete else 4
    if call.deterministic:
        assert _count(backward, ATOMIC) == 0
        return
    addition = ADDITION[target, "f64" if call.dtype == torch.float64 else "f32"]
    addition = addition.format(width=min(4, backward.channels))
    assert _count(backward, addition) >= corners
    assert _count(backward, ATOMIC) == _count(backward, addition)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["sm_80", "sm_90"], indirect=True)
def test_divisions_are_rounded_to_nearest(call: Call, kernels: dict[str, Report]) -> None:
    for name, kernel in kernels.items():
        divisions = set(re.findall(r"\bdiv\.\w+\.f\d+|\bdiv\.full", kernel.code))
        divides = call.fused and name != "deterministic_value_kernel"
        bits = 64 if call.dtype == torch.float64 else 32
        assert divisions == ({f"div.rn.f{bits}"} if divides else set()), name


@pytest.mark.slow
def test_location_arithmetic_is_not_contracted(
    call: Call, target: str, kernels: dict[str, Report]
) -> None:
    """The plain backward locates the taps as every kernel does, and asks for no fused multiply-add itself."""
    if call.fused:
        pytest.skip("division and exponential are made of fused multiply-adds")
    code = kernels["backward_kernel"].code
    assert [line for line in code.splitlines() if re.search(CONTRACTED, line)] == []
    assert re.search(r"\bmul\.rn\.f\d+|\bv_(?:pk_)?mul_f\d+", code)


@pytest.mark.parametrize("deterministic", [False, True], ids=["", "deterministic"])
@pytest.mark.parametrize("coords", [0, 2, 4], ids=["plain", "points", "boxes"])
@pytest.mark.parametrize("queries", [300, None], ids=["decoder", "encoder"])
def test_image_sizes_share_one_compilation(
    target: str, coords: int, queries: int | None, deterministic: bool
) -> None:
    keys: dict[str, set[str]] = {}
    for size in MULTI_SCALE:
        levels = tuple((size // stride, size // stride) for stride in (8, 16, 32))
        pixels = sum(height * width for height, width in levels)
        call = Call(
            torch.float32,
            coords=coords,
            deterministic=deterministic,
            queries=queries or pixels,
            sizes=levels,
        )
        with recorded_launches(TARGETS[target]) as launches:
            perform(call)
        for launch in launches:
            keys.setdefault(launch.name, set()).add(launch.key)
    assert {name: len(found) for name, found in keys.items()} == dict.fromkeys(
        KERNELS[coords > 0, deterministic], 1
    )


def _count(kernel: Report, pattern: str) -> int:
    return sum(n for opcode, n in kernel.opcodes.items() if re.match(pattern, opcode))
