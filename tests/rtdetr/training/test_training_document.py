# SPDX-License-Identifier: Apache-2.0
"""docs/training.md: its programs run, smaller; the notebook is the same; what it says of options is true."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from command_line import run_command
from document import DOCUMENT, NOTEBOOK, dump_notebook

from rtdetr.training.options import known_words

pytestmark = pytest.mark.skipif(not DOCUMENT.is_file(), reason="docs are not beside these tests")

TEXT = DOCUMENT.read_text(encoding="utf-8") if DOCUMENT.is_file() else ""
FILES = {"best.safetensors", "last.ckpt", "results.csv", "log.jsonl", "config.yaml", "run.json"}
PLOTS = {
    *("labels.jpg", "train_batch.jpg", "val_samples.jpg"),
    *("curves.png", "pr.png", "confusion.png"),
}
SMALLER = {
    "--images 600": "--images 20",
    "--imgsz 160": "--imgsz 64",
    "imgsz=160": "imgsz=64",
    "train, 160": "train, 64",
    "--epochs 20": "--epochs 2",
}
COMMANDS = {"data", "train", "val", "predict"}


def run_cell(source: str, names: dict[str, Any]) -> None:
    """A cell of a notebook."""
    for full, small in SMALLER.items():
        source = source.replace(full, small)
    if not source.startswith("!"):
        exec(compile(source, str(NOTEBOOK), "exec"), names)
        return
    for line in source.splitlines():
        program, *words = shlex.split(line.removeprefix("!"))
        if program == "rtdetr":
            run_command(*words)
        else:
            assert line.startswith("!pip install"), line


@pytest.mark.slow
def test_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(text in TEXT for text in SMALLER)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "document"}
    for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            run_cell("".join(cell["source"]), names)
    run = tmp_path / "runs" / "digits"
    assert {path.name for path in run.iterdir()} >= FILES | PLOTS
    assert len((run / "results.csv").read_text().splitlines()) == 3
    assert Path(names["result"].best).is_file()


def test_notebook_is_the_document() -> None:
    """If not: python tests/rtdetr/training/document.py"""
    assert NOTEBOOK.read_text(encoding="utf-8") == dump_notebook(TEXT)


def test_files_and_options_of_the_text_exist() -> None:
    assert set(re.findall(r"`([\w.]+)`", TEXT)) >= FILES | PLOTS
    flags = {flag.replace("-", "_") for flag in re.findall(r"--([a-z][a-z-]+)", TEXT)}
    others = {
        "no_plots",
        "no_flip",
        "no_augment",
        "config",
        "resume",
        "replay",
        "dry_run",
        "devices",
        "images",
        "model",
        "smallest",
    }
    assert flags - others - {"nproc_per_node"} <= known_words()
    assert set(re.findall(r"^rtdetr ([a-z]+)", TEXT, re.MULTILINE)) == COMMANDS
    for path in re.findall(r"`(tests/[\w/.]+)`", TEXT):
        assert (DOCUMENT.parents[1] / path).exists(), path
