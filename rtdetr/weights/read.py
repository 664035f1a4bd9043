# SPDX-License-Identifier: Apache-2.0
"""Tensors by name, from the kinds of file that detectors are kept in."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import ModelError
from ..hub import CONFIG, METADATA_KEYS, parse_json_object, read_metadata
from .inert import Inert, inert_pickle

__all__ = ["CheckpointContents", "read_files"]

CONTAINERS = (
    *("ema", "model_ema", "ema_state_dict", "module"),  # averaged weights come before the last ones
    *("model", "state_dict", "model_state_dict", "weights", "network", "net"),
)
"""Under which a checkpoint keeps its weights, in order of preference; containers may lie in each other."""

DEEPEST = 4
"""Containers inside each other; a pickle may hold itself."""


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
    key = METADATA_KEYS[CONFIG]
    stored = read_metadata(path).get(key)
    try:
        with safe_open(path, framework="pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except SafetensorError as error:
        raise ModelError(f"{path}: not a complete .safetensors file ({error})") from error
    config = None if stored is None else parse_json_object(stored, f"{path}: {key}")
    return CheckpointContents(state, config)


def _read_pickled(path: Path) -> CheckpointContents:
    loaded = _unpickle(path)
    return CheckpointContents(_weights_of(loaded), holds=_describe(loaded))


def _unpickle(path: Path) -> Any:
    """torch.load, twice if needed: its strict reader refuses whole files for a date, ours reads past it."""
    options: dict[str, Any] = {"map_location": "cpu"}
    if zipfile.is_zipfile(path):
        options["mmap"] = True
    try:
        return torch.load(path, weights_only=True, **options)
    except Exception:
        pass
    try:
        return torch.load(path, weights_only=False, pickle_module=inert_pickle, **options)
    except Exception as error:
        why = str(error) or type(error).__name__
        raise ModelError(f"{path}: not a complete PyTorch checkpoint ({why})") from error


def _weights_of(loaded: Any, depth: int = 0) -> dict[str, Tensor]:
    """The tensors by name in the first container that has any, else beside the containers."""
    if not isinstance(loaded, dict) or depth > DEEPEST:
        return {}
    for key in CONTAINERS:
        state = _weights_of(loaded.get(key), depth + 1)
        if state:
            return state
    return {str(name): value.detach() for name, value in loaded.items() if _is_dense(value)}


def _is_dense(value: Any) -> bool:
    return isinstance(value, Tensor) and value.layout == torch.strided and not value.is_quantized


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
