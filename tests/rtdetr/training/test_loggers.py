# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import builtins
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from runs import STEPS, make_trainer, prepare

from rtdetr.errors import MissingExtraError
from rtdetr.training.loggers import JsonLinesLogger, LineLogger
from rtdetr.training.step import StepResult


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("loggers")
    prepare(folder)
    return folder


def test_tensorboard_gets_every_step_and_epoch(folder: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    result = make_trainer(folder, "board", loggers=["tensorboard"]).train()
    events = accumulator.EventAccumulator(str(result.folder / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("train/loss")] == list(range(2 * STEPS))
    (first, _) = events.Scalars("epoch/ap50")
    assert first.value == pytest.approx(result.rows[0]["ap50"])


class Recorder(ModuleType):
    """In the place of a package: the names of the functions that are called, and with what."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.calls: list[tuple[str, Any]] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def called(*args: Any, **options: Any) -> Any:
            self.calls.append((name, args[0] if args else options))
            return self

        return called


@pytest.mark.parametrize(
    ("name", "row", "last"), [("wandb", "log", "finish"), ("mlflow", "log_metrics", "end_run")]
)
def test_services_get_a_row_an_epoch(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, row: str, last: str
) -> None:
    package = Recorder(name)
    monkeypatch.setitem(sys.modules, name, package)
    result = make_trainer(folder, name, loggers=[name]).train()
    rows = [value for called, value in package.calls if called == row]
    assert [one["ap"] for one in rows] == [one["ap"] for one in result.rows]
    assert package.calls[-1][0] == last


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
def test_a_missing_package_is_said_before_any_work(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    find = builtins.__import__

    def missing(module: str, *args: Any, **options: Any) -> Any:
        if module.split(".")[0] == name or module == "torch.utils.tensorboard":
            raise ImportError(module)
        return find(module, *args, **options)

    monkeypatch.setattr(builtins, "__import__", missing)
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=f"pip install {name}") as error:
        make_trainer(folder, "none", loggers=[name]).train()
    assert error.value.exit_code == 2
    assert not (folder / "none").exists()


def test_a_log_that_a_kill_has_cut_goes_on_where_the_checkpoint_is(tmp_path: Path) -> None:
    lines = [json.dumps({"step": step}) for step in range(5)]
    (tmp_path / "log.jsonl").write_text("\n".join(lines) + '\n{"step": 5, "lo')
    logger = JsonLinesLogger()
    logger.start(SimpleNamespace(folder=tmp_path, number=3))  # type: ignore[arg-type]
    logger.end(SimpleNamespace())  # type: ignore[arg-type]
    kept = (tmp_path / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in kept] == [0, 1, 2]


ROW = {
    "epoch": 2,
    "seconds": 61.0,
    "evaluation": 2.0,
    "memory": 1.5,
    "waiting": 0.0,
    "loss": 12.3456,
    "loss_bbox": 0.5,
    "loss_vfl": None,
    "ap": 0.25,
    "ap50": 0.5,
    "ap75": 0.1,
    "best": 1,
}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "2/10     1:03     1.5G   12.346   0.500       - |   0.250   0.500   0.100  *"),
        ({"waiting": 0.34}, "34% of the time was waiting for images: more workers (now 3)"),
        ({"ap50": 0.001}, "WARNING   AP50 is 0.0010 after 400 steps: this run is learning nothing"),
    ],
)
def test_a_line_an_epoch_and_advice(changes: dict[str, Any], words: str) -> None:
    lines: list[str] = []
    recipe = SimpleNamespace(epochs=10, lr=1e-4)
    plan = SimpleNamespace(recipe=recipe, workers=3, steps=100, images_per_rank=16)
    run: Any = SimpleNamespace(
        plan=plan,
        step=SimpleNamespace(part=4),
        progress=SimpleNamespace(step=7, epoch=2),
        number=400,
    )
    logger = LineLogger(lines.append)
    logger.start(run)
    logger.step(run, StepResult({"loss": 1.0}, 1.0, False, 4))
    assert len(lines) == 1
    logger.epoch(run, {**ROW, **changes})
    assert words in "\n".join(lines)
