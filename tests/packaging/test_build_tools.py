# SPDX-License-Identifier: Apache-2.0
"""The plan of a build and its refusals, without building anything."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from environments import ROOT, fake_compiler, fake_torch, run

sys.path.insert(0, str(ROOT / "build_tools"))

import compile_plan
import cuda_targets
import description
import emulated_plan
import kept_headers
import ninja_build
import options
import torch_install


@pytest.fixture
def csrc(tmp_path: Path) -> Path:
    for name in (
        "op.cpp",
        "op_cuda.cpp",
        "op_cpu.cpp",
        "cpu/cpu_kernel.cpp",
        "cpu/cpu_avx2.cpp",
        "cpu/cpu_avx512.cpp",
        "k.cu",
    ):
        path = tmp_path / "csrc" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "csrc"


def test_a_file_name_decides_its_instruction_set(csrc: Path) -> None:
    planned = {unit.source.name: unit for unit in compile_plan.cxx_units(csrc, "x86_64-linux-gnu")}

    assert {name: unit.isa for name, unit in planned.items()} == {
        "op.cpp": "baseline",
        "op_cpu.cpp": "baseline",
        "cpu_kernel.cpp": "baseline",
        "cpu_avx2.cpp": "avx2",
        "cpu_avx512.cpp": "avx512",
    }
    assert not [flag for flag in planned["cpu_kernel.cpp"].flags if flag.startswith("-m")]
    assert "-mavx2" in planned["cpu_avx2.cpp"].flags
    assert not [flag for flag in planned["cpu_avx2.cpp"].flags if "avx512" in flag]
    assert "-mavx512bw" in planned["cpu_avx512.cpp"].flags
    assert all("-DRTDETR_OPS_X86_DISPATCH=1" in unit.flags for unit in planned.values())


def test_other_machines_build_the_baseline_alone(csrc: Path) -> None:
    units = compile_plan.cxx_units(csrc, "aarch64-linux-gnu")

    assert {unit.source.name for unit in units} == {"op.cpp", "op_cpu.cpp", "cpu_kernel.cpp"}
    assert not [flag for unit in units for flag in unit.flags if "X86" in flag or flag[:2] == "-m"]


def test_sanitizers_replace_optimisation_and_keep_asserts(csrc: Path) -> None:
    (unit, *_) = compile_plan.cxx_units(csrc, "x86_64-linux-gnu", "address,undefined")

    assert "-fsanitize=address,undefined" in unit.flags
    assert not {"-O3", "-DNDEBUG"} & set(unit.flags)


def test_the_oldest_torch_is_the_same_everywhere() -> None:
    project = (ROOT / "pyproject.toml").read_text()

    assert project.count(f'"{torch_install.REQUIREMENT}"') == 1
    assert torch_install.TARGET_VERSION == "0x020a000000000000"


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


def test_headers_that_are_installed_anew_are_not_new(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    for folder, text in {"first": "1", "second": "1", "third": "2"}.items():
        (tmp_path / folder / "detail").mkdir(parents=True)
        (tmp_path / folder / "detail" / "a.h").write_text(text)

    dates = []
    for folder in ("first", "second", "third"):
        assert kept_headers.keep_headers(tmp_path / folder, kept) == kept
        dates.append((kept / "detail" / "a.h").stat().st_mtime_ns)

    assert dates[0] == dates[1] < dates[2]
    assert (kept / "detail" / "a.h").read_text() == "2"


def test_a_page_without_neighbors_has_no_links_to_them(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("[a](docs/a.md#b), ![é](é.png), [out](https://example.org/a), [0](#b)\n")

    assert description.read_description(readme) == (
        "a (docs/a.md), é (é.png), [out](https://example.org/a), [0](#b)\n"
    )


@pytest.mark.slow
def test_a_path_may_have_letters_that_the_locale_lacks(source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "é"
    folder.mkdir()
    fake_torch(folder)
    words = ("-q", "build", "--build-lib", folder / "made", "--build-temp", folder / "objects")
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    variables = {"CXX": str(fake_compiler(folder / "c++")), "RTDETR_OPS_TORCH": str(folder)}

    log = run(
        sys.executable,
        "setup.py",
        *words,
        cwd=source.rename(folder / "source"),
        env=locale | variables,
    )

    assert f"in {folder / 'torch'}, found in RTDETR_OPS_TORCH" in log
    assert list((folder / "made" / "rtdetr_ops").glob("_C.*.so"))


@pytest.mark.parametrize("cuda", [True, False], ids=["with nvcc", "without"])
def test_the_binding_of_cuda_is_compiled_where_cuda_is(csrc: Path, cuda: bool) -> None:
    planned = {u.source.name for u in compile_plan.cxx_units(csrc, "x86_64-linux-gnu", cuda=cuda)}

    assert ("op_cuda.cpp" in planned) == cuda
    assert "op.cpp" in planned


def test_each_target_is_one_gencode() -> None:
    assert cuda_targets.gencode_flags(("sm_80", "sm_90a", "compute_120")) == (
        "-gencode=arch=compute_80,code=sm_80",
        "-gencode=arch=compute_90a,code=sm_90a",
        "-gencode=arch=compute_120,code=compute_120",
    )


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"RTDETR_OPS_CUDA": "no"}, "RTDETR_OPS_CUDA: expected 0 or 1, or unset; got 'no'"),
        ({"RTDETR_OPS_EMULATE_CUDA": "yes"}, "expected 1 or races, or unset; got 'yes'"),
        ({"MAX_JOBS": "all"}, "MAX_JOBS: expected a positive integer, or unset; got 'all'"),
        ({"MAX_JOBS": "0"}, "MAX_JOBS: expected a positive integer, or unset; got '0'"),
        ({"RTDETR_OPS_EMULATED_ARCH": "90"}, "expected 800 or 900, or unset; got '90'"),
        (
            {"RTDETR_OPS_EMULATE_CUDA": "races", "RTDETR_OPS_SANITIZE": "address"},
            "RTDETR_OPS_SANITIZE: expected unset with RTDETR_OPS_EMULATE_CUDA=races",
        ),
    ],
    ids=["switch", "flavor", "word for a number", "no jobs", "architecture", "two instruments"],
)
def test_a_variable_without_meaning_is_refused(environ: dict[str, str], message: str) -> None:
    with pytest.raises(SystemExit, match=re.escape(message)):
        options.read_options(environ)


def test_the_emulated_library_has_the_cuda_kernels_and_not_the_cpu_ones(
    csrc: Path, tmp_path: Path
) -> None:
    (tmp_path / "emulation").mkdir()
    (tmp_path / "emulation" / "fibers.cpp").touch()
    chosen = options.read_options({"RTDETR_OPS_EMULATE_CUDA": "races"})

    units = emulated_plan.emulated_units(csrc, tmp_path / "emulation", chosen)
    planned = {unit.source.name: unit for unit in units}

    assert set(planned) == {"op.cpp", "op_cuda.cpp", "k.cu", "fibers.cpp"}
    assert "-DRTDETR_OPS_CUDA_DISPATCH_KEY=CPU" in planned["op_cuda.cpp"].flags
    assert planned["k.cu"].rule == planned["fibers.cpp"].rule == "emulated"
    emulator = {f"-I{tmp_path / 'emulation'}", "-DRTDETR_OPS_EMULATED_ARCH=800"}
    assert emulator | {"-x", "-fsanitize=thread"} <= set(planned["k.cu"].flags)
    assert emulator | {"-DRTDETR_OPS_EMULATOR_RACES=1"} <= set(planned["fibers.cpp"].flags)
    assert "-fsanitize=thread" not in planned["fibers.cpp"].flags
