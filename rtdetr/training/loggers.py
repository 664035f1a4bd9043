# SPDX-License-Identifier: Apache-2.0
"""Where the numbers of a run go: files in its folder, and services; each is a callback."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TextIO

from ..errors import MissingExtraError
from ..files import atomic_write, exists, naming
from .callbacks import Callback, Run
from .history import EpochRow
from .optional import OptionalCallback
from .step import StepResult

__all__ = [
    "CsvLogger",
    "JsonLinesLogger",
    "LineLogger",
    "MLflowLogger",
    "TensorBoardLogger",
    "WandbLogger",
    "make_loggers",
]

RESULTS, STEPS = "results.csv", "log.jsonl"
WAITING_TOO_LONG = 0.2
"""Share of an epoch."""

LEARNS_NOTHING, ENOUGH_STEPS = 0.01, 300
"""AP50 after a fifth of the epochs, and at least so many steps."""


class CsvLogger(Callback):
    """``results.csv``: a row for each epoch, written anew each time, so that a run that goes on has each once."""

    def epoch(self, run: Run, row: EpochRow) -> None:
        rows = run.progress.rows
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, list(rows[-1]), extrasaction="ignore", restval="")
        writer.writeheader()
        writer.writerows(rows)
        with atomic_write(run.folder / RESULTS) as path:
            path.write_text(text.getvalue(), encoding="utf-8", newline="")


class JsonLinesLogger(Callback):
    """``log.jsonl``: a line for each step, with every term of the loss."""

    def __init__(self) -> None:
        self._file: TextIO | None = None

    def start(self, run: Run) -> None:
        path = run.folder / STEPS
        kept = _lines_before(path, run.number)
        with atomic_write(path) as temporary:
            temporary.write_text("".join(kept), encoding="utf-8")
        self._file = path.open("a", encoding="utf-8")

    def step(self, run: Run, result: StepResult) -> None:
        assert self._file is not None
        values = {
            "step": run.number - 1,
            "epoch": run.progress.epoch + 1,
            "lr": run.step.optimizer.param_groups[0]["lr"],
            "skipped": result.skipped,
            "batch": result.part,
            **_finite({**result.losses, "gradient_norm": result.gradient_norm}),
        }
        with naming(run.folder / STEPS):
            self._file.write(json.dumps(values, allow_nan=False) + "\n")
            self._file.flush()

    def end(self, run: Run) -> None:
        file, self._file = self._file, None
        if file is not None:
            with naming(Path(file.name)):
                file.close()  # which writes what a full disk has refused once more


class LineLogger(Callback):
    """One line an epoch, and what is worth saying between them.

    Args:
        say: takes each line.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self._part = 0
        self._has_advised = self._has_looked = False

    def start(self, run: Run) -> None:
        self._part = run.step.part
        self.say(
            f"{'epoch':>9}  {'time':>7}  {'memory':>7}  {'loss':>7}  {'box':>6}  {'class':>6} |"
            f"  {'AP':>6}  {'AP50':>6}  {'AP75':>6}  best"
        )

    def step(self, run: Run, result: StepResult) -> None:
        if result.part != self._part:
            accum = -(-run.plan.images_per_rank // result.part)
            self.say(
                f"          out of memory: {result.part} images at once from here on, {accum} times a step; the step "
                "was repeated"
            )
            self._part = result.part
        if result.skipped:
            self.say(
                f"          step {run.progress.step:,}: loss or gradient not finite, passed over"
            )

    def epoch(self, run: Run, row: EpochRow) -> None:
        minutes, seconds = divmod(round((row["seconds"] or 0) + (row["evaluation"] or 0)), 60)
        cells = (
            f"{row['epoch']}/{run.plan.recipe.epochs}".rjust(9),
            f"{minutes}:{seconds:02}".rjust(7),
            f"{row['memory']:.1f}G".rjust(7),
            _number(row["loss"], 7, 3),
            _number(row["loss_bbox"], 6, 3),
            _number(row["loss_vfl"], 6, 3) + " |",
            *(_number(row.get(name), 6, 3) for name in ("ap", "ap50", "ap75")),
            "*" if row["best"] else "",
        )
        self.say("  ".join(cells).rstrip())
        self._advise(run, row)

    def _advise(self, run: Run, row: EpochRow) -> None:
        waiting = row["waiting"] or 0
        if waiting > WAITING_TOO_LONG and not self._has_advised:
            self._has_advised = True
            self.say(
                f"          {waiting:.0%} of the time was waiting for images: more workers (now "
                f"{run.plan.workers}), or smaller files"
            )
        is_time = run.progress.epoch * 5 >= run.plan.recipe.epochs and run.number >= ENOUGH_STEPS
        if is_time and not self._has_looked:
            self._has_looked = True
            self._warn_of_nothing(run, row.get("ap50"))

    def _warn_of_nothing(self, run: Run, ap50: float | None) -> None:
        if ap50 is not None and ap50 < LEARNS_NOTHING:
            self.say(
                f"WARNING   AP50 is {ap50:.4f} after {run.number:,} steps: this run is learning nothing. The usual "
                "causes: boxes or classes that are not what the images show (look at train_batch.jpg), a learning "
                f"rate that is too high or too low (now {run.plan.recipe.lr:.3g}), too few steps (now "
                f"{run.plan.steps:,}; with random weights, --no-augment needs fewer)"
            )


class TensorBoardLogger(Callback):
    """Event files in ``tensorboard/``.

    Raises:
        MissingExtraError: tensorboard is not installed.
    """

    def __init__(self) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingExtraError(
                "--loggers tensorboard", "tensorboard", "tensorboard"
            ) from error
        self._open = SummaryWriter
        self._writer: Any = None

    def start(self, run: Run) -> None:
        self._writer = self._open(str(run.folder / "tensorboard"), purge_step=run.number)

    def step(self, run: Run, result: StepResult) -> None:
        for name, value in result.losses.items():
            self._writer.add_scalar(f"train/{name}", value, run.number - 1)

    def epoch(self, run: Run, row: EpochRow) -> None:
        for name, value in row.items():
            if value is not None:
                self._writer.add_scalar(f"epoch/{name}", value, run.number - 1)

    def end(self, run: Run) -> None:
        self._writer.close()


class WandbLogger(Callback):
    """A run of Weights & Biases.

    Raises:
        MissingExtraError: wandb is not installed.
    """

    def __init__(self) -> None:
        self._wandb = _import("wandb")
        self._run: Any = None

    def start(self, run: Run) -> None:
        folder = run.folder.resolve()
        self._run = self._wandb.init(
            project="rtdetr",
            name=folder.name,
            dir=str(folder),
            config=run.constants["options"],
            resume="allow",
            id=_identity(folder),
        )

    def epoch(self, run: Run, row: EpochRow) -> None:
        self._run.log({k: v for k, v in row.items() if v is not None}, step=run.number)

    def end(self, run: Run) -> None:
        self._run.finish()


class MLflowLogger(Callback):
    """A run of MLflow.

    Raises:
        MissingExtraError: mlflow is not installed.
    """

    def __init__(self) -> None:
        self._mlflow = _import("mlflow")

    def start(self, run: Run) -> None:
        self._mlflow.start_run(run_name=run.folder.resolve().name)
        self._mlflow.log_params(run.constants["options"])

    def epoch(self, run: Run, row: EpochRow) -> None:
        numbers = {name: value for name, value in row.items() if value is not None}
        self._mlflow.log_metrics(numbers, step=run.number)

    def end(self, run: Run) -> None:
        self._mlflow.end_run()


LOGGERS: Mapping[str, Callable[[], Callback]] = {
    "tensorboard": TensorBoardLogger,
    "wandb": WandbLogger,
    "mlflow": MLflowLogger,
}


def make_loggers(names: Iterable[str]) -> list[Callback]:
    """Those of every run, and those that a user asks for, which a run can do without.

    Raises:
        MissingExtraError: a package is not installed.
    """
    services = [OptionalCallback(LOGGERS[name](), f"--loggers {name}") for name in names]
    return [CsvLogger(), JsonLinesLogger(), *services]


def _import(name: str) -> Any:
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError as error:
        raise MissingExtraError(f"--loggers {name}", name, name) from error


def _identity(folder: Path) -> str:
    """The same for a run that goes on."""
    import hashlib

    return hashlib.sha256(str(folder).encode(errors="replace")).hexdigest()[:16]


def _lines_before(path: Path, step: int) -> list[str]:
    """The lines of a log that is there already, up to a step; a kill may have cut its last one."""
    if not exists(path):
        return []
    lines = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True):
        try:
            if json.loads(line)["step"] >= step:
                break
        except (ValueError, KeyError, TypeError):
            break
        lines.append(line)
    return lines


def _finite(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: value if abs(value) < float("inf") else None for name, value in values.items()}


def _number(value: float | None, width: int, digits: int) -> str:
    return ("-" if value is None else f"{value:.{digits}f}").rjust(width)
