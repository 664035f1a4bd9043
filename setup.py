# SPDX-License-Identifier: Apache-2.0
"""Build rtdetr_ops._C from csrc/: a plan of files and flags, handed to ninja.

Environment:
    CXX                    the C++ compiler; else c++, g++ or clang++, whichever speaks C++20
    CUDA_HOME, CUDA_PATH   where nvcc is; else PATH, then /usr/local/cuda
    MAX_JOBS               parallel compilations; else ninja decides
    RTDETR_OPS_TORCH       the site-packages whose torch is built against; else the one that `import torch` finds
    TORCH_CUDA_ARCH_LIST   GPUs to build for, e.g. "8.0;9.0+PTX" or "Ampere;Hopper", also beside a torch without CUDA;
                           else all from sm_80 to sm_120, which is also "All"
    RTDETR_OPS_CUDA        0: no CUDA, though nvcc may be there. 1: CUDA beside any torch; an error where its kernels
                           cannot be built. Else they are built beside a torch with CUDA, where nvcc suits;
                           build_info() says why not
    RTDETR_OPS_WERROR=1    warnings are errors
    RTDETR_OPS_SANITIZE    e.g. "address,undefined": an instrumented build, without CUDA
    RTDETR_OPS_EMULATE_CUDA    1 or races: a library for the tests, whose CUDA kernels run on the CPU
    RTDETR_OPS_EMULATED_ARCH   800 or 900: the architecture those kernels believe to be on
"""

from __future__ import annotations

import json
import os
import sys
import sysconfig
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

# A PEP 517 front end puts this folder on the path; `python setup.py` does not.
sys.path.insert(0, str(Path(__file__).resolve().parent / "build_tools"))

from needs import check_needs, refuse

check_needs()

import pybind11
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

from compile_plan import Unit, cuda_units, cxx_units
from compilers import Compiler, find_cxx
from cuda_targets import Cuda, choose_cuda
from description import read_description
from emulated_plan import STATUS, emulated_units
from kept_headers import keep_headers
from ninja_build import Library, Rule, build
from options import Options, read_options
from torch_install import REQUIREMENT, TorchInstall, find_torch

CSRC = Path("csrc")
EMULATOR = Path("tests/emulation")


class NinjaBuildExt(build_ext):  # type: ignore[misc]  # setuptools leaves it untyped
    """Compile through ninja: flags per file, header dependencies, in parallel."""

    def run(self) -> None:
        # Before setuptools reads CXX, which ends in a traceback where a quote is missing.
        self.inputs = read_options(os.environ), require_torch(), find_cxx()
        super().run()

    def build_extension(self, ext: Extension) -> None:
        options, torch, cxx = self.inputs
        cuda, units = plan(options, cxx, torch)
        info = {
            "RTDETR_OPS_VERSION": self.distribution.get_version(),
            "RTDETR_OPS_TORCH_BUILD": torch.version,
            "RTDETR_OPS_CUDA_STATUS": cuda.status,
        }
        announce(units, torch, cxx, cuda, options)
        # pip gives an editable build a temporary folder; a kept one makes the next build short.
        folder = Path("build/objects" if self.editable_mode else self.build_temp).resolve()
        # pybind11 before torch, which bundles an older copy of it.
        pybind11_folder = keep_headers(Path(pybind11.get_include()), folder / "pybind11")
        folders = (pybind11_folder, torch.root / "include", Path(sysconfig.get_path("include")))
        # nvcc adds its own runtime, statically; no kernel calls into another file's.
        nvcc_links = cuda.nvcc and (*cuda.nvcc.command, "--no-device-link")
        library = Library(
            path=Path(self.get_ext_fullpath(ext.name)).resolve(),
            units=units,
            rules=rules(folders, cxx, cuda, info, options),
            linker=nvcc_links or cxx.command,
            link_flags=link_flags(torch, options.sanitizers),
        )
        build(library, folder, options.jobs)


def plan(options: Options, cxx: Compiler, torch: TorchInstall) -> tuple[Cuda, list[Unit]]:
    """Return what becomes of CUDA, and every file to compile."""
    if options.emulation:
        return Cuda(STATUS), emulated_units(CSRC, EMULATOR, options)
    cuda = choose_cuda(list(CSRC.rglob("*.cu")), options, cxx, torch)
    built = cuda.nvcc is not None
    units = cxx_units(CSRC, cxx.target, options.sanitizers, cuda=built)
    return cuda, units + (cuda_units(CSRC, cuda.targets) if built else [])


def require_torch() -> TorchInstall:
    """Return the torch to build against, or say what is missing."""
    torch = find_torch()
    if torch is None:
        refuse(REQUIREMENT, "no torch")
    if not torch.new_enough:
        refuse(REQUIREMENT, f"torch {torch.version} in {torch.root}")
    return torch


def rules(
    folders: Sequence[Path],
    cxx: Compiler,
    cuda: Cuda,
    info: dict[str, str],
    options: Options,
) -> dict[str, Rule]:
    """One rule per compiler; CUDA sources see csrc/ alone, which keeps torch out of them."""
    system = [f"-isystem{folder}" for folder in folders]
    defines = [f"-D{name}={_literal(value)}" for name, value in info.items()]
    ours, werror = f"-I{CSRC}", ["-Werror"] if options.werror else []
    table = {
        "cxx": Rule(cxx.command, [ours, *system, *defines, *werror]),
        "emulated": Rule(cxx.command, [ours, *werror]),
    }
    if cuda.nvcc:
        werror = ["-Werror=all-warnings"] if options.werror else []
        table["nvcc"] = Rule(cuda.nvcc.command, [ours, *werror])
    return table


def _literal(text: str) -> str:
    """Return a string of C++; a path in it may have bytes that are no letter."""
    return json.dumps(text.encode(errors="replace").decode())


def link_flags(torch: TorchInstall, sanitizers: str) -> list[str]:
    """Link torch by name alone: `import torch` has loaded its libraries before ours is opened.

    Nothing of ours needs libtorch itself on a CPU build of torch, so a linker may drop it; a CUDA
    build has the functions behind our weak symbols in what libtorch brings along.
    """
    sanitize = [f"-fsanitize={sanitizers}"] if sanitizers else []
    libraries = (f"-L{torch.root / 'lib'}", "-Xlinker", "--no-as-needed", "-ltorch", "-ltorch_cpu")
    return ["-shared", *sanitize, *libraries]


def announce(
    units: list[Unit], torch: TorchInstall, cxx: Compiler, cuda: Cuda, options: Options
) -> None:
    """Print what is about to be built, and from what."""
    files = Counter(unit.isa for unit in units)
    rows = {
        "compiler": f"{' '.join(cxx.command)}: {cxx.version} for {cxx.target}",
        "files": ", ".join(f"{count} {isa}" for isa, count in sorted(files.items())),
        "torch": f"{torch.version} in {torch.root}, found in {torch.found_by}",
        "CUDA": cuda.status,
        "sanitizers": options.sanitizers or "none",
    }
    lines = (f"  {name:12}{value}\n" for name, value in rows.items())
    # The bytes of the paths, which the locale need not have letters for.
    sys.stdout.flush()
    sys.stdout.buffer.write(os.fsencode("building rtdetr_ops._C\n" + "".join(lines)))
    sys.stdout.flush()


setup(
    long_description=read_description(Path("README.md")),
    long_description_content_type="text/markdown",
    ext_modules=[Extension("rtdetr_ops._C", sorted(map(str, CSRC.rglob("*.cpp"))))],
    cmdclass={"build_ext": NinjaBuildExt},
)
