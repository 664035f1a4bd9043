# SPDX-License-Identifier: Apache-2.0
"""``rtdetr train``: train a detector on a data set, or go on with a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import DataError, UsageError, did_you_mean
from .arguments import (
    OUTPUT,
    RUNTIME,
    complete_model,
    named_as_typed,
    not_empty,
    parse_imgsz,
    parse_list,
)
from .console import say, say_above_bar
from .reading import READING, takes_read_options, with_flags

if TYPE_CHECKING:
    from ..training.trainer import Trainer, TrainResult

NAME = "train"
RECIPE, RESUME = "Recipe", "Going on"


def _option(text: str, panel: str, *flags: str, default: str | None = None) -> Any:
    return typer.Option(*flags, help=text, rich_help_panel=panel, show_default=default or False)


@takes_read_options("queries", "imgsz", "seed", unset=True)
def command(
    data: Annotated[
        str | None,
        typer.Argument(
            metavar="DATA",
            help="A folder in COCO's, YOLO's, Roboflow's or Pascal VOC's layout, a data.yaml, or a COCO json; with "
            "--resume the folder of a run.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="What to start from: a published model (see: rtdetr models), a directory, hub repository or "
            "checkpoint.",
            callback=not_empty,
            autocompletion=complete_model,
            show_default="rtdetrv2_r18vd",
        ),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Passes over the data.", show_default="50")
    ] = None,
    imgsz: Annotated[
        str | None,
        typer.Option(help="Size of the input: 640, or height,width.", show_default="the model's"),
    ] = None,
    batch: Annotated[
        str | None,
        typer.Option(help="Images at once on a device, or auto.", show_default="auto"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the run; a number is added where it exists.",
            rich_help_panel=OUTPUT,
            show_default="runs/train",
        ),
    ] = None,
    weights: Annotated[
        str | None,
        _option("Other weights, or none for random ones.", RECIPE, default="the model's"),
    ] = None,
    recipe: Annotated[
        str | None,
        _option("finetune, or paper for the published numbers.", RECIPE, default="finetune"),
    ] = None,
    accum: Annotated[
        str | None,
        _option("Batches in a step, or auto for 16 images together.", RECIPE, default="auto"),
    ] = None,
    lr: Annotated[float | None, _option("Learning rate.", RECIPE, default="the recipe's")] = None,
    backbone_lr: Annotated[
        float | None, _option("Of the backbone.", RECIPE, default="its share of lr")
    ] = None,
    multi_scale: Annotated[
        bool | None,
        _option(
            "Images of another size in each step.",
            RECIPE,
            "--multi-scale/--no-multi-scale",
            default="the recipe's",
        ),
    ] = None,
    freeze: Annotated[
        str | None,
        _option("What does not train: backbone, encoder, decoder, or names of modules.", RECIPE),
    ] = None,
    queries: Annotated[
        int | None,
        _option("Objects that can be found in an image.", RECIPE, default="the model's"),
    ] = None,
    augment: Annotated[
        bool | None,
        _option(
            "Change light, color and window at random; a run of few steps learns sooner without.",
            RECIPE,
            "--augment/--no-augment",
            default="augment",
        ),
    ] = None,
    flip: Annotated[
        bool | None,
        _option(
            "Mirror images at random; not for letters, or where left and right matter.",
            RECIPE,
            "--flip/--no-flip",
            default="flip",
        ),
    ] = None,
    balance: Annotated[
        bool | None, _option("Show images of rare classes more often.", RECIPE, "--balance")
    ] = None,
    patience: Annotated[
        int | None,
        _option("Stop after so many epochs without a better AP.", RECIPE, default="never"),
    ] = None,
    seed: Annotated[int | None, _option("Of every random number.", RECIPE, default="0")] = None,
    config: Annotated[
        Path | None, _option("Options from a YAML file; flags come before it.", RECIPE)
    ] = None,
    skip_broken: Annotated[
        bool | None,
        _option("Take the next image where one cannot be read.", READING, "--skip-broken"),
    ] = None,
    strict: Annotated[
        bool, _option("Take warnings about the data for errors.", READING, "--strict")
    ] = False,
    device: Annotated[
        str | None, _option("auto, cpu, cuda, cuda:1, 1 or mps.", RUNTIME, default="auto")
    ] = None,
    devices: Annotated[str | None, _option("Train on several at once: 0,1.", RUNTIME)] = None,
    workers: Annotated[
        int | None, _option("Processes that read images.", RUNTIME, default="free cores")
    ] = None,
    amp: Annotated[str | None, _option("auto, bf16, fp16 or off.", RUNTIME, default="auto")] = None,
    deterministic: Annotated[
        bool | None,
        _option("The same bits from each run on a GPU too.", RUNTIME, "--deterministic"),
    ] = None,
    loggers: Annotated[str | None, _option("tensorboard, wandb, mlflow.", OUTPUT)] = None,
    plots: Annotated[
        bool | None,
        _option("Draw curves and samples.", OUTPUT, "--plots/--no-plots", default="plots"),
    ] = None,
    save_every: Annotated[
        float | None,
        _option("Minutes between checkpoints inside an epoch.", OUTPUT, default="10"),
    ] = None,
    dry_run: Annotated[
        bool, _option("Check and say everything, train nothing.", RUNTIME, "--dry-run")
    ] = False,
    resume: Annotated[
        bool,
        _option(
            "Go on with the run in the folder DATA, or with the newest of --out.",
            RESUME,
            "--resume",
        ),
    ] = False,
    data_option: Annotated[
        str | None,
        _option(
            "Where the data are, if they have moved since the run began.",
            RESUME,
            "--data",
            default="where they were",
        ),
    ] = None,
    resume_anyway: Annotated[
        bool,
        _option("The same, though data or recipe have changed.", RESUME, "--resume-anyway"),
    ] = False,
    replay: Annotated[
        Path | None,
        _option("Say where the numbers of a failed step stopped being finite.", RESUME),
    ] = None,
    *,
    reading: dict[str, Any],
) -> None:
    """Train a detector on a folder of annotated images.

    A run leaves best.safetensors for predict and val, last.ckpt to go on from, results.csv, and plots.
    """
    if replay is not None:
        _replay(replay)
        return
    given: dict[str, Any] = {
        "model": model,
        "weights": weights,
        "epochs": epochs,
        "recipe": recipe,
        "imgsz": parse_imgsz(imgsz),
        "multi_scale": multi_scale,
        "batch": _whole("--batch", batch),
        "accum": _whole("--accum", accum),
        "lr": lr,
        "backbone_lr": backbone_lr,
        "freeze": parse_list("--freeze", freeze),
        "queries": queries,
        "augment": augment,
        "flip": flip,
        "balance": balance,
        "patience": patience,
        "seed": seed,
        "device": device,
        "workers": workers,
        "amp": amp,
        "deterministic": deterministic,
        "out": out,
        "save_every": save_every,
        "plots": plots,
        "loggers": parse_list("--loggers", loggers),
        "skip_broken": skip_broken,
        **reading,
    }
    words = {name: value for name, value in given.items() if value is not None}
    if words.get("weights") == "none":
        words["weights"] = None
    file = {} if config is None else _read_config(config)
    words = {**file, **words}
    in_file = words.pop("data", None)
    goes_on = resume or resume_anyway
    if data_option is not None and data is not None and not goes_on:
        raise UsageError(f"--data: expected it with --resume alone, DATA is {data}")
    from .steps_bar import StepsBar

    common = {"strict": strict, "dry_run": dry_run, "say": _say, "callbacks": [StepsBar()]}
    with _in_the_words_of_the_command():
        place = data_option or in_file
        if goes_on:
            trainer = _resume(data, data=place, anyway=resume_anyway, **common, **words)
        else:
            place = data or place
            trainer = _begin(place, **common, **words)
        result = trainer.train(devices)
    if not dry_run:
        _say_result(result, place)


@contextmanager
def _in_the_words_of_the_command() -> Iterator[None]:
    """Errors name flags, not the options of Python."""
    from ..training.options import known_words

    try:
        with named_as_typed(known_words()):
            yield
    except (DataError, UsageError) as error:
        raise type(error)(with_flags(str(error))) from error


def _say(text: str) -> None:
    say_above_bar(with_flags(text))


def _begin(data: str | None, **words: Any) -> Trainer:
    from ..training.trainer import Trainer

    if data is None:
        raise UsageError(
            "DATA: expected a folder of annotated images, or --resume with that of a run"
        )
    return Trainer(data, **words)


def _resume(folder: str | None, **words: Any) -> Trainer:
    from ..training.options import TrainOptions
    from ..training.run_folder import find_newest_run
    from ..training.trainer import Trainer

    out = words.pop("out", TrainOptions().out)
    return Trainer.resume(folder or find_newest_run(out), **words)


def _replay(path: Path) -> None:
    from ..training.replay import replay

    for line in replay(path).lines():
        say(line)


def _whole(flag: str, text: str | None) -> int | None:
    """A number; None for "auto"."""
    if text is None or text == "auto":
        return None
    try:
        return int(text)
    except ValueError:
        raise UsageError(f'{flag}: expected a whole number or auto, got "{text}"') from None


def _read_config(path: Path) -> dict[str, Any]:
    """Options by name.

    Raises:
        UsageError: the file is no table of options, or a name in it is unknown; it names the line.
    """
    from ..training.options import known_words
    from ..training.run_folder import read_config

    values, lines = read_config(path)
    known = {*known_words(), "data"}
    for name in values:
        if name not in known:
            hint = did_you_mean(str(name), known)
            raise UsageError(f'{path} line {lines[name]}: unknown key "{name}".{hint}')
    return values


def _say_result(result: TrainResult, data: str | None) -> None:
    from ..data.findings import number

    best = "" if result.ap is None else f"   best AP {result.ap:.3f} (epoch {result.epoch})"
    say(f"done    {number(len(result.rows), 'epoch')}{best}")
    say(f"        {result.folder}: {', '.join(sorted(p.name for p in result.folder.iterdir()))}")
    say(f"next    rtdetr predict IMAGE --model {result.best}")
    say(f"        rtdetr val {data or 'DATA'} --model {result.best}")
