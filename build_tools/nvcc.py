# SPDX-License-Identifier: Apache-2.0
"""Find nvcc and try whether it suits: its version, its GPUs, and a few lines of CUDA C++20."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from compilers import Compiler
from questions import ask

_PROBE = """#include <concepts>
template <std::floating_point T> __global__ void probe(T* numbers) { numbers[0] += T(1); }
void launch(float* numbers) { probe<<<1, 1>>>(numbers); }
"""


class UnsuitableError(Exception):
    """Why CUDA kernels cannot be built, in a few words."""


def nvcc_path() -> Path | None:
    """Return nvcc from CUDA_HOME, CUDA_PATH, PATH or /usr/local/cuda, in this order, or None."""
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH")]
    places = [Path(home, "bin", "nvcc") for home in homes if home]
    on_path = shutil.which("nvcc")
    places += [Path(on_path)] if on_path else []
    places.append(Path("/usr/local/cuda/bin/nvcc"))
    return next((place for place in places if place.is_file()), None)


def find_nvcc(host: Sequence[str] = ()) -> Compiler:
    """Return nvcc.

    Args:
        host: the C++ compiler that nvcc is to call, e.g. ("ccache", "g++"); nvcc's own choice without.

    Raises:
        UnsuitableError: there is none, or it does not tell its version.
    """
    path = nvcc_path()
    if path is None:
        raise UnsuitableError("nvcc not found")
    answer = ask(str(path), "--version")
    release = re.search(r"release (\S+?),", answer.output)
    if answer.refusal or release is None:
        raise UnsuitableError(f"nvcc does not tell its version: {answer.refusal or 'no release'}")
    # A command such as "ccache g++ -m64" has one program that compiles.
    programs = [word for word in host if not word.startswith("-")]
    ccbin = (f"-ccbin={programs[-1]}",) if programs else ()
    return Compiler((str(path), *ccbin), release[1], "cuda")


def gpu_codes(nvcc: Compiler) -> frozenset[str]:
    """Return the machine codes that nvcc can build: "sm_80", "sm_90" and so on.

    Raises:
        UnsuitableError: it lists none, as before CUDA 11.
    """
    answer = ask(*nvcc.command, "--list-gpu-code")
    codes = frozenset(re.findall(r"\bsm_\d+\b", answer.output))
    if answer.refusal or not codes:
        reason = answer.refusal or "it printed none"
        raise UnsuitableError(f"nvcc {nvcc.version} does not list the GPUs it builds for: {reason}")
    return codes


def refusal(nvcc: Compiler, flags: Sequence[str]) -> str:
    """Return what keeps nvcc from making a library of a few lines of CUDA C++20; empty if nothing."""
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder, "probe.so")
        words = ("-std=c++20", *flags, "-shared", "-Xcompiler=-fPIC", "--no-device-link")
        probe = ask(*nvcc.command, *words, "-o", str(library), "-x", "cu", "-", source=_PROBE)
        return probe.refusal or ("" if library.is_file() else "no error, and no output")
