# SPDX-License-Identifier: Apache-2.0
"""From a model to files: ours and transformers', or the original's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ..config import RTDetrV2Config
from ..errors import UsageError
from ..files import atomic_write
from ..hub import CONFIG, METADATA_KEYS, PREPROCESSOR
from ..processing.image_processor import RTDetrImageProcessor
from .names import from_module_names, has_heads

__all__ = ["save_checkpoint", "save_original", "save_pretrained", "to_original_state_dict"]


def save_pretrained(
    model: nn.Module,
    config: RTDetrV2Config,
    directory: str | Path,
    processor: Any = None,
    state_dict: Mapping[str, Tensor] | None = None,
) -> None:
    """Write config.json and model.safetensors under the names of the hub, each file whole.

    Args:
        model: either model.
        config: of the model.
        directory: is created if needed.
        processor: its ``save_pretrained`` is called with the directory too.
        state_dict: weights to write instead of the model's own.
    """
    directory = Path(directory)
    settings = _settings(model, config, next(model.parameters()).dtype)
    metadata = {"format": "pt", METADATA_KEYS[CONFIG]: json.dumps(settings, allow_nan=False)}
    with atomic_write(directory / "model.safetensors") as path:
        _save_file(_hub_state(model, state_dict), path, metadata)
    with atomic_write(directory / CONFIG) as path:
        text = json.dumps(settings, indent=2, sort_keys=True, allow_nan=False)
        path.write_text(text + "\n", encoding="utf-8")
    if processor is not None:
        processor.save_pretrained(directory)


def save_checkpoint(
    model: nn.Module,
    path: str | Path,
    processor: RTDetrImageProcessor,
    *,
    dtype: torch.dtype | None = None,
) -> None:
    """Write one .safetensors file that is all of a detector: weights, class names and ids, and preprocessing.

    ``RTDETR(path)`` and each command read it, whatever lies beside it. Weights have the names of the hub, the rest is
    metadata. The file is on the disk when this returns, and an older one of that name stays whole until then.

    Args:
        model: a detector, on any device; ``model.config`` has the names, and the ids as ``category_ids``.
        path: ends in ``.safetensors``.
        processor: how images are prepared; its ``input_size`` is what the detector runs at unless asked otherwise.
        dtype: of the weights in the file; None for the model's. Running statistics keep theirs: a variance may
            exceed float16.

    Raises:
        UsageError: ``path`` has another suffix, or ``dtype`` is not floating.
        OSError: the file cannot be written; it names ``path``.
    """
    if Path(path).suffix != ".safetensors":
        raise UsageError(f"path: expected a name that ends in .safetensors, got {path}")
    if not (dtype is None or dtype.is_floating_point):
        raise UsageError(f"dtype: expected a floating dtype, got {dtype}")
    dtype = dtype or next(model.parameters()).dtype
    config = model.config
    assert isinstance(config, RTDetrV2Config)
    settings = {CONFIG: _settings(model, config, dtype), PREPROCESSOR: processor.to_dict()}
    metadata = {
        METADATA_KEYS[name]: json.dumps(values, allow_nan=False)
        for name, values in settings.items()
    }
    parameters = dict(from_module_names(dict(model.named_parameters()), "hub"))
    state = {
        name: tensor.to(dtype) if name in parameters else tensor
        for name, tensor in _hub_state(model).items()
    }
    with atomic_write(path, durable=True) as temporary:
        _save_file(state, temporary, {"format": "pt"} | metadata)


def _settings(model: nn.Module, config: RTDetrV2Config, dtype: torch.dtype) -> dict[str, Any]:
    settings = config.to_dict() | {"dtype": str(dtype).removeprefix("torch.")}
    return settings if has_heads(model) else settings | {"architectures": [type(model).__name__]}


def _save_file(state: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    """Write a .safetensors file, the same bytes for the same content."""
    save_file(state, path, metadata)
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        # The library has the metadata in another order each time.
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        assert len(text) <= length
        file.seek(8)
        file.write(text.ljust(length))


def to_original_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """The weights of a detector under the names of the original implementation, whose query, key and value are one."""
    return from_module_names(_detached(model), "original")


def save_original(model: nn.Module, path: str | Path) -> None:
    """Write a .pth file that the original implementation reads (``{"model": state dict}``)."""
    # Into a file of Python's, whose errors say what is wrong with the disk.
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        torch.save({"model": to_original_state_dict(model)}, file)


def _hub_state(
    model: nn.Module, state_dict: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    state = from_module_names(_detached(model, state_dict), "hub")
    if not has_heads(model):
        state = {name.removeprefix("model."): tensor for name, tensor in state.items()}
    return {name: tensor.contiguous() for name, tensor in state.items()}


def _detached(
    model: nn.Module, state_dict: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    prefix = "" if has_heads(model) else "model."
    state = model.state_dict() if state_dict is None else state_dict
    return {f"{prefix}{name}": tensor.detach() for name, tensor in state.items()}
