# SPDX-License-Identifier: Apache-2.0
"""Tensors by name, from the kinds of file that detectors are kept in."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import ModelError
from .inert import Inert, inert_pickle

__all__ = ["CONFIG_KEY", "CheckpointContents", "read_files"]

CONFIG_KEY = "rtdetr_config"
"""Our configuration in the metadata of a .safetensors file, so that the file is enough."""


@dataclass(frozen=True)
class CheckpointContents:
    """What a file holds.

    Args:
        state: tensors by name.
        config: the configuration that was stored with them.
        holds: what else there is, in words; for a file without tensors.
    """

    state: dict[str, Tensor]
    config: dict[str, Any] | None = None
    holds: str = ""


def read_files(paths: Sequence[Path]) -> CheckpointContents:
    """The tensors of one file, or of all parts of a divided one.

    Raises:
        ModelError: a file is damaged or of another kind.
    """
    parts = [_read(path) for path in paths]
    state = {name: tensor for part in parts for name, tensor in part.state.items()}
    config = next((part.config for part in parts if part.config is not None), None)
    return CheckpointContents(state, config, next((part.holds for part in parts), ""))


def _read(path: Path) -> CheckpointContents:
    return _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickled(path)


def _read_safetensors(path: Path) -> CheckpointContents:
    try:
        with safe_open(path, framework="pt") as file:
            stored = (file.metadata() or {}).get(CONFIG_KEY)
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except SafetensorError as error:
        raise ModelError(f"{path}: not a complete .safetensors file ({error})") from error
    return CheckpointContents(state, None if stored is None else json.loads(stored))


def _read_pickled(path: Path) -> CheckpointContents:
    loaded = _unpickle(path)
    state = _tensors(_weights_of(loaded))
    return CheckpointContents(state, holds=_describe(loaded))


def _unpickle(path: Path) -> Any:
    """torch.load, twice if needed: its strict reader refuses whole files for a date, ours reads past it."""
    options: dict[str, Any] = {"map_location": "cpu"}
    if zipfile.is_zipfile(path):
        options["mmap"] = True
    try:
        return torch.load(path, weights_only=True, **options)
    except pickle.UnpicklingError:
        pass
    except (RuntimeError, EOFError, OSError) as error:
        raise ModelError(f"{path}: not a complete PyTorch checkpoint ({error})") from error
    try:
        return torch.load(path, weights_only=False, pickle_module=inert_pickle, **options)
    except Exception as error:  # damaged pickles fail in any way
        raise ModelError(f"{path}: not a PyTorch checkpoint ({error})") from error


def _weights_of(loaded: Any) -> Any:
    """The averaged weights of a checkpoint in training, else its weights, else what it is itself."""
    if not isinstance(loaded, dict):
        return loaded
    averaged = loaded.get("ema")
    if isinstance(averaged, dict) and isinstance(averaged.get("module"), dict):
        return averaged["module"]
    return next(
        (loaded[key] for key in ("model", "state_dict") if isinstance(loaded.get(key), dict)),
        loaded,
    )


def _tensors(state: Any) -> dict[str, Tensor]:
    if not isinstance(state, dict):
        return {}
    return {
        str(name).removeprefix("module."): value.detach()  # DistributedDataParallel's prefix
        for name, value in state.items()
        if isinstance(value, Tensor)
    }


def _describe(loaded: Any) -> str:
    if isinstance(loaded, Inert):
        return f"an object {loaded.path}"
    if not isinstance(loaded, dict):
        return f"a {type(loaded).__name__}"
    entries = (
        f"{key}: {value.path}" if isinstance(value, Inert) else str(key)
        for key, value in loaded.items()
    )
    return ", ".join(list(entries)[:6])
