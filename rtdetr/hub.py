# SPDX-License-Identifier: Apache-2.0
"""Files of a model, in a folder or in a repository of the Hugging Face hub; the only place that downloads them.

A word for a model becomes one of three values here, once: :class:`Folder`, :class:`Checkpoint` or :class:`Repository`.
Whoever needs a file asks the value. Names of presets are not known here: :func:`model_files` leaves them to its caller.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from .errors import ModelError

__all__ = [
    "CONFIG",
    "METADATA_KEYS",
    "PREPROCESSOR",
    "Checkpoint",
    "Folder",
    "HubOptions",
    "ModelFiles",
    "Repository",
    "Settings",
    "checkpoint_path",
    "download_checkpoint",
    "is_complete",
    "model_files",
    "parse_json_object",
    "read_json_object",
    "read_metadata",
    "read_settings",
]

CONFIG = "config.json"
PREPROCESSOR = "preprocessor_config.json"

METADATA_KEYS = {CONFIG: "rtdetr_config", PREPROCESSOR: "rtdetr_processor"}
"""Under which keys of its metadata a .safetensors file carries what these files say."""

OFFLINE = "not in the cache, and HF_HUB_OFFLINE is set"

SUFFIXES = frozenset({".safetensors", ".pth", ".pt", ".bin", ".json"})
"""A word that ends so means a file, whether or not it exists."""


UNREAD = {
    ".onnx": "ONNX",
    ".engine": "TensorRT",
    ".trt": "TensorRT",
    ".xml": "OpenVINO",
    ".tflite": "TensorFlow Lite",
    ".h5": "TensorFlow",
    ".pb": "TensorFlow",
    ".msgpack": "Flax",
    ".gguf": "GGUF",
    ".mlmodel": "Core ML",
    ".mlpackage": "Core ML",
    ".pdparams": "Paddle",
}
"""Files of other programs, by their suffix."""

READ = "Pass a .safetensors or .pth file, or a folder with config.json and model.safetensors."


@dataclass(frozen=True, kw_only=True)
class HubOptions:
    """How files are fetched; the same options wherever a hub name is taken.

    Args:
        revision: branch, tag or commit.
        cache_dir: where downloads are kept; by default where huggingface_hub and torch.hub keep theirs.
        token: of the hub; True takes the one that is stored on this machine.
        local_files_only: do not use the network.
        force_download: download again what is in the cache.
        subfolder: of a directory or repository, where the model lies.
    """

    revision: str | None = None
    cache_dir: str | Path | None = None
    token: str | bool | None = None
    local_files_only: bool = False
    force_download: bool | None = None
    subfolder: str | None = None

    def __post_init__(self) -> None:
        if self.cache_dir is not None:
            object.__setattr__(self, "cache_dir", os.path.expanduser(self.cache_dir))  # noqa: PTH111
        for name in ("force_download", "subfolder"):  # neither is passed on if it asks for nothing
            object.__setattr__(self, name, getattr(self, name) or None)

    def without_revision(self) -> HubOptions:
        """For another repository than the one that the revision and the subfolder belong to."""
        return replace(self, revision=None, subfolder=None)


@dataclass(frozen=True)
class Folder:
    """A model in a folder of this machine."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    @property
    def title(self) -> str:
        return self.path.name or str(self.path)

    def file(self, name: str) -> Path | None:
        """The path of one file; None where the folder does not have it."""
        path = self.path / name
        return path if path.is_file() else None


@dataclass(frozen=True)
class Checkpoint:
    """A model in one file of this machine; its configuration may lie beside it."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    @property
    def title(self) -> str:
        return self.path.name

    def file(self, name: str) -> Path | None:
        """The path of a file beside the checkpoint; None where there is none."""
        return Folder(self.path.parent).file(name)


@dataclass(frozen=True)
class Repository:
    """A model on the hub; its files are downloaded when they are asked for, and kept in the hub's cache."""

    name: str
    options: HubOptions = HubOptions()

    def __str__(self) -> str:
        return self.name

    @property
    def title(self) -> str:
        return self.name

    def file(self, name: str) -> Path | None:
        """The path of one file; None where the repository does not have it, which is not the same as out of reach.

        Raises:
            ModelError: there is no such repository, or it cannot be reached.
        """
        from huggingface_hub import errors, hf_hub_download

        options = {key: value for key, value in vars(self.options).items() if value is not None}
        try:
            return Path(hf_hub_download(self.name, name, **options))
        except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
            raise ModelError(self._unreachable()) from error
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

    def _unreachable(self) -> str:
        why = "not in the cache" if self.options.local_files_only else "no network"
        if is_offline():
            why = OFFLINE
        return (
            f"Could not download {self.name} ({why}). "
            "Pass a folder with config.json and model.safetensors, or the path of its weights."
        )


def is_offline() -> bool:
    """Whether the user has set HF_HUB_OFFLINE, which goes for all downloads of models."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


ModelFiles: TypeAlias = Folder | Checkpoint | Repository


def model_files(source: str | Path, options: HubOptions | None = None) -> ModelFiles | None:
    """Where the files of ``source`` are; None for a bare word, which can only be the name of a preset.

    What exists on this machine counts first. ``~`` is the home folder.

    Raises:
        ModelError: ``source`` is written as a path and nothing is there.
    """
    path = Path(os.path.expanduser(source))  # noqa: PTH111 - that of Path raises where "~name" is no user
    if path.suffix.lower() in UNREAD:
        raise ModelError(f"{source}: {UNREAD[path.suffix.lower()]} files are not read. {READ}")
    if path.is_dir():
        return Folder(path / (options.subfolder or "") if options else path)
    if path.is_file():
        return Checkpoint(path)
    if _is_written_as_path(source):
        raise ModelError(f"{source}: no such file or folder")
    return Repository(str(source), options or HubOptions()) if "/" in str(source) else None


@dataclass(frozen=True)
class Settings:
    """The contents of a JSON file, or of the same in a checkpoint, and where they are from."""

    values: dict[str, Any]
    origin: str


def read_settings(files: ModelFiles, name: str) -> Settings | None:
    """What the JSON file ``name`` of a model says, or the very file that the user named; None where there is none.

    A complete checkpoint answers for itself, whatever lies beside it; another one where nothing does.

    Raises:
        ModelError: there is one, and it cannot be read.
    """
    if isinstance(files, Checkpoint):
        if files.path.suffix == ".json":
            return Settings(read_json_object(files.path), str(files.path))
        metadata = read_metadata(files.path)
        if is_complete(metadata):
            return _carried(files, metadata, name)
        path = files.file(name)
        if path is None:
            return _carried(files, metadata, name)
    else:
        path = files.file(name)
    return None if path is None else Settings(read_json_object(path), str(path))


def _carried(files: Checkpoint, metadata: Mapping[str, str], name: str) -> Settings | None:
    key = METADATA_KEYS[name]
    if key not in metadata:
        return None
    origin = f"{files}: {key}"
    return Settings(parse_json_object(metadata[key], origin), origin)


def is_complete(metadata: Mapping[str, str]) -> bool:
    """Whether a checkpoint of this metadata needs no other file."""
    return all(key in metadata for key in METADATA_KEYS.values())


def read_metadata(path: Path) -> Mapping[str, str]:
    """The metadata of a .safetensors file; empty for any other file.

    Raises:
        ModelError: the file is damaged.
    """
    if path.suffix != ".safetensors":
        return {}
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: not a complete .safetensors file ({error})") from error


def read_json_object(path: Path) -> dict[str, Any]:
    """What a JSON file holds, if that is an object.

    Raises:
        ModelError: it is something else, or cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: not a readable JSON file ({error})") from error
    return parse_json_object(text, str(path))


def parse_json_object(text: str, title: str) -> dict[str, Any]:
    """What a text holds, if that is a JSON object; ``title`` says where it is from.

    Raises:
        ModelError: it is something else.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{title}: not JSON ({error})") from error
    if not isinstance(value, dict):
        raise ModelError(f"{title}: expected a JSON object, got {type(value).__name__}")
    return value


def checkpoint_path(url: str, options: HubOptions) -> Path:
    """Where the checkpoint of ``url`` is kept: where torch.hub keeps it, or in ``cache_dir``."""
    import torch

    folder = options.cache_dir or Path(torch.hub.get_dir()) / "checkpoints"
    return Path(folder) / url.rsplit("/", 1)[1]


def download_checkpoint(url: str, options: HubOptions) -> Path:
    """The checkpoint of ``url`` on this machine, downloaded where it is not there yet.

    Raises:
        ModelError: it is not there, and the network is not to be used.
        OSError: it could not be downloaded.
    """
    import torch

    path = checkpoint_path(url, options)
    if path.is_file():
        return path
    if options.local_files_only:
        raise ModelError("not in the cache")
    if is_offline():
        raise ModelError(OFFLINE)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.hub.download_url_to_file(url, str(path))
    return path


def _is_written_as_path(source: str | Path) -> bool:
    """A ``Path``, or a word that no repository "owner/name" can have."""
    text = str(source)
    return (
        isinstance(source, Path)
        or Path(text).suffix in SUFFIXES
        or Path(text).is_absolute()
        or text.startswith((".", "~"))
        or text.count("/") > 1
        or text.endswith("/")
    )
