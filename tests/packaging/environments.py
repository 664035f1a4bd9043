# SPDX-License-Identifier: Apache-2.0
"""Virtual environments for the packaging tests, and one way to run commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CONSTRAINTS = ROOT / "constraints.txt"

# Run where only an installed package can be found; compares the compiled op with its definition.
SMOKE = """
import rtdetr_ops  # first: it must not count on someone else having imported torch
import json, torch
torch.manual_seed(0)
value = torch.randn(2, 21, 4, 8)
locations, weights = torch.rand(2, 5, 4, 3, 2), torch.rand(2, 5, 4, 3)
args = value, ((3, 5), (2, 3)), locations, weights
result = rtdetr_ops.ms_deform_attn(*args, points=(2, 1), backend="cpu")
torch.testing.assert_close(
    result, rtdetr_ops.ms_deform_attn(*args, points=(2, 1), backend="reference")
)
print(json.dumps({"file": rtdetr_ops.__file__, "build": str(rtdetr_ops.build_info())}))
"""


# Notes its arguments beside itself, and makes an empty file behind -o and -MF.
COMPILER = """#!/bin/sh
echo "$*" >> "$0.log"
case "$*" in *-dumpmachine*) echo x86_64-linux-gnu ;; esac
for word; do
    case "$previous" in -o|-MF) : > "$word" ;; esac
    previous=$word
done
"""


class Environment:
    """A virtual environment of its own."""

    def __init__(self, folder: Path) -> None:
        run(sys.executable, "-m", "venv", folder)
        self.folder = folder
        self.python = folder / "bin" / "python"
        self.pip("install", "--upgrade", "pip", "-c", CONSTRAINTS)

    def pip(
        self, *words: object, cwd: Path | None = None, env: dict[str, str] | None = None
    ) -> str:
        """Run pip and return what it printed."""
        return run(self.python, "-m", "pip", *words, cwd=cwd, env=env)

    def smoke(self, cwd: Path) -> dict[str, Any]:
        """Run the installed package from cwd; return where it lies and how it was built."""
        printed = run(self.python, "-I", "-c", SMOKE, cwd=cwd)
        answer: dict[str, Any] = json.loads(printed.splitlines()[-1])
        return answer


def fake_compiler(path: Path) -> Path:
    """Write a program that passes for a C++ compiler and compiles nothing."""
    path.write_text(COMPILER)
    path.chmod(0o755)
    return path


def fake_torch(site: Path, version: str = "2.13.0+cpu", line: str = "cuda = None") -> Path:
    """Put a torch into a site-packages folder that can be found and not imported; return its folder."""
    torch = site / "torch"
    torch.mkdir(parents=True)
    (torch / "__init__.py").write_text("raise AssertionError('imported')\n")
    (torch / "version.py").write_text(f"__version__ = '{version}'\n{line}\n")
    return torch


def run(*command: object, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """Run a command and return what it printed; fail the test with all of it otherwise."""
    words = [str(word) for word in command]
    done = subprocess.run(
        words,
        cwd=cwd,
        env={**os.environ, **(env or {})},
        text=True,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert done.returncode == 0, f"{' '.join(words)} exited with {done.returncode}:\n{done.stdout}"
    return done.stdout
