# SPDX-License-Identifier: Apache-2.0
"""What a build says that lacks what it needs."""

from __future__ import annotations

import importlib.metadata
import sys

import pytest
from environments import ROOT

sys.path.insert(0, str(ROOT / "build_tools"))

import needs


def test_a_needed_package_is_asked_for_as_in_pyproject() -> None:
    lines = ", ".join(f'"{needs.requirement(name)}"' for name in needs.NEEDS)

    assert f"requires = [{lines}]" in (ROOT / "pyproject.toml").read_text()


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("setuptools", ""),
        ("setuptools", "76.9.9"),
        ("ninja", ""),
        ("pybind11", ""),
        ("pybind11", "2.9.2"),
    ],
)
def test_what_a_build_lacks_is_named_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, name: str, version: str
) -> None:
    def ask(wanted: str) -> str:
        if wanted == name and not version:
            raise importlib.metadata.PackageNotFoundError(wanted)
        return version if wanted == name else "999.0"

    monkeypatch.setattr(importlib.metadata, "version", ask)

    with pytest.raises(SystemExit) as refusal:
        needs.check_needs()
    assert str(refusal.value) == (
        "rtdetr_ops: expected setuptools>=77, ninja, pybind11>=2.13 to build with, "
        f"found {f'{name} {version}' if version else f'no {name}'}. "
        "Install what is missing first, or build without --no-build-isolation."
    )
