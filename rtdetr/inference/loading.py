# SPDX-License-Identifier: Apache-2.0
"""From the word by which a user means a model to the model and what belongs to it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..config import RTDetrV2Config
from ..config.presets import Preset, find_preset
from ..errors import ModelError
from ..model import RTDetrV2ForObjectDetection
from ..processing.image_processor import FILE_NAME, RTDetrImageProcessor

WEIGHT_SUFFIXES = frozenset({".pth", ".pt", ".bin", ".safetensors"})


@dataclass(frozen=True)
class Loaded:
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
) -> Loaded:
    """The model that ``source`` names; see ``RTDETR`` for the arguments.

    Raises:
        ModelError: if there is no such model, it cannot be downloaded, or a checkpoint does not fit.
    """
    if isinstance(config, str | Path):
        config = find_config(config)
    if weights is None:
        made = config or find_config(source)
        model = RTDetrV2ForObjectDetection(made)
    elif weights == "auto":
        model = _from_pretrained(source, config)
    else:
        model = _from_pretrained(weights, config or find_config(source))
    return Loaded(model, find_processor(source), title_of(source), weights is None)


def preset_of(source: str | Path) -> Preset | None:
    """The published model of that name, unless a file or folder has it."""
    if is_file_like(source):
        return None
    try:
        return find_preset(str(source))
    except ModelError:
        return None


def is_file_like(source: str | Path) -> bool:
    """Whether ``source`` is meant as something on this machine."""
    path = Path(source)
    return isinstance(source, Path) or path.exists() or path.suffix in WEIGHT_SUFFIXES


def find_config(source: str | Path) -> RTDetrV2Config:
    """The configuration of a published model, a directory, or a hub repository.

    Raises:
        ModelError: if there is none; a wrong name is answered with the nearest.
    """
    if is_file_like(source) or _is_hub_name(source):
        try:
            return RTDetrV2Config.from_pretrained(source)
        except (OSError, ValueError) as error:
            raise _as_model_error(source, error) from error
    return find_preset(str(source)).config()


def find_processor(source: str | Path) -> RTDetrImageProcessor:
    """The preprocessing beside the weights; 640x640 where nothing is said, as all published models have it."""
    path = Path(source)
    folder = path.parent if path.is_file() else path
    if (folder / FILE_NAME).is_file():
        return RTDetrImageProcessor.from_pretrained(folder)
    if is_file_like(source) or not _is_hub_name(source):
        return RTDetrImageProcessor()
    try:
        return RTDetrImageProcessor.from_pretrained(str(source))
    except ModelError:
        return RTDetrImageProcessor()


def title_of(source: str | Path) -> str:
    preset = preset_of(source)
    return preset.name if preset is not None else str(source)


def _from_pretrained(
    source: str | Path, config: RTDetrV2Config | None
) -> RTDetrV2ForObjectDetection:
    try:
        return RTDetrV2ForObjectDetection.from_pretrained(source, config=config)
    except (OSError, ValueError) as error:
        raise _as_model_error(source, error) from error


def _is_hub_name(source: str | Path) -> bool:
    owner, _, name = str(source).partition("/")
    return preset_of(source) is None and bool(owner and name) and "/" not in name


def _as_model_error(source: str | Path, error: Exception) -> ModelError:
    if isinstance(error, ModelError):
        return error
    text = " ".join(str(error).split())
    return ModelError(text if str(source) in text else f"{source}: {text}")
