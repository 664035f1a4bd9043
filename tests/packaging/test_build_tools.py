# SPDX-License-Identifier: Apache-2.0
"""The plan of a build and its refusals, without building anything."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from environments import ROOT

sys.path.insert(0, str(ROOT / "build_tools"))

import compile_plan
import compilers
import ninja_build
import torch_install


@pytest.fixture
def csrc(tmp_path: Path) -> Path:
    for name in (
        "op.cpp",
        "cpu/kernel.cpp",
        "cpu/kernel_avx2.cpp",
        "cpu/kernel_avx512.cpp",
        "k.cu",
    ):
        path = tmp_path / "csrc" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "csrc"


def _fake_torch(folder: Path, version: str) -> None:
    (folder / "torch").mkdir()
    (folder / "torch" / "__init__.py").write_text("raise AssertionError('imported')\n")
    (folder / "torch" / "version.py").write_text(f"__version__ = '{version}'\n")


def test_a_file_name_decides_its_instruction_set(csrc: Path) -> None:
    planned = {unit.source.name: unit for unit in compile_plan.cxx_units(csrc, "x86_64-linux-gnu")}

    assert {name: unit.isa for name, unit in planned.items()} == {
        "op.cpp": "baseline",
        "kernel.cpp": "baseline",
        "kernel_avx2.cpp": "avx2",
        "kernel_avx512.cpp": "avx512",
    }
    assert not [flag for flag in planned["kernel.cpp"].flags if flag.startswith("-m")]
    assert "-mavx2" in planned["kernel_avx2.cpp"].flags
    assert not [flag for flag in planned["kernel_avx2.cpp"].flags if "avx512" in flag]
    assert "-mavx512bw" in planned["kernel_avx512.cpp"].flags
    assert all("-DRTDETR_OPS_X86_DISPATCH=1" in unit.flags for unit in planned.values())


def test_other_machines_build_the_baseline_alone(csrc: Path) -> None:
    units = compile_plan.cxx_units(csrc, "aarch64-linux-gnu")

    assert {unit.source.name for unit in units} == {"op.cpp", "kernel.cpp"}
    assert not [flag for unit in units for flag in unit.flags if "X86" in flag or flag[:2] == "-m"]


def test_sanitizers_replace_optimisation_and_keep_asserts(csrc: Path) -> None:
    (unit, *_) = compile_plan.cxx_units(csrc, "x86_64-linux-gnu", "address,undefined")

    assert "-fsanitize=address,undefined" in unit.flags
    assert not {"-O3", "-DNDEBUG"} & set(unit.flags)


def test_the_oldest_torch_is_the_same_everywhere() -> None:
    project = (ROOT / "pyproject.toml").read_text()

    assert f'dependencies = ["{torch_install.REQUIREMENT}"]' in project
    assert torch_install.TARGET_VERSION == "0x020a000000000000"


@pytest.mark.parametrize(
    ("version", "enough"),
    [("2.9.1", False), ("2.10.0", True), ("2.13.0+cpu", True), ("3.0.0a0+git1", True)],
)
def test_torch_is_found_and_judged_without_importing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, enough: bool
) -> None:
    _fake_torch(tmp_path, version)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))

    found = torch_install.find_torch()

    assert found is not None
    assert (found.root, found.version, found.new_enough) == (tmp_path / "torch", version, enough)


def test_a_compiler_without_cxx20_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler -O3")

    with pytest.raises(SystemExit, match=re.escape("no-such-compiler -O3: not found")):
        compilers.find_cxx()


def test_nvcc_is_taken_from_cuda_home_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvcc = tmp_path / "bin" / "nvcc"
    nvcc.parent.mkdir()
    nvcc.write_text("#!/bin/sh\necho 'Cuda compilation tools, release 12.9, V12.9.41'\n")
    nvcc.chmod(0o755)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))

    found = compilers.find_nvcc()

    assert found is not None
    assert (found.command, found.version) == ((str(nvcc),), "12.9")


def test_paths_with_spaces_survive_ninja() -> None:
    unit = compile_plan.Unit(Path("my csrc/a.cpp"), "cxx", "baseline", ("-O3",))
    library = ninja_build.Library(
        path=Path("/out dir/_C.so"),
        units=[unit],
        rules={"cxx": ninja_build.Rule(("c++",), ('-DTEXT="a b"', "-I/in $dir"))},
        linker=("c++",),
        link_flags=("-shared",),
    )

    script = ninja_build.ninja_script(library, Path("/obj dir"))

    assert "build /obj$ dir/my$ csrc/a.cpp.o: cxx my$ csrc/a.cpp" in script
    assert "c++ $flags '-DTEXT=\"a b\"' '-I/in $$dir' -MD" in script
    assert "build /out$ dir/_C.so: link /obj$ dir/my$ csrc/a.cpp.o" in script
