# SPDX-License-Identifier: Apache-2.0
"""What is compiled into the product, and with which flags: one Unit per source file of csrc/."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from cuda_targets import gencode_flags
from torch_install import TARGET_VERSION

# A file's suffix says which instruction set it needs; the code picks among them when it runs.
X86_ISA_FLAGS = {
    "_avx2": ("-mavx2", "-mfma", "-mf16c"),
    "_avx512": (
        *("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"),
        *("-mavx2", "-mfma", "-mf16c", "-mprefer-vector-width=512"),
    ),
}

# No contraction: where a kernel wants a fused multiply-add it says so, on every instruction set.
CXX_FLAGS = (
    *("-std=c++20", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off", "-Wall", "-Wextra"),
    # GCC 12 takes the undefined operand inside its own AVX-512 intrinsics, and a register filled
    # lane by lane, for a read of uninitialised memory; Clang does not know the warning.
    *("-Wno-maybe-uninitialized", "-Wno-unknown-warning-option"),
    f"-DTORCH_TARGET_VERSION={TARGET_VERSION}",
)
RELEASE_FLAGS = ("-O3", "-DNDEBUG")
NVCC_FLAGS = (
    *("-O3", "-std=c++20", "-DNDEBUG", "-fmad=false"),  # no contraction, as in C++
    *("-Xcompiler=-fPIC,-fvisibility=hidden", "-Xptxas=-warn-spills,-warn-lmem-usage"),
)


@dataclass(frozen=True)
class Unit:
    """One file to compile."""

    source: Path
    rule: str  # names a compiler and the folders it sees: "cxx", "nvcc" or "emulated"
    isa: str  # "baseline", "avx2", "avx512", "cuda" or "emulated"
    flags: tuple[str, ...]


def cxx_units(csrc: Path, target: str, sanitizers: str = "", *, cuda: bool = False) -> list[Unit]:
    """Plan the C++ files of csrc.

    Args:
        csrc: the source folder, searched recursively.
        target: what the compiler's -dumpmachine prints.
        sanitizers: value for -fsanitize, e.g. "address,undefined"; empty for a release build.
        cuda: whether .cu files are compiled too, and so the `*_cuda.cpp` files that call them.
    """
    x86 = target.startswith("x86_64")
    common = CXX_FLAGS + (sanitizer_flags(sanitizers) if sanitizers else RELEASE_FLAGS)
    common += ("-DRTDETR_OPS_X86_DISPATCH=1",) if x86 else ()
    units = []
    for source in sorted(csrc.rglob("*.cpp")):
        suffix = next((s for s in X86_ISA_FLAGS if source.stem.endswith(s)), None)
        if suffix is None and (cuda or not source.stem.endswith("_cuda")):
            units.append(Unit(source, "cxx", "baseline", common + exemptions(source, sanitizers)))
        elif suffix is not None and x86:
            units.append(Unit(source, "cxx", suffix[1:], common + X86_ISA_FLAGS[suffix]))
    return units


def cuda_units(csrc: Path, targets: Collection[str]) -> list[Unit]:
    """Plan the CUDA files of csrc for targets such as "sm_90"."""
    flags = NVCC_FLAGS + gencode_flags(targets)
    return [Unit(source, "nvcc", "cuda", flags) for source in sorted(csrc.rglob("*.cu"))]


def sanitizer_flags(sanitizers: str) -> tuple[str, ...]:
    """Flags for a build that stops at the first finding."""
    return (
        *("-O1", "-g", "-fno-omit-frame-pointer"),
        *(f"-fsanitize={sanitizers}", "-fno-sanitize-recover=all"),
    )


def exemptions(source: Path, sanitizers: str) -> tuple[str, ...]:
    """Flags that leave out the Python module: pybind11 takes a minute to instrument, and no tensor passes it."""
    return ("-fno-sanitize=all",) if sanitizers and source.name == "module.cpp" else ()
