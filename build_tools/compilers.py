# SPDX-License-Identifier: Apache-2.0
"""Find the C++ compiler, and ask compilers questions."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import textwrap
from dataclasses import dataclass

_CXX_NAMES = ("c++", "g++", "clang++")
_CXX20_PROBE = "#include <bit>\n#include <concepts>\n#include <span>\nint main() { return 0; }\n"

# For a compiler on a slow network disk; one that takes longer to say its version does not work.
TIMEOUT = 60.0  # seconds

_ERROR = re.compile(r"\b(?:fatal|error)\b.*", re.IGNORECASE)


@dataclass(frozen=True)
class Compiler:
    """A C++ compiler that accepts C++20, or nvcc."""

    command: tuple[str, ...]  # argv prefix: CXX may be "ccache g++"
    version: str
    target: str  # "x86_64-linux-gnu"; decides which instruction sets are built


@dataclass(frozen=True)
class Answer:
    """What a compiler did with a question."""

    output: str
    refusal: str = ""  # why it failed, in one line; empty if it did not


def find_cxx() -> Compiler:
    """Return the compiler named by CXX, else the first of c++, g++, clang++ that accepts C++20.

    Raises:
        SystemExit: no candidate compiles C++20; the text lists what each one answered.
    """
    named = os.environ.get("CXX")
    candidates = (tuple(shlex.split(named)),) if named else tuple((name,) for name in _CXX_NAMES)
    refusals = []
    for command in candidates:
        probe = ask(*command, "-std=c++20", "-fsyntax-only", "-x", "c++", "-", source=_CXX20_PROBE)
        if not probe.refusal:
            version = ask(*command, "--version").output.partition("\n")[0]
            return Compiler(command, version, ask(*command, "-dumpmachine").output.strip())
        refusals.append(f"  {shlex.join(command)}: {probe.refusal}")
    raise SystemExit(
        "rtdetr_ops: no C++20 compiler; install g++ or clang++, or set CXX. Tried:\n"
        + "\n".join(refusals)
    )


def ask(*command: str, source: str = "") -> Answer:
    """Run a compiler, with a source on its standard input; whatever goes wrong is its answer."""
    try:
        done = subprocess.run(
            command,
            input=source,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=TIMEOUT,
            env={**os.environ, "LC_ALL": "C"},
        )
    except FileNotFoundError:
        return Answer("", "not found")
    except OSError as error:
        return Answer("", error.strerror or str(error))
    except subprocess.TimeoutExpired:
        return Answer("", f"no answer within {TIMEOUT:g} s")
    if done.returncode == 0:
        return Answer(done.stdout)
    return Answer(done.stdout, _first_error(done.stderr + done.stdout) or _ending(done.returncode))


def _first_error(text: str) -> str:
    """Return the first error without the path before it, else the first line, shortened."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [match[0] for match in map(_ERROR.search, lines) if match]
    line = next(iter(errors or lines), "")
    printable = "".join(letter if letter.isprintable() else " " for letter in line)
    return textwrap.shorten(printable, 160, placeholder=" ...")


def _ending(returncode: int) -> str:
    return f"signal {-returncode}" if returncode < 0 else f"exit status {returncode}"
