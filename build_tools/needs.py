# SPDX-License-Identifier: Apache-2.0
"""What a build needs beside a compiler. A front end such as pip brings it, unless its isolation is switched off."""

from __future__ import annotations

import importlib.metadata
import re
from typing import NoReturn

# Name and oldest version, as [build-system] in pyproject.toml asks for them.
NEEDS = {"setuptools": "77", "ninja": "0", "pybind11": "2.13"}


def check_needs() -> None:
    """Refuse a build, in one sentence, where one of NEEDS is missing or too old."""
    lacking = {name: _problem(name, oldest) for name, oldest in NEEDS.items()}
    problems = [problem for problem in lacking.values() if problem]
    if problems:
        refuse(", ".join(requirement(name) for name in NEEDS), ", ".join(problems))


def refuse(expected: str, found: str) -> NoReturn:
    """Raise the error of a build that lacks something."""
    raise SystemExit(
        f"rtdetr_ops: expected {expected} to build with, found {found}. "
        "Install what is missing first, or build without --no-build-isolation."
    )


def requirement(name: str) -> str:
    """Return the line of pyproject.toml."""
    return name if NEEDS[name] == "0" else f"{name}>={NEEDS[name]}"


def _problem(name: str, oldest: str) -> str:
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return f"no {name}"
    return f"{name} {version}" if _numbers(version) < _numbers(oldest) else ""


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)]
