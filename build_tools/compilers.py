# SPDX-License-Identifier: Apache-2.0
"""Find the C++ compiler."""

from __future__ import annotations

import os
import shlex
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from questions import ask

_CXX_NAMES = ("c++", "g++", "clang++")
_CXX20_PROBE = """#include <bit>
#include <span>
#include <concepts>
template <std::floating_point T> T probe(T number) { return number; }
template float probe(float);
"""


@dataclass(frozen=True)
class Compiler:
    """A C++ compiler that accepts C++20, or nvcc."""

    command: tuple[str, ...]  # argv prefix: CXX may be "ccache g++"
    version: str
    target: str  # "x86_64-linux-gnu"; decides which instruction sets are built


def find_cxx() -> Compiler:
    """Return the compiler named by CXX, else the first of c++, g++, clang++ that suits.

    Raises:
        SystemExit: CXX is no command, or no candidate compiles C++20; the text lists what each one answered.
    """
    refusals = []
    for command in _candidates(os.environ.get("CXX", "")):
        target = ask(*command, "-dumpmachine")
        refusal = (
            _refusal(command) or target.refusal or ("" if target.output else "names no target")
        )
        if not refusal:
            version = ask(*command, "--version").output.partition("\n")[0]
            return Compiler(command, version, target.output.strip())
        refusals.append(f"  {shlex.join(command)}: {refusal}")
    raise SystemExit(
        "rtdetr_ops: no C++20 compiler; install g++ from 11 on or clang++ from 13 on, or set CXX. Tried:\n"
        + "\n".join(refusals)
    )


def _candidates(named: str) -> list[tuple[str, ...]]:
    try:
        words = shlex.split(named)
    except ValueError as error:
        raise SystemExit(
            f"CXX: expected a command such as 'ccache g++', got {named!r}: {error}"
        ) from error
    return [tuple(words)] if words else [(name,) for name in _CXX_NAMES]


def _refusal(command: Sequence[str]) -> str:
    """Return what keeps a compiler from making an object of a few lines of C++20; empty if nothing."""
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder, "probe.o")
        words = ("-std=c++20", "-c", "-x", "c++", "-", "-o", str(made))
        probe = ask(*command, *words, source=_CXX20_PROBE)
        return probe.refusal or ("" if made.is_file() else "no error, and no output")
