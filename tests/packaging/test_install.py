# SPDX-License-Identifier: Apache-2.0
"""Installing into an environment that has torch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from environments import CONSTRAINTS, Environment

pytestmark = [pytest.mark.slow, pytest.mark.network]


@pytest.fixture(autouse=True)
def _compile_quickly(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """How fast the kernels are is not asked here: no optimization, and no CUDA, which test_cuda_build.py builds."""
    compiler = tmp_path / "c++"
    compiler.write_text(f'#!/bin/sh\nexec {os.environ.get("CXX", "c++")} "$@" -O0\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setenv("RTDETR_OPS_CUDA", "0")


@pytest.fixture(autouse=True)
def _uninstall(with_torch: Environment) -> Iterator[None]:
    yield
    with_torch.pip("uninstall", "-y", "rtdetr-ops")


def test_isolated_install_builds_against_the_installed_torch(
    with_torch: Environment, source: Path, tmp_path: Path
) -> None:
    nowhere = tmp_path / "constraints.txt"
    nowhere.write_text("torch==0.0.0\n")  # a build that asks for a torch of its own fails
    env = {"PIP_BUILD_CONSTRAINT": str(nowhere)}
    log = with_torch.pip("install", "-v", ".", cwd=source, env=env)

    assert f"in {with_torch.folder}" in log
    assert "found in the installing environment" in log
    answer = with_torch.smoke(tmp_path)
    assert Path(answer["file"]).is_relative_to(with_torch.folder)
    assert "not built: RTDETR_OPS_CUDA=0" in answer["build"]


def test_install_without_isolation(with_torch: Environment, source: Path, tmp_path: Path) -> None:
    with_torch.pip("install", "setuptools", "ninja", "pybind11", "-c", CONSTRAINTS)
    log = with_torch.pip("install", "-v", "--no-build-isolation", "--no-deps", ".", cwd=source)

    assert "found in the build environment" in log
    assert Path(with_torch.smoke(tmp_path)["file"]).is_relative_to(with_torch.folder)


def test_editable_install_runs_the_sources_where_they_are(
    with_torch: Environment, source: Path, tmp_path: Path
) -> None:
    with_torch.pip("install", "-e", ".", cwd=source)

    assert Path(with_torch.smoke(tmp_path)["file"]) == source / "rtdetr_ops" / "__init__.py"
