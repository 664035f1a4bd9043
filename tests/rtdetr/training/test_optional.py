# SPDX-License-Identifier: Apache-2.0
"""What fails beside the training does not end it, and a user's callback that fails ends it in order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from runs import At, make_trainer, prepare

from rtdetr.training import artifacts, loggers
from rtdetr.training.callbacks import Callback


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("optional")
    prepare(path)
    return path


def fail(*_: Any, **__: Any) -> None:
    raise RuntimeError("no font\nat all")


@pytest.mark.parametrize(
    ("function", "file"),
    [
        ("plot_labels", "labels.jpg"),
        ("draw_batch", "train_batch.jpg"),
        ("plot_history", "curves.png"),
        ("plot_precision_recall", "pr.png"),
        ("plot_confusion", "confusion.png"),
        ("draw_samples", "val_samples.jpg"),
    ],
)
def test_a_plot_that_fails_is_a_warning(
    function: str, file: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifacts, function, fail)
    with pytest.warns(UserWarning, match=rf"{file} failed.*RuntimeError: no font at all"):
        result = make_trainer(folder, out=str(tmp_path / "run"), epochs=1, plots=True).train()
    assert result.best.exists()
    assert not (result.folder / file).exists()
    assert {"labels.jpg", "curves.png", "pr.png"} - {file} <= {
        path.name for path in result.folder.iterdir()
    }


@pytest.mark.parametrize("moment", ["start", "step", "epoch", "end"])
def test_a_service_that_fails_is_a_warning(
    moment: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    class Service(Callback):
        def end(self, run: Any) -> None:
            calls.append("end")

    monkeypatch.setattr(Service, moment, fail)
    monkeypatch.setattr(loggers, "LOGGERS", {"mlflow": Service})
    trainer = make_trainer(folder, out=str(tmp_path / "run"), epochs=1, loggers=["mlflow"])
    with pytest.warns(UserWarning, match="--loggers mlflow failed"):
        result = trainer.train()
    assert result.best.exists()
    assert calls == (["end"] if moment in ("step", "epoch") else [])


def test_the_error_that_ends_a_run_is_the_one_that_comes_out(folder: Path, tmp_path: Path) -> None:
    ends = []

    class FailsAtTheEnd(Callback):
        def end(self, run: Any) -> None:
            ends.append("first")
            fail()

    class Ends(Callback):
        def end(self, run: Any) -> None:
            ends.append("second")

    def interfere(_: Any) -> None:
        raise KeyError("mine")

    out = str(tmp_path / "run")
    callbacks = [At(1, interfere), FailsAtTheEnd(), Ends()]
    with pytest.warns(UserWarning, match="no font"), pytest.raises(KeyError, match="mine"):
        make_trainer(folder, out=out, callbacks=callbacks).train()
    assert ends == ["first", "second"]
    with pytest.raises(RuntimeError, match="no font"):  # nothing else went wrong
        make_trainer(folder, out=out, epochs=1, callbacks=callbacks[1:]).train()


def test_a_run_that_is_stopped_at_its_start_leaves_a_model(folder: Path, tmp_path: Path) -> None:
    class Stops(Callback):
        def start(self, run: Any) -> None:
            run.stop()

    result = make_trainer(folder, out=str(tmp_path / "run"), callbacks=[Stops()]).train()
    assert len(result.rows) == 1
    assert result.best.exists()
