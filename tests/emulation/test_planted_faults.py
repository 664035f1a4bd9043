# SPDX-License-Identifier: Apache-2.0
"""`make emulate` finds faults: each of these, planted in a copy of the kernels, makes tests/ops fail.

Compiling is what takes time: each flavor has one library with every fault in it, switched off but
for the one that the environment chooses.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from probe_programs import CXX

ROOT = Path(__file__).resolve().parents[2]
NEEDED_FOLDERS = ("csrc", "build_tools", "rtdetr_ops", "tests")
NEEDED_FILES = ("setup.py", "pyproject.toml", "README.md", "LICENSE")
LEFT_OUT = shutil.ignore_patterns("*.so", "__pycache__", "*.egg-info")

# As in `make emulate`: what a flavor is built with, and what AddressSanitizer is told.
BUILD = {
    "sanitized": {
        "RTDETR_OPS_EMULATE_CUDA": "1",
        "RTDETR_OPS_SANITIZE": "address,undefined",
    },
    "races": {"RTDETR_OPS_EMULATE_CUDA": "races"},
}
ASAN_OPTIONS = (
    "detect_leaks=0:detect_stack_use_after_return=0:"
    "malloc_fill_byte=255:max_malloc_fill_size=1073741824"
)

PLAIN = "tests/ops/test_ms_deform_attn.py"
FUSED = "tests/ops/test_ms_deform_attn_fused.py"
DETERMINISM = "tests/ops/test_determinism.py"

# What a finding looks like. Fresh memory is NaN.
OFF = r"AssertionError: {}: off by (?!nan)"
NOT_A_NUMBER = r"AssertionError: {}: off by nan"
RACE = r"RuntimeError: .*{}.* of {} memory .* with nothing to order them"
MISALIGNED = r"runtime error: .* misaligned address"
OVERFLOW = r"ERROR: AddressSanitizer: heap-buffer-overflow"


@dataclass(frozen=True)
class Fault:
    """One edit of csrc/.

    Args:
        file: below csrc/.
        text: stands in it exactly once; how it is broken into lines does not matter.
        planted: what takes its place, in which PLANTED is true where the fault is wanted.
        tests: nodes of tests/ops that find it.
        finding: pattern of what they print.
        flavor: key of BUILD.
    """

    file: str
    text: str
    planted: str
    tests: str
    finding: str
    flavor: str = "sanitized"

    @property
    def pattern(self) -> re.Pattern[str]:
        return re.compile(r"\s+".join(map(re.escape, self.text.split())))


FORWARD, BACKWARD = "ms_deform_attn/cuda_forward.cu", "ms_deform_attn/cuda_backward.cu"
TAPS, DETERMINISTIC = (
    "ms_deform_attn/cuda_taps.cuh",
    "ms_deform_attn/cuda_backward_deterministic.cuh",
)
PROBLEM, PIXELS = "ms_deform_attn/cuda_problem.cuh", "ms_deform_attn/cuda_pixels.cuh"
LAUNCH, REDUCTIONS = "ms_deform_attn/cuda_launch.cuh", "ms_deform_attn/cuda_reductions.cuh"
EVEN = f"{PLAIN}::test_shape[cpu-bilinear-even]"
RAGGED = f"{PLAIN}::test_shape[cpu-bilinear-ragged_zero_count]"
MANY = f"{PLAIN}::test_shape[cpu-bilinear-64_points_on_a_level]"

FAULTS = {
    "no_barrier_before_forward_reads_taps": Fault(
        FORWARD,
        "__syncwarp(); const int begin",
        "if (!PLANTED) __syncwarp(); const int begin",
        RAGGED,
        RACE.format("forward_kernel", "shared"),
        "races",
    ),
    "no_barrier_before_forward_overwrites_taps": Fault(
        FORWARD,
        "lanes.slices, sum); __syncwarp();",
        "lanes.slices, sum); if (!PLANTED) __syncwarp();",
        MANY,
        RACE.format("forward_kernel", "shared"),
        "races",
    ),
    "no_barrier_before_backward_reads_taps": Fault(
        BACKWARD,
        "__syncwarp(); for (int slab",
        "if (!PLANTED) __syncwarp(); for (int slab",
        RAGGED,
        RACE.format("backward_kernel", "shared"),
        "races",
    ),
    "no_barrier_before_backward_reads_dots": Fault(
        BACKWARD,
        "__syncwarp(); if (has_tap && args.needs_dots())",
        "if (!PLANTED) __syncwarp(); if (has_tap && args.needs_dots())",
        RAGGED,
        RACE.format("backward_kernel", "shared"),
        "races",
    ),
    "no_barrier_before_backward_reads_gradients_of_all_taps": Fault(
        BACKWARD,
        "grad, memory); } __syncwarp();",
        "grad, memory); } if (!PLANTED) __syncwarp();",
        f"{FUSED}::test_shape[cpu-bilinear-ragged_zero_count]",
        RACE.format("backward_kernel", "shared"),
        "races",
    ),
    "no_atomic_in_scattering": Fault(
        BACKWARD,
        "Reduce<Grad::kWidth>::add(vector + channel, product);",
        "{ if (PLANTED) vector[channel] += product[0]; else Reduce<Grad::kWidth>::add(vector + channel, product); }",
        RAGGED,
        RACE.format("backward_kernel", "global"),
        "races",
    ),
    "two_warps_write_a_pixel": Fault(
        DETERMINISTIC,
        "width = min(1 << patch.log2_width, size.width - x);",
        "width = min((1 << patch.log2_width) + PLANTED, size.width - x);",
        f"{DETERMINISM}::test_an_image_does_not_depend_on_its_batch[cpu-plain]",
        RACE.format("deterministic_value_kernel", "global"),
        "races",
    ),
    "heads_share_a_row_of_the_output": Fault(
        FORWARD,
        "static_cast<V*>(args.out) + index_of_query(p, at) * p.D",
        "static_cast<V*>(args.out) + (index_of_query(p, at) - PLANTED * at.m) * p.D",
        RAGGED,
        RACE.format("forward_kernel", "global"),
        "races",
    ),
    "right_border_off_by_one": Fault(
        TAPS,
        "x0 + 1 < size.width",
        "x0 + 1 < size.width + PLANTED",
        f"{PLAIN}::test_shape[cpu-bilinear-one_pixel_levels]",
        OVERFLOW,
    ),
    "lower_border_off_by_one": Fault(
        TAPS,
        "y0 + 1 < size.height",
        "y0 + 1 < size.height + PLANTED",
        f"{PLAIN}::test_shape[cpu-bilinear-one_pixel_levels]",
        OVERFLOW,
    ),
    "discrete_column_clamped_as_a_number_alone": Fault(
        TAPS,
        "x0 = min(static_cast<int>(x), size.width - 1);",
        "x0 = min(static_cast<int>(x), size.width - !PLANTED);",
        f"{PLAIN}::test_points_on_pixel_borders[cpu-float32-discrete]",
        OVERFLOW,
    ),
    "discrete_line_clamped_as_a_number_alone": Fault(
        TAPS,
        "y0 = min(static_cast<int>(y), size.height - 1);",
        "y0 = min(static_cast<int>(y), size.height - !PLANTED);",
        f"{PLAIN}::test_points_on_pixel_borders[cpu-float32-discrete]",
        OVERFLOW,
    ),
    "point_on_the_right_border_is_inside": Fault(
        TAPS,
        "x > A(-1) && x < width",
        "x > A(-1) && x < width + PLANTED",
        f"{PLAIN}::test_points_on_pixel_borders[cpu-float32-bilinear]",
        OVERFLOW,
    ),
    "tile_misses_its_left_column": Fault(
        DETERMINISTIC,
        "static_cast<unsigned>(cell.x + 1 - x)",
        "static_cast<unsigned>(cell.x + !PLANTED - x)",
        f"{DETERMINISM}::test_many_threads_are_right[cpu-tasks_of_levels-plain]",
        OFF.format("grad_value"),
    ),
    "last_query_left_out": Fault(
        PROBLEM,
        "return query < p.Q ? query : -1;",
        "return query < p.Q - PLANTED ? query : -1;",
        RAGGED,
        NOT_A_NUMBER.format("output"),
    ),
    "last_number_left_out_of_rounding": Fault(
        REDUCTIONS,
        "i < args.numbers",
        "i < args.numbers - PLANTED",
        f"{PLAIN}::test_dtypes[cpu-bfloat16-bilinear]",
        NOT_A_NUMBER.format("grad_value"),
    ),
    "dots_not_cleared": Fault(
        BACKWARD,
        "memory.dots[my_slot] = Quad<A>{};",
        "if (!PLANTED) memory.dots[my_slot] = Quad<A>{};",
        RAGGED,
        NOT_A_NUMBER.format("grad_locations"),
    ),
    "sums_in_global_memory_not_cleared": Fault(
        BACKWARD,
        "if (plan.sums != nullptr) { return status_of( cudaMemsetAsync(",
        "if (plan.sums != nullptr) { return PLANTED ? Status() : status_of( cudaMemsetAsync(",
        RAGGED,
        NOT_A_NUMBER.format("grad_value"),
    ),
    "sums_of_a_tile_not_cleared": Fault(
        DETERMINISTIC,
        "sums.clear();",
        "if (!PLANTED) sums.clear();",
        f"{DETERMINISM}::test_many_threads_are_right[cpu-tasks_of_levels-plain]",
        NOT_A_NUMBER.format("grad_value"),
    ),
    "image_left_out_of_the_address_of_value": Fault(
        PIXELS,
        "at.b * p.value.stride_b",
        "(PLANTED ? 0 : at.b) * p.value.stride_b",
        RAGGED,
        OFF.format("output"),
    ),
    "image_left_out_of_the_address_of_the_mask": Fault(
        TAPS,
        "drop_masked(p.mask + static_cast<std::int64_t>(at.b) * p.S);",
        "drop_masked(p.mask + static_cast<std::int64_t>(PLANTED ? 0 : at.b) * p.S);",
        f"{FUSED}::test_reference_forms[cpu-2d_per_level_masked_0.5-bilinear]",
        OFF.format("output"),
    ),
    "scatters_to_pixels_outside": Fault(
        BACKWARD,
        "if (pixel[c] < 0) continue;",
        "if (pixel[c] < 0 && !PLANTED) continue;",
        f"{PLAIN}::test_shape[cpu-bilinear-one_pixel_levels]",
        OVERFLOW,
    ),
    "too_little_shared_memory": Fault(
        FORWARD,
        "Slots::bytes(shape.split) * (shape.threads / kWarp)",
        "Slots::bytes(shape.split) * (shape.threads / kWarp - PLANTED)",
        EVEN,
        OVERFLOW,
    ),
    "too_little_workspace": Fault(
        BACKWARD,
        "workspace.take<float>(3 * taps)",
        "workspace.take<float>(3 * taps - 64 * PLANTED)",
        f"{DETERMINISM}::test_many_threads_are_right[cpu-tasks_of_levels-plain]",
        OVERFLOW,
    ),
    "shuffle_by_some_of_its_lanes": Fault(
        TAPS,
        "if (!p.fused) return;",
        "if (!p.fused || (PLANTED && !active)) return;",
        f"{FUSED}::test_shape[cpu-bilinear-one_pixel_levels]",
        r"RuntimeError: .*forward_kernel.*waits at __shfl_xor_sync .* for thread",
    ),
    "sum_over_a_team_left_out": Fault(
        BACKWARD,
        "mean = team_sum(mean, split);",
        "if (!PLANTED) mean = team_sum(mean, split);",
        f"{FUSED}::test_shape[cpu-bilinear-ragged_zero_count]",
        OFF.format("grad_logits"),
    ),
    "order_of_blocks_decides_the_sum": Fault(
        BACKWARD,
        "deterministic_value = needs_value && deterministic;",
        "deterministic_value = needs_value && deterministic && !PLANTED;",
        f"{DETERMINISM}::test_an_image_does_not_depend_on_its_batch[cpu-plain]",
        r"AssertionError: grad_value",
    ),
    "too_much_shared_memory": Fault(
        LAUNCH,
        "config.dynamicSmemBytes = static_cast<std::size_t>(shared_bytes);",
        "config.dynamicSmemBytes = static_cast<std::size_t>(shared_bytes + PLANTED * kSharedBytes);",
        RAGGED,
        r"RuntimeError: .*ms_deform_attn: invalid argument",
    ),
    "failed_launch_goes_unsaid": Fault(
        FORWARD,
        "status = status_of(cudaLaunchKernelEx(&config, forward_kernel<V, bytes()>, args));",
        "cudaLaunchConfig_t launched = config; if (PLANTED) launched.gridDim.y = 1 << 16; "
        "status = status_of(cudaLaunchKernelEx(&launched, forward_kernel<V, bytes()>, args)); "
        "if (PLANTED) status = Status();",
        RAGGED,
        NOT_A_NUMBER.format("output"),
    ),
    "wide_loads_from_an_odd_address": Fault(
        LAUNCH,
        "addresses % 16 == 0",
        "(PLANTED || addresses % 16 == 0)",
        f"{PLAIN}::test_layout[cpu-value_at_an_odd_address-16]",
        MISALIGNED,
    ),
    "wide_loads_of_heads_at_odd_distances": Fault(
        LAUNCH,
        "p.D | v.stride_b | v.stride_s | v.stride_m",
        "PLANTED ? p.D : p.D | v.stride_b | v.stride_s | v.stride_m",
        f"{PLAIN}::test_layout[cpu-value_first_of_more_channels-16]",
        MISALIGNED,
    ),
}
ROW = {name: row for row, name in enumerate(FAULTS)}
each_fault = pytest.mark.parametrize("name", FAULTS)
slow = pytest.mark.slow  # compiles the kernels twice
emulated = pytest.mark.skipif(sys.platform != "linux", reason="the emulator reads ELF files")


class Library:
    """The package with faulty kernels: loaded by a process that forks for each run of tests.

    Args:
        folder: holds the package and the tests.
        env: what the process needs in its environment.
    """

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self._output = folder / "output"
        self._process = subprocess.Popen(
            [sys.executable, folder / "tests" / "emulation" / "forking_pytest.py"],
            cwd=folder,
            env={**environment(), "PYTHONPATH": str(folder), **env},
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def test(self, *tests: str, fault: str | None = None) -> tuple[int, str]:
        """Return the exit status of pytest, and what it and the sanitizers printed."""
        assert self._process.stdin
        assert self._process.stdout
        chosen = {} if fault is None else {"RTDETR_OPS_PLANTED_FAULT": str(ROW[fault])}
        words = ("-c", str(ROOT / "pyproject.toml"), "--rootdir", ".", "-p", "no:cacheprovider")
        options = ("--capture=sys", "-q", "-x", "-k", "not [reference")
        job = ([*words, *options, *tests], chosen, str(self._output))
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        status = int(self._process.stdout.readline())
        return status, self._output.read_text(errors="replace")

    def close(self) -> None:
        self._process.communicate()


def environment() -> dict[str, str]:
    """Return the environment less what the user has set for the library."""
    return {key: text for key, text in os.environ.items() if not key.startswith("RTDETR_OPS_")}


def plant_all(source: Path) -> None:
    """Put every fault into the copy, and what answers whether it is wanted."""
    for name, fault in FAULTS.items():
        path = source / "csrc" / fault.file
        before, after = fault.pattern.split(path.read_text())
        path.write_text(before + fault.planted.replace("PLANTED", f"planted({ROW[name]})") + after)
    emulator = source / "tests" / "emulation"
    for path in (emulator / "faults").iterdir():
        path.rename(emulator / path.name)
    header = emulator / "cuda_runtime.h"
    header.write_text(header.read_text() + '#include "planted.h"\n')


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Library]]:
    """The planted sources compiled in the flavor asked for, once."""
    source = copy_sources(tmp_path_factory.mktemp("planted"))
    plant_all(source)
    with ExitStack() as stack:

        @functools.cache
        def start(flavor: str) -> Library:
            return stack.enter_context(closing(compile_flavor(source, flavor)))

        yield start


def copy_sources(source: Path) -> Path:
    for name in NEEDED_FOLDERS:
        shutil.copytree(ROOT / name, source / name, ignore=LEFT_OUT)
    for name in NEEDED_FILES:
        shutil.copy(ROOT / name, source)
    return source


def compile_flavor(source: Path, flavor: str) -> Library:
    folder = source / "made" / flavor
    places = ("--build-lib", folder, "--build-temp", folder / "objects")
    command = (sys.executable, "setup.py", "-q", "build", *places)
    done = subprocess.run(
        command,
        cwd=source,
        env={**environment(), **BUILD[flavor]},
        text=True,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert done.returncode == 0, done.stdout
    shutil.copytree(ROOT / "tests", folder / "tests", ignore=LEFT_OUT)
    if flavor == "races":
        return Library(folder, {})
    return Library(folder, {"LD_PRELOAD": preload(), "ASAN_OPTIONS": ASAN_OPTIONS})


def preload() -> str:
    """Return libraries that AddressSanitizer wants loaded first."""
    names = ("libasan.so", "libstdc++.so")
    asked = ([*CXX, f"-print-file-name={name}"] for name in names)
    return " ".join(subprocess.check_output(words, text=True).strip() for words in asked)


@each_fault
def test_a_fault_still_has_its_place(name: str) -> None:
    fault = FAULTS[name]
    text = (ROOT / "csrc" / fault.file).read_text()
    assert len(fault.pattern.findall(text)) == 1, f"{fault.file}: {fault.text}"


@slow
@emulated
@pytest.mark.parametrize("flavor", BUILD)
def test_without_a_fault_all_passes(library: Callable[[str], Library], flavor: str) -> None:
    tests = {fault.tests for fault in FAULTS.values() if fault.flavor == flavor}
    status, output = library(flavor).test(*sorted(tests))
    assert status == 0, output


@slow
@emulated
@each_fault
def test_a_fault_is_found(library: Callable[[str], Library], name: str) -> None:
    fault = FAULTS[name]
    status, output = library(fault.flavor).test(fault.tests, fault=name)
    assert status != 0, f"unfound: {fault}"
    assert re.search(fault.finding, output), output
