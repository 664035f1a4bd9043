# SPDX-License-Identifier: Apache-2.0
"""What the packaging tests share."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from environments import CONSTRAINTS, ROOT, Environment

LEFT_OUT = (
    *(".git", ".venv", ".*_cache", ".hypothesis", "__pycache__"),
    *("build", "dist", "*.egg-info", "*.so"),
)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """The sources as a fresh clone has them."""
    return shutil.copytree(ROOT, tmp_path / "source", ignore=shutil.ignore_patterns(*LEFT_OUT))


@pytest.fixture(scope="session")
def with_torch(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment that has torch and nothing of ours."""
    environment = Environment(tmp_path_factory.mktemp("with") / "env")
    environment.pip("install", "torch", "-c", CONSTRAINTS)
    return environment
