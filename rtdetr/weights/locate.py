# SPDX-License-Identifier: Apache-2.0
"""From the word by which a user means weights to files on this machine."""

from __future__ import annotations

import json
import urllib.error
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..config.presets import Preset, find_preset
from ..errors import ModelError

__all__ = ["Located", "config_file", "locate"]

SUFFIXES = frozenset({".safetensors", ".pth", ".pt", ".bin", ".json"})
CONFIG = "config.json"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # in order of preference


@dataclass(frozen=True, kw_only=True)
class Located:
    """Files of one model.

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


def locate(source: str | Path, **hub: Any) -> Located:
    """The files of ``source``: a directory, a file, the name of a preset, or a hub name.

    Raises:
        ModelError: there is no such thing, or it cannot be downloaded.
    """
    path = Path(source)
    if path.is_dir():
        return _in_repository(path.name or str(path), Folder(path))
    if path.is_file():
        beside = path.parent / CONFIG
        has_config = path.suffix in (".safetensors", ".bin") and beside.is_file()
        return Located(title=path.name, files=(path,), config=beside if has_config else None)
    if _must_exist(source):
        raise ModelError(f"{source}: no such file or folder")
    if _is_hub_name(str(source)):
        return _in_repository(str(source), Hub(str(source), hub))
    return _of_preset(str(source), find_preset(str(source)), hub)


def config_file(source: str | Path, **hub: Any) -> Path:
    """The config.json of a directory, of a hub name, or that file itself.

    Raises:
        ModelError: there is none.
    """
    path = Path(source)
    if path.is_file():
        path = path if path.suffix == ".json" else path.parent / CONFIG
        found = path if path.is_file() else None
    elif path.is_dir() or _must_exist(source):
        found = Folder(path).file(CONFIG)
    elif _is_hub_name(str(source)):
        found = Hub(str(source), hub).file(CONFIG)
    else:
        preset = find_preset(str(source))
        raise ModelError(f'{source}: a preset. Use RTDetrV2Config.from_preset("{preset.name}")')
    if found is None:
        raise ModelError(f"{source}: no {CONFIG} there")
    return found


class Folder:
    """Files of a model in a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def file(self, name: str) -> Path | None:
        path = self.path / name
        return path if path.is_file() else None


class Hub:
    """Files of a model on the Hugging Face hub, downloaded when they are asked for and kept in its cache."""

    def __init__(self, name: str, options: dict[str, Any]) -> None:
        self.name = name
        self.options = {key: value for key, value in options.items() if value is not None}

    def file(self, name: str) -> Path | None:
        """None where the repository has no such file.

        Raises:
            ModelError: no such repository, or no network.
        """
        from huggingface_hub import errors, hf_hub_download

        try:
            return Path(hf_hub_download(self.name, name, **self.options))
        except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
            raise ModelError(self._offline()) from error
        except errors.EntryNotFoundError:
            return None
        except errors.GatedRepoError as error:
            raise ModelError(f"{self.name}: access must be asked for on the hub first") from error
        except errors.RepositoryNotFoundError as error:
            raise ModelError(
                f'No model "{self.name}" on the Hugging Face hub, or it is private: pass token='
            ) from error
        except (errors.HfHubHTTPError, errors.HFValidationError, OSError) as error:
            raise ModelError(f"Could not download {self.name} ({error})") from error

    def _offline(self) -> str:
        why = "not in the cache" if self.options.get("local_files_only") else "no network"
        return (
            f"Could not download {self.name} ({why}). "
            "Pass a folder with config.json and model.safetensors, or --weights PATH."
        )


def _in_repository(title: str, place: Folder | Hub) -> Located:
    config = place.file(CONFIG)
    for name in WEIGHTS:
        whole = place.file(name)
        if whole is not None:
            return Located(title=title, files=(whole,), config=config)
        index = place.file(f"{name}.index.json")
        if index is not None:
            return Located(title=title, files=_parts(index, place, title), config=config)
    raise ModelError(f"{title}: found neither {' nor '.join(WEIGHTS)}")


def _parts(index: Path, place: Folder | Hub, title: str) -> tuple[Path, ...]:
    names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    # A name in the index is a file beside it, never a path to elsewhere.
    found = {name: place.file(name) for name in names if Path(name).name == name}
    lost = [name for name in names if found.get(name) is None]
    if lost:
        raise ModelError(f"{title}: {index.name} names {lost[0]}, which is not there")
    return tuple(path for path in found.values() if path is not None)


def _of_preset(title: str, preset: Preset, hub: dict[str, Any]) -> Located:
    """The original file if it is there; else what the hub has; else the original file, downloaded."""
    kept = None if preset.url is None else _place_of(preset.url, hub.get("cache_dir"))
    if kept is not None and kept.is_file():
        return Located(title=title, files=(kept,), preset=preset)
    if preset.hub is None and preset.url is None:
        raise ModelError(f"{title}: its publisher offers no weights. Pass --weights PATH.")
    try:
        if preset.hub is not None:
            found = _in_repository(title, Hub(preset.hub, hub))
            return Located(title=title, files=found.files, preset=preset)
        assert kept is not None
        _download(str(preset.url), kept, bool(hub.get("local_files_only")))
    except (ModelError, OSError) as error:
        raise ModelError(
            f"Could not download {title} ({_why(error)}). Put the file at {kept} or pass --weights PATH."
        ) from error
    return Located(title=title, files=(kept,), preset=preset)


def _why(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answers {error.code}"
    if isinstance(error, (urllib.error.URLError, TimeoutError)) or "no network" in str(error):
        return "no network"
    return str(error)


def _place_of(url: str, cache_dir: str | Path | None) -> Path:
    """Where torch.hub keeps checkpoints."""
    folder = Path(torch.hub.get_dir()) / "checkpoints" if cache_dir is None else Path(cache_dir)
    return folder / url.rsplit("/", 1)[1]


def _download(url: str, path: Path, forbidden: bool) -> None:
    if forbidden:
        raise ModelError("not in the cache")
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.hub.download_url_to_file(url, str(path))


def _must_exist(source: str | Path) -> bool:
    return isinstance(source, Path) or Path(source).suffix in SUFFIXES or Path(source).is_absolute()


def _is_hub_name(name: str) -> bool:
    owner, _, repository = name.partition("/")
    return bool(owner and repository) and "/" not in repository and owner not in (".", "..", "~")
