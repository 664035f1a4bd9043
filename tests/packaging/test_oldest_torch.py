# SPDX-License-Identifier: Apache-2.0
"""The sources that bind to torch compile with the headers of the oldest torch this package asks for."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from environments import ROOT, run

sys.path.insert(0, str(ROOT / "build_tools"))

import torch_install
from compile_plan import Unit, cxx_units

BINDINGS = ("module.cpp", "op.cpp", "op_cpu.cpp", "op_cuda.cpp")
UNITS = [
    unit
    for unit in cxx_units(ROOT / "csrc", "x86_64-linux-gnu", cuda=True)
    if unit.source.name in BINDINGS
]

pytestmark = [pytest.mark.slow, pytest.mark.network]


@pytest.fixture(scope="module")
def headers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("torch")
    oldest = f"torch=={'.'.join(map(str, torch_install.MINIMUM))}.0"
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "-q",
        "--no-deps",
        "-d",
        str(folder),
        oldest,
    ]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"cannot download {oldest}: {done.stderr.strip().splitlines()[-1]}")
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(
            folder, [name for name in archive.namelist() if name.startswith("torch/include/")]
        )
    wheel.unlink()
    return folder / "torch" / "include"


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.source.name)
def test_compiles_with_the_headers_of_the_oldest_torch(unit: Unit, headers: Path) -> None:
    import pybind11

    includes = (pybind11.get_include(), headers, sysconfig.get_path("include"))
    info = [f'-DRTDETR_OPS_{name}="any"' for name in ("VERSION", "TORCH_BUILD", "CUDA_STATUS")]
    folders = [f"-I{ROOT / 'csrc'}", *(f"-isystem{folder}" for folder in includes)]
    run("g++", *unit.flags, "-Werror", "-fsyntax-only", *folders, *info, unit.source)


def test_every_binding_is_there() -> None:
    assert sorted(unit.source.name for unit in UNITS) == sorted(BINDINGS)
