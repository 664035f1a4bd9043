# SPDX-License-Identifier: Apache-2.0
"""The names of ``rtdetr`` are lazy for Python and plain imports for a type checker; both lists agree."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import rtdetr

SOURCE = Path(rtdetr.__file__).read_text(encoding="utf-8")

PROGRAM = """
import numpy as np
from PIL import Image
import rtdetr

reveal_type(rtdetr.RTDETR)  # RTDETR
reveal_type(rtdetr.DataError)  # error
detector = rtdetr.RTDETR("rtdetrv2_r18vd", revision="main")
image = Image.new("RGB", (32, 32))
reveal_type(detector(image, threshold=0.3))  # one
reveal_type(detector([image]))  # many
detector("street.jpg").save("boxes.jpg")
detector(np.zeros((4, 5, 3), np.uint8), color="bgr")
detector(image, treshold=0.3)  # misspelt
detector.stream("clip.mp4", treshold=0.3)  # misspelt
rtdetr.RTDETR("rtdetrv2_r18vd", divice="cpu")  # misspelt
rtdetr.Detectons  # misspelt
"""


def typed_names() -> dict[str, str]:
    """Name -> module, of the imports that only a type checker sees."""
    guards = (node for node in ast.parse(SOURCE).body if isinstance(node, ast.If))
    return {
        alias.name: f".{node.module}"
        for guard in guards
        for node in ast.walk(guard)
        if isinstance(node, ast.ImportFrom) and node.level
        for alias in node.names
    }


def test_lazy_and_typed_names_agree() -> None:
    assert typed_names() == rtdetr._HOMES
    assert {*rtdetr._HOMES, "__version__"} == set(rtdetr.__all__)


@pytest.mark.parametrize("name", rtdetr.__all__)
def test_every_name_is_there(name: str) -> None:
    assert getattr(rtdetr, name) is not None


def test_a_type_checker_knows_the_names(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    program = tmp_path / "program.py"
    program.write_text(PROGRAM, encoding="utf-8")
    root = Path(rtdetr.__file__).parents[1]
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            "mypy",
            "--config-file=",
            "--cache-dir",
            tmp_path / "cache",
            program,
        ],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = PROGRAM.splitlines()
    errors = set(map(int, re.findall(r"program\.py:(\d+): error", run.stdout)))
    assert errors == {i for i, line in enumerate(lines, 1) if line.endswith("# misspelt")}, (
        run.stdout
    )
    types = re.findall(r'Revealed type is "(.*)"', run.stdout)
    assert types[0].endswith("-> rtdetr.detector.RTDETR")
    assert types[1].endswith("-> rtdetr.errors.DataError")
    assert types[2].endswith("Detections")
    assert re.search(r"list\[.*Detections\]$", types[3])
