# SPDX-License-Identifier: Apache-2.0
"""Find the compilers and ask each what it is."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

_CXX_NAMES = ("c++", "g++", "clang++")
_CXX20_PROBE = "#include <bit>\n#include <concepts>\n#include <span>\nint main() { return 0; }\n"


@dataclass(frozen=True)
class Compiler:
    """A C++ compiler that accepts C++20, or nvcc."""

    command: tuple[str, ...]  # argv prefix: CXX may be "ccache g++"
    version: str
    target: str  # "x86_64-linux-gnu"; decides which instruction sets are built


def find_cxx() -> Compiler:
    """Return the compiler named by CXX, else the first of c++, g++, clang++ that accepts C++20.

    Raises:
        SystemExit: no candidate compiles C++20; the text lists what each one answered.
    """
    named = os.environ.get("CXX")
    candidates = (tuple(shlex.split(named)),) if named else tuple((name,) for name in _CXX_NAMES)
    answers = []
    for command in candidates:
        refusal = _refusal(command)
        if refusal is None:
            version = _output(*command, "--version").splitlines()[0]
            return Compiler(command, version, _output(*command, "-dumpmachine").strip())
        answers.append(f"  {shlex.join(command)}: {refusal}")
    raise SystemExit(
        "rtdetr_ops: no C++20 compiler; install g++ or clang++, or set CXX. Tried:\n"
        + "\n".join(answers)
    )


def find_nvcc() -> Compiler | None:
    """Return nvcc from CUDA_HOME, CUDA_PATH, PATH or /usr/local/cuda, in this order, or None."""
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH")]
    places = [Path(home, "bin", "nvcc") for home in homes if home]
    on_path = shutil.which("nvcc")
    places += [Path(on_path)] if on_path else []
    places.append(Path("/usr/local/cuda/bin/nvcc"))
    for nvcc in places:
        if nvcc.is_file():
            release = re.search(r"release (\S+),", _output(str(nvcc), "--version"))
            return Compiler((str(nvcc),), release.group(1) if release else "unknown", "cuda")
    return None


def gpu_codes(nvcc: Compiler) -> frozenset[str]:
    """Return the machine codes that nvcc can build: "sm_80", "sm_90" and so on."""
    return frozenset(_output(*nvcc.command, "--list-gpu-code").split())


def _refusal(command: tuple[str, ...]) -> str | None:
    if shutil.which(command[0]) is None:
        return "not found"
    probe = subprocess.run(
        [*command, "-std=c++20", "-fsyntax-only", "-x", "c++", "-"],
        input=_CXX20_PROBE,
        capture_output=True,
        text=True,
        check=False,
    )
    return None if probe.returncode == 0 else probe.stderr.strip().split("\n")[0]


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
