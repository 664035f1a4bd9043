# SPDX-License-Identifier: Apache-2.0
"""Short runs of a tiny detector on a tiny data set: three steps an epoch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from data_sets import coco_folder
from tiny_detector import save_tiny

from rtdetr.training.callbacks import Callback
from rtdetr.training.trainer import Trainer

STEPS = 3
"""Of an epoch."""


class At(Callback):
    """Does something after a step of the run, counted from 1."""

    def __init__(self, number: int, action: Callable[[Any], None]) -> None:
        self.number, self.action = number, action

    def step(self, run: Any, result: Any) -> None:
        if run.number == self.number:
            self.action(run)


def prepare(folder: Path) -> None:
    """``data/`` and ``model/`` in a folder."""
    coco_folder(folder / "data")
    save_tiny(folder / "model")


def make_trainer(folder: Path, out: str = "run", **changes: Any) -> Trainer:
    """Of two epochs on what :func:`prepare` has made."""
    options: dict[str, Any] = {
        "model": folder / "model",
        "epochs": 2,
        "imgsz": 64,
        "batch": 4,
        "accum": 1,
        "device": "cpu",
        "workers": 0,
        "plots": False,
        "lr": 1e-3,
        "out": folder / out,
        "say": None,
    }
    return Trainer(changes.pop("data", folder / "data"), **{**options, **changes})


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def weights(module: torch.nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])
