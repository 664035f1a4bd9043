# SPDX-License-Identifier: Apache-2.0
"""Build rtdetr_ops._C from csrc/: a plan of files and flags, handed to ninja.

Environment:
    CXX                    the C++ compiler; else c++, g++ or clang++, whichever speaks C++20
    CUDA_HOME, CUDA_PATH   where nvcc is; else PATH, then /usr/local/cuda
    MAX_JOBS               parallel compilations; else ninja decides
    RTDETR_OPS_WERROR=1    warnings are errors
    RTDETR_OPS_SANITIZE    e.g. "address,undefined": an instrumented build
"""

from __future__ import annotations

import os
import sys
import sysconfig
from collections import Counter
from pathlib import Path

import pybind11
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

# A PEP 517 front end puts this folder on the path; `python setup.py` does not.
sys.path.insert(0, str(Path(__file__).resolve().parent / "build_tools"))

from compile_plan import Unit, cuda_units, cxx_units
from compilers import Compiler, find_cxx, find_nvcc
from ninja_build import Library, Rule, build
from torch_install import REQUIREMENT, TorchInstall, find_torch

CSRC = Path("csrc")
SANITIZERS = os.environ.get("RTDETR_OPS_SANITIZE", "")
WERROR = ("-Werror",) if os.environ.get("RTDETR_OPS_WERROR") == "1" else ()


class NinjaBuildExt(build_ext):  # type: ignore[misc]  # setuptools leaves it untyped
    """Compile through ninja: flags per file, header dependencies, in parallel."""

    def build_extension(self, ext: Extension) -> None:
        torch, cxx, cuda = require_torch(), find_cxx(), cuda_units(CSRC)
        nvcc = find_nvcc() if cuda else None
        units = cxx_units(CSRC, cxx.target, SANITIZERS) + (cuda if nvcc else [])
        info = {
            "RTDETR_OPS_VERSION": self.distribution.get_version(),
            "RTDETR_OPS_TORCH_BUILD": torch.version,
            "RTDETR_OPS_CUDA_STATUS": cuda_status(cuda, nvcc),
        }
        announce(units, torch, cxx, info["RTDETR_OPS_CUDA_STATUS"])
        library = Library(
            path=Path(self.get_ext_fullpath(ext.name)).resolve(),
            units=units,
            rules=rules(torch, cxx, nvcc, info),
            linker=(nvcc or cxx).command,  # nvcc adds its own runtime, statically
            link_flags=link_flags(torch, "-Xcompiler=" if nvcc else ""),
        )
        # pip gives an editable build a temporary folder; a kept one makes the next build short.
        folder = Path("build/objects" if self.editable_mode else self.build_temp).resolve()
        build(library, folder)


def require_torch() -> TorchInstall:
    """Return the torch to build against, or say what is missing."""
    torch = find_torch()
    if torch is None:
        raise SystemExit(
            f"rtdetr_ops: expected {REQUIREMENT} to build against, found none. "
            f"Install it first, or build without --no-build-isolation."
        )
    if not torch.new_enough:
        found = f"{torch.version} in {torch.root}"
        raise SystemExit(f"rtdetr_ops: expected {REQUIREMENT} to build against, found {found}")
    return torch


def cuda_status(cuda: list[Unit], nvcc: Compiler | None) -> str:
    """Return the CUDA version built with, or one sentence saying why it is not built."""
    if not cuda:
        return "not built: no .cu sources"
    return nvcc.version if nvcc else "not built: nvcc not found"


def rules(
    torch: TorchInstall, cxx: Compiler, nvcc: Compiler | None, info: dict[str, str]
) -> dict[str, Rule]:
    """One rule per compiler; CUDA sources see csrc/ alone, which keeps torch out of them."""
    # pybind11 before torch, which bundles an older copy of it.
    system = (pybind11.get_include(), torch.root / "include", sysconfig.get_path("include"))
    defines = [f'-D{name}="{value}"' for name, value in info.items()]
    cxx_words = [f"-I{CSRC}", *(f"-isystem{folder}" for folder in system), *defines, *WERROR]
    table = {"cxx": Rule(cxx.command, cxx_words)}
    if nvcc:
        table["nvcc"] = Rule(nvcc.command, [f"-I{CSRC}", f"-ccbin={cxx.command[-1]}"])
    return table


def link_flags(torch: TorchInstall, to_host: str) -> list[str]:
    """Link torch by name alone: `import torch` has loaded its libraries before ours is opened."""
    sanitize = [f"{to_host}-fsanitize={SANITIZERS}"] if SANITIZERS else []
    return ["-shared", *sanitize, f"-L{torch.root / 'lib'}", "-ltorch", "-ltorch_cpu"]


def announce(units: list[Unit], torch: TorchInstall, cxx: Compiler, cuda: str) -> None:
    """Print what is about to be built, and from what."""
    files = Counter(unit.isa for unit in units)
    rows = {
        "compiler": f"{' '.join(cxx.command)}: {cxx.version} for {cxx.target}",
        "files": ", ".join(f"{count} {isa}" for isa, count in sorted(files.items())),
        "torch": f"{torch.version} in {torch.root}, found in {torch.found_by}",
        "CUDA": cuda,
        "sanitizers": SANITIZERS or "none",
    }
    lines = (f"  {name:12}{value}" for name, value in rows.items())
    print("building rtdetr_ops._C", *lines, sep="\n", flush=True)


setup(
    ext_modules=[Extension("rtdetr_ops._C", sorted(map(str, CSRC.rglob("*.cpp"))))],
    cmdclass={"build_ext": NinjaBuildExt},
)
