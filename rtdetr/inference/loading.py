# SPDX-License-Identifier: Apache-2.0
"""From the word by which a user means a model to the model and what belongs to it."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from ..config import RTDetrV2Config
from ..config.presets import Preset
from ..errors import ModelError, UsageError
from ..hub import PREPROCESSOR, HubOptions, ModelFiles, model_files, read_settings
from ..model import RTDetrV2ForObjectDetection
from ..processing.image_processor import RTDetrImageProcessor
from ..weights.locate import locate

__all__ = ["LoadedDetector", "load_detector", "read_config", "read_processor"]


@dataclass(frozen=True)
class LoadedDetector:
    """A model and what belongs to it."""

    model: RTDetrV2ForObjectDetection
    processor: RTDetrImageProcessor
    title: str
    is_random: bool


def load_detector(
    source: str | Path,
    *,
    config: RTDetrV2Config | str | Path | None = None,
    weights: str | Path | None = "auto",
    processor: RTDetrImageProcessor | None = None,
    options: HubOptions | None = None,
) -> LoadedDetector:
    """The model that ``source`` names; see :class:`rtdetr.RTDETR` for the arguments.

    Raises:
        ModelError: if there is no such model, it cannot be downloaded, or a checkpoint does not fit.
        UsageError: if an argument has a wrong type.
    """
    _check_kinds(source=source, config=config, weights=weights, processor=processor)
    options = options or HubOptions()
    # Beside a configuration and weights of their own, the source is a title.
    is_title = config is not None and weights != "auto"
    place = model_files(source, options) if is_title else locate(source, options)
    if isinstance(config, str | Path):
        config = read_config(locate(config, options.without_revision()))
    if config is None and weights != "auto":
        assert place is not None
        config = read_config(place)
    if weights is None:
        assert config is not None
        model = RTDetrV2ForObjectDetection(config)
    elif weights == "auto":
        model = _from_pretrained(source, config, options)
    else:
        model = _from_pretrained(weights, config, options.without_revision())
    title = place.name if isinstance(place, Preset) else str(source)
    return LoadedDetector(model, processor or read_processor(place), title, weights is None)


def read_config(place: Preset | ModelFiles) -> RTDetrV2Config:
    """The configuration of a published model, or the one that lies with the files of a model.

    Raises:
        ModelError: there is none, or it is not one of this kind of model.
    """
    if isinstance(place, Preset):
        return RTDetrV2Config.from_preset(place)
    try:
        return RTDetrV2Config.from_files(place)
    except (OSError, ValueError) as error:
        raise _as_model_error(place.title, error) from error


def read_processor(place: Preset | ModelFiles | None) -> RTDetrImageProcessor:
    """The preprocessing that comes with the files of a model; 640x640, as all published models have it, without one.

    Raises:
        ModelError: the hub cannot be reached: whether it has one is not known then.
    """
    if place is None or isinstance(place, Preset):
        return RTDetrImageProcessor()
    settings = read_settings(place, PREPROCESSOR)
    if settings is None:
        return RTDetrImageProcessor()
    return RTDetrImageProcessor.from_settings(settings)


_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "source": ((str, PathLike), "a name or a path"),
    "config": ((type(None), str, PathLike, RTDetrV2Config), "an RTDetrV2Config, a name or a path"),
    "weights": ((type(None), str, PathLike), "a path, a name on the hub, or None"),
    "processor": ((type(None), RTDetrImageProcessor), "an RTDetrImageProcessor"),
}


def _check_kinds(**arguments: object) -> None:
    for name, value in arguments.items():
        kinds, expected = _KINDS[name]
        if not isinstance(value, kinds):
            raise UsageError(f"{name}: expected {expected}, got {type(value).__name__}")


def _from_pretrained(
    source: str | Path, config: RTDetrV2Config | None, options: HubOptions
) -> RTDetrV2ForObjectDetection:
    try:
        model: RTDetrV2ForObjectDetection = RTDetrV2ForObjectDetection.from_pretrained(
            source, config=config, **vars(options)
        )
    except (OSError, ValueError) as error:
        raise _as_model_error(str(source), error) from error
    return model


def _as_model_error(title: str, error: Exception) -> ModelError:
    if isinstance(error, ModelError):
        return error
    text = " ".join(str(error).split())
    return ModelError(text if title in text else f"{title}: {text}")
