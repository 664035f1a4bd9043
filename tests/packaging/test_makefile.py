# SPDX-License-Identifier: Apache-2.0
"""What `make` would run to set up: which index torch comes from, and the hint where CUDA is of no use."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from environments import ROOT, run

INDEX = "https://torch.example/cpu"
HINT = "No NVIDIA driver here"

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


def setup_commands(tmp_path: Path, *words: str) -> list[str]:
    """Return the lines of a dry run that would make an environment in a folder of its own."""
    target = tmp_path / "env" / ".ready"
    defaults = ("TORCH_INDEX=", "NVIDIA_DRIVER=", f"VENV={tmp_path / 'env'}")
    return run("make", "-n", *defaults, *words, target, cwd=ROOT).splitlines()


def test_the_index_of_torch_is_used_for_torch_alone(tmp_path: Path) -> None:
    commands = setup_commands(tmp_path, f"TORCH_INDEX={INDEX}")

    (command,) = [line for line in commands if INDEX in line]
    assert command.endswith(f"-c constraints.txt --extra-index-url '{INDEX}' torch")


def test_torch_comes_from_the_usual_index_by_default(tmp_path: Path) -> None:
    commands = setup_commands(tmp_path)

    assert [line for line in commands if line.endswith("-c constraints.txt  torch")]
    assert [line for line in commands if "index-url" in line] == []


def test_torch_is_installed_before_what_depends_on_it(tmp_path: Path) -> None:
    installs = [line for line in setup_commands(tmp_path) if "pip install" in line]

    assert ["torch" in line.split() for line in installs] == [False, True, False]


@pytest.mark.parametrize(
    ("words", "installed", "hints"),
    [
        ([], False, 1),
        ([f"TORCH_INDEX={INDEX}"], False, 0),
        (["NVIDIA_DRIVER=/proc/driver/nvidia/version"], False, 0),
        ([], True, 0),
    ],
    ids=["download", "index chosen", "NVIDIA", "torch is there"],
)
def test_a_torch_without_cuda_is_hinted_at_where_it_would_do(
    tmp_path: Path, words: list[str], installed: bool, hints: int
) -> None:
    if installed:
        package = tmp_path / "env/lib/python3.11/site-packages/torch"
        package.mkdir(parents=True)
        (package / "version.py").touch()

    assert len([line for line in setup_commands(tmp_path, *words) if HINT in line]) == hints


@pytest.mark.parametrize(("asked", "expected"), [(None, "All"), ("9.0", "9.0"), ("", "")])
def test_cuda_kernels_are_built_beside_any_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str | None, expected: str
) -> None:
    """By `make build` and by the installation before it, whose objects `make build` finds."""
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$TORCH_CUDA_ARCH_LIST: $*"\n')
    python.chmod(0o755)
    monkeypatch.delenv("TORCH_CUDA_ARCH_LIST", raising=False)
    if asked is not None:
        monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", asked)

    words = (f"READY={tmp_path / 'ready'}", f"PYTHON={python}", f"PY={python}", f"VENV={tmp_path}")
    lines = run("make", "-s", *words, "build", cwd=ROOT).splitlines()

    builds = [line for line in lines if " -e " in line or "build_ext" in line]
    assert [line.partition(": ")[0] for line in builds] == [expected, expected]
