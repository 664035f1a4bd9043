# SPDX-License-Identifier: Apache-2.0
"""From the word by which a user means a model to its files: a preset, or what :mod:`rtdetr.hub` finds."""

from __future__ import annotations

import urllib.error
from dataclasses import dataclass
from pathlib import Path

from ..config.presets import Preset, find_preset
from ..errors import ModelError
from ..hub import (
    CONFIG,
    OFFLINE,
    Checkpoint,
    HubOptions,
    ModelFiles,
    Repository,
    checkpoint_path,
    download_checkpoint,
    is_complete,
    model_files,
    read_json_object,
    read_metadata,
)

__all__ = ["WeightFiles", "locate", "weight_files"]

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""In order of preference."""


@dataclass(frozen=True, kw_only=True)
class WeightFiles:
    """The weights of one model on this machine.

    Args:
        title: as the user called it.
        files: the weights, in one or several parts.
        config: their config.json.
        preset: the published model that they are.
    """

    title: str
    files: tuple[Path, ...]
    config: Path | None = None
    preset: Preset | None = None


def locate(source: str | Path, options: HubOptions) -> Preset | ModelFiles:
    """What ``source`` means: the name of a preset, unless a folder or file of this machine has that name.

    Raises:
        ModelError: there is no such file, or no such preset; the message suggests the nearest.
    """
    return model_files(source, options) or find_preset(str(source))


def weight_files(place: Preset | ModelFiles, title: str, options: HubOptions) -> WeightFiles:
    """The weights of ``place``, downloaded where they are not here yet.

    Args:
        place: what :func:`locate` returned.
        title: the word that the user wrote, for the messages about a preset.
        options: for the weights of a preset.

    Raises:
        ModelError: there are no weights, or they cannot be downloaded.
    """
    if isinstance(place, Preset):
        return _of_preset(title, place, options)
    if isinstance(place, Checkpoint):
        # An original checkpoint is told from its shapes: a config.json beside it may be of another model.
        has_config = place.path.suffix in (".safetensors", ".bin")
        needs_config = has_config and not is_complete(read_metadata(place.path))
        config = place.file(CONFIG) if needs_config else None
        return WeightFiles(title=place.title, files=(place.path,), config=config)
    return _in_repository(place)


def _in_repository(place: ModelFiles) -> WeightFiles:
    config = place.file(CONFIG)
    for name in WEIGHTS:
        whole = place.file(name)
        if whole is not None:
            return WeightFiles(title=place.title, files=(whole,), config=config)
        index = place.file(f"{name}.index.json")
        if index is not None:
            return WeightFiles(title=place.title, files=_parts(index, place), config=config)
    raise ModelError(f"{place.title}: found neither {' nor '.join(WEIGHTS)}")


def _parts(index: Path, place: ModelFiles) -> tuple[Path, ...]:
    weight_map = read_json_object(index).get("weight_map")
    files = list(weight_map.values()) if isinstance(weight_map, dict) else []
    if not files or not all(isinstance(name, str) for name in files):
        raise ModelError(
            f"{index}: weight_map: expected a file for each weight, got {weight_map!r:.80}"
        )
    names = sorted(set(files))
    # A name in the index is a file beside it, never a path to elsewhere.
    parts = {name: place.file(name) for name in names if Path(name).name == name}
    missing = [name for name in names if parts.get(name) is None]
    if missing:
        raise ModelError(f"{place.title}: {index.name} names {missing[0]}, which is not there")
    return tuple(path for path in parts.values() if path is not None)


def _of_preset(title: str, preset: Preset, options: HubOptions) -> WeightFiles:
    """The original file if it is there; else what the hub has; else the original file, downloaded."""
    if not preset.is_published:
        raise ModelError(
            f"{title}: has no weights before it is trained: rtdetr train DATA --model {title}. Then pass their path."
        )
    if preset.url is None:
        raise ModelError(f"{title}: its publisher offers no weights. Pass the path of its weights.")
    cached = checkpoint_path(preset.url, options)
    if cached.is_file():
        return WeightFiles(title=title, files=(cached,), preset=preset)
    try:
        if preset.hub is not None:
            files = _in_repository(Repository(preset.hub, options)).files
        else:
            files = (download_checkpoint(preset.url, options),)
    except (ModelError, OSError) as error:
        raise ModelError(
            f"Could not download {title} ({_why(error)}). Put the file at {cached} or pass the path of its weights."
        ) from error
    return WeightFiles(title=title, files=files, preset=preset)


def _why(error: Exception) -> str:
    if OFFLINE in str(error):
        return OFFLINE
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answers {error.code}"
    if isinstance(error, (urllib.error.URLError, TimeoutError)) or "no network" in str(error):
        return "no network"
    return str(error)
