# SPDX-License-Identifier: Apache-2.0
"""The variant of the library whose CUDA kernels are C++ and run on the CPU, under the tests."""

from __future__ import annotations

from pathlib import Path

from compile_plan import CXX_FLAGS, Unit, exemptions, sanitizer_flags
from options import Options

STATUS = "emulated on the CPU"
# Race detection needs the calls that this inserts before each access, not the library behind them:
# the emulator has its own, which knows the rules of CUDA. A loop turned into memcpy or memset
# would make no such call.
RACE_FLAGS = ("-fsanitize=thread", "-fno-tree-loop-distribute-patterns")


def emulated_units(csrc: Path, emulator: Path, options: Options) -> list[Unit]:
    """Plan a library in which the CUDA operators answer for CPU tensors.

    Args:
        csrc: the source folder; its CPU kernels are left out.
        emulator: the folder with a <cuda_runtime.h> of its own and the C++ behind it.
        options: which flavour.
    """
    common = CXX_FLAGS + (
        sanitizer_flags(options.sanitizers) if options.sanitizers else ("-O2", "-g")
    )
    binding = (*common, "-DRTDETR_OPS_CUDA_DISPATCH_KEY=CPU")
    device = (*common, f"-I{emulator}", f"-DRTDETR_OPS_EMULATED_ARCH={options.emulated_arch}")
    races = options.emulation == "races"
    device += ("-DRTDETR_OPS_EMULATOR_RACES=1",) if races else ()
    # nvcc lets a kernel read numbers as the words of a vector.
    kernel = ("-x", "c++", "-Wno-unknown-pragmas", "-fno-strict-aliasing", *device)
    kernel += RACE_FLAGS if races else ()
    return [
        *(
            Unit(source, "cxx", "baseline", binding + exemptions(source, options.sanitizers))
            for source in _bindings(csrc)
        ),
        *(Unit(source, "emulated", "emulated", kernel) for source in sorted(csrc.rglob("*.cu"))),
        *(
            Unit(source, "emulated", "emulated", device)
            for source in sorted(emulator.glob("*.cpp"))
        ),
    ]


def _bindings(csrc: Path) -> list[Path]:
    """Return the C++ files of csrc that are not the CPU's."""
    return [
        source
        for source in sorted(csrc.rglob("*.cpp"))
        if not source.stem.startswith("cpu_") and not source.stem.endswith("_cpu")
    ]
