# SPDX-License-Identifier: Apache-2.0
"""The C++ sources compile for a machine that is not x86-64."""

from __future__ import annotations

import shutil
import sys
import sysconfig
from pathlib import Path

import pytest
from environments import ROOT, run

sys.path.insert(0, str(ROOT / "build_tools"))

from compile_plan import Unit, cxx_units

TARGET = "aarch64-linux-gnu"
UNITS = cxx_units(ROOT / "csrc", TARGET, cuda=True)


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which(f"{TARGET}-g++") is None, reason=f"needs {TARGET}-g++ (package g++-{TARGET})"
)
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.source.relative_to(ROOT).as_posix())
def test_compiles_for_aarch64(unit: Unit, tmp_path: Path) -> None:
    import pybind11
    import torch

    includes = (
        pybind11.get_include(),
        Path(torch.__file__).parent / "include",
        sysconfig.get_path("include"),
    )
    info = [f'-DRTDETR_OPS_{name}="any"' for name in ("VERSION", "TORCH_BUILD", "CUDA_STATUS")]
    folders = [f"-I{ROOT / 'csrc'}", *(f"-isystem{folder}" for folder in includes)]
    made = tmp_path / "made.o"
    run(f"{TARGET}-g++", *unit.flags, "-Werror", *folders, *info, "-c", unit.source, "-o", made)
    assert "AArch64" in run("readelf", "--file-header", made)
