# SPDX-License-Identifier: Apache-2.0
"""What a user decides about a training run: declared once, for Python, the command and config.yaml."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypedDict

from ..checking import as_number, hints_at_fields
from ..data import ReadOptions
from ..errors import UsageError, did_you_mean
from ..inference.options import ImageSize, check_flag, check_imgsz, check_whole

__all__ = [
    "DEFAULT_SIZE",
    "HINTS",
    "RECIPE_FIELDS",
    "TrainOptions",
    "TrainWords",
    "known_words",
    "split_words",
]

AMP = ("auto", "bf16", "fp16", "off")
LOGGERS = ("tensorboard", "wandb", "mlflow")
RECIPES = ("finetune", "paper")

DEFAULT_SIZE = (640, 640)
"""(height, width) of the published models."""

HINTS = MappingProxyType(
    {
        "batch_size": 'Did you mean "batch"?',
        "learning_rate": 'Did you mean "lr"?',
        "lr0": 'Did you mean "lr"?',
        "num_classes": "The classes are those of the data.",
        "nc": "The classes are those of the data.",
        "project": 'Did you mean "out"?',
        "name": 'Did you mean "out"?',
        "pretrained": 'Did you mean "weights"?',
        "optimizer": "It is AdamW, as published.",
        "num_workers": 'Did you mean "workers"?',
        "early_stopping": 'Did you mean "patience"?',
    }
)
"""What to answer to words of other trainers that no option here is near."""


class TrainWords(TypedDict, total=False):
    """The fields of :class:`TrainOptions`, and of :class:`~rtdetr.data.ReadOptions`, as keyword arguments."""

    model: str | Path
    weights: str | Path | None
    epochs: int | None
    recipe: str
    imgsz: ImageSize | None
    multi_scale: bool | None
    batch: int | None
    accum: int | None
    lr: float | None
    backbone_lr: float | None
    freeze: Iterable[str]
    queries: int | None
    augment: bool
    flip: bool
    balance: bool
    patience: int
    seed: int
    device: str
    workers: int | None
    amp: str
    deterministic: bool
    out: str | Path
    save_every: float
    plots: bool
    loggers: Iterable[str]
    skip_broken: bool
    ignore_unknown_classes: bool
    skip_missing: bool
    drop_bad_boxes: bool
    no_empty: bool
    val_fraction: float
    decode: bool


@hints_at_fields
@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """How to train.

    Args:
        model: what to start from: a published model, a directory or hub repository, or a checkpoint.
        weights: other weights for the model that ``model`` names; None begins with random ones.
        epochs: passes over the data; None for 50, or the published number with ``recipe="paper"``.
        recipe: "finetune" fits warm-up, average and schedule to the length of the run; "paper" trains as published.
        imgsz: side of the square input, or (height, width); multiples of 32. None for the size of ``model``.
        multi_scale: whether each step has a size of its own; None as the recipe says.
        batch: images whose gradients are computed at once on each device; None for what fits into memory, at most 4 on
            a CPU.
        accum: such batches in a step; None for as many as make the recipe's 16 images, over all devices.
        lr: learning rate; None for the recipe's, times the root of images of a step over the recipe's 16 (tiny: 8).
        backbone_lr: of the backbone; None keeps its share of ``lr``.
        freeze: what does not train: "backbone", "encoder", "decoder", or the name of a module.
        queries: objects that can be found in an image; None as the model has it.
        augment: whether light, color, canvas and window change at random; not where color tells classes apart, or
            in a run of few steps. ``transforms`` come in the place of this and of ``flip``.
        flip: whether images may be mirrored; not where left and right or letters matter.
        balance: show images of rare classes more often.
        patience: stop after so many epochs without a better AP; 0 for never.
        seed: of every random number.
        device: "auto", "cpu", "cuda", "cuda:1", 1 or "mps".
        workers: processes that read images; None for as many as there are free cores, at most 8.
        amp: "bf16" or "fp16" computes in 16 bits where that is safe; "auto" does on GPUs, "off" nowhere.
        deterministic: the same bits on a GPU too, a little slower; a CPU always has them.
        out: folder of the run; a number is added where it exists.
        save_every: minutes between checkpoints inside an epoch.
        plots: whether to draw curves and samples.
        loggers: further places for numbers: "tensorboard", "wandb", "mlflow".
        skip_broken: take the next image where one cannot be read.

    Raises:
        UsageError: naming the option that has a wrong value.
        TypeError: for an unknown option, with the nearest known one.
    """

    model: str | Path = "rtdetrv2_r18vd"
    weights: str | Path | None = "auto"
    epochs: int | None = None
    recipe: str = "finetune"
    imgsz: ImageSize | None = None
    multi_scale: bool | None = None
    batch: int | None = None
    accum: int | None = None
    lr: float | None = None
    backbone_lr: float | None = None
    freeze: Iterable[str] = ()
    queries: int | None = None
    augment: bool = True
    flip: bool = True
    balance: bool = False
    patience: int = 0
    seed: int = 0
    device: str = "auto"
    workers: int | None = None
    amp: str = "auto"
    deterministic: bool = False
    out: str | Path = "runs/train"
    save_every: float = 10.0
    plots: bool = True
    loggers: Iterable[str] = ()
    skip_broken: bool = False

    def __post_init__(self) -> None:
        for name, checked in _CHECKS.items():
            object.__setattr__(self, name, checked(name, getattr(self, name)))

    @property
    def size(self) -> tuple[int, int] | None:
        """(height, width) of the input; None for that of the model."""
        return None if self.imgsz is None else check_imgsz(self.imgsz)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as config.yaml and checkpoints have them."""
        return {name: _plain(value) for name, value in vars(self).items()}


RECIPE_FIELDS = frozenset(
    {
        *("model", "weights", "recipe", "imgsz", "multi_scale", "batch", "accum", "lr"),
        *("backbone_lr", "freeze", "queries", "augment", "flip", "balance", "seed", "amp"),
        "skip_broken",
    }
)
"""What decides the weights that come out; a run goes on with the same ones. The rest may change on the way."""


def known_words() -> frozenset[str]:
    """The names of all options, of training and of reading data."""
    return _names_of(TrainOptions) | _names_of(ReadOptions)


def split_words(words: Mapping[str, Any]) -> tuple[TrainOptions, ReadOptions]:
    """The options of training and of reading data behind words; ``seed``, ``queries`` and ``imgsz`` concern both.

    Raises:
        UsageError: for a wrong value.
        TypeError: for an unknown word, with the nearest known one.
    """
    training, known = _names_of(TrainOptions), known_words()
    for word in words:
        if word not in known:
            hint = f" {HINTS[word]}" if word in HINTS else did_you_mean(word, known)
            raise TypeError(f"training has no option {word!r}.{hint}")
    options = TrainOptions(**{name: value for name, value in words.items() if name in training})
    shared: dict[str, Any] = {"seed": options.seed, "imgsz": min(options.size or DEFAULT_SIZE)}
    if options.queries is not None:
        shared["queries"] = options.queries
    own = {name: value for name, value in words.items() if name not in training}
    return options, ReadOptions(**own, **shared)


def _names_of(options: type[TrainOptions] | type[ReadOptions]) -> frozenset[str]:
    return frozenset(field.name for field in dataclasses.fields(options))


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, os.PathLike) else value


def _optional(check: Callable[[str, Any], Any]) -> Callable[[str, Any], Any]:
    return lambda name, value: None if value is None else check(name, value)


def _one_of(*choices: str) -> Callable[[str, Any], str]:
    def check(name: str, value: Any) -> str:
        if not (isinstance(value, str) and value in choices):
            hint = did_you_mean(value, choices) if isinstance(value, str) else ""
            raise UsageError(f"{name}: expected {', '.join(choices)}, got {value!r}.{hint}")
        return str(value)

    return check


def _words(known: tuple[str, ...] = ()) -> Callable[[str, Any], tuple[str, ...]]:
    def check(name: str, value: Any) -> tuple[str, ...]:
        is_text = isinstance(value, str | bytes)
        # A tensor of no axes has an __iter__ that raises.
        is_list = isinstance(value, Iterable) and not is_text and getattr(value, "ndim", 1) == 1
        words = tuple(value) if is_list else (None,)
        for word in words:
            if not isinstance(word, str):
                raise UsageError(f"{name}: expected a list of words, got {value!r}")
            if known and word not in known:
                hint = did_you_mean(word, known)
                raise UsageError(f"{name}: expected {', '.join(known)}, got {word!r}.{hint}")
        return words

    return check


def _positive(name: str, value: Any) -> float:
    number = as_number(value)
    if number is None or not 0 < number < float("inf"):
        raise UsageError(f"{name}: expected a number above 0, got {value!r}")
    return number


def _not_negative(name: str, value: Any) -> int:
    return check_whole(name, value, 0)


def _size(name: str, value: Any) -> ImageSize:
    height, width = check_imgsz(value, name)
    return height if height == width else (height, width)


def _source(name: str, value: Any) -> str | Path:
    if not isinstance(value, str | os.PathLike) or str(value) == "":
        raise UsageError(f"{name}: expected a name or a path, got {value!r}")
    return value if isinstance(value, str) else Path(value)


def _device(name: str, value: Any) -> str:
    return str(value)


_CHECKS: Mapping[str, Callable[[str, Any], Any]] = {
    "model": _source,
    "weights": _optional(_source),
    "epochs": _optional(check_whole),
    "recipe": _one_of(*RECIPES),
    "imgsz": _optional(_size),
    "multi_scale": _optional(check_flag),
    "batch": _optional(check_whole),
    "accum": _optional(check_whole),
    "lr": _optional(_positive),
    "backbone_lr": _optional(_positive),
    "freeze": _words(),
    "queries": _optional(check_whole),
    "augment": check_flag,
    "flip": check_flag,
    "balance": check_flag,
    "patience": _not_negative,
    "seed": _not_negative,
    "device": _device,
    "workers": _optional(_not_negative),
    "amp": _one_of(*AMP),
    "deterministic": check_flag,
    "out": _source,
    "save_every": _positive,
    "plots": check_flag,
    "loggers": _words(LOGGERS),
    "skip_broken": check_flag,
}
