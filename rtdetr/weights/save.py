# SPDX-License-Identifier: Apache-2.0
"""From a model to files: ours and transformers', or the original's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ..config import RTDetrV2Config
from ..files import atomic_write
from ..hub import CONFIG
from .names import from_module_names, has_heads
from .read import CONFIG_KEY

__all__ = ["save_original", "save_pretrained", "to_original_state_dict"]


def save_pretrained(
    model: nn.Module, config: RTDetrV2Config, directory: str | Path, processor: Any = None
) -> None:
    """Write config.json and model.safetensors under the names of the hub, each file whole.

    Args:
        model: either model.
        config: of the model.
        directory: is created if needed.
        processor: its ``save_pretrained`` is called with the directory too.
    """
    directory = Path(directory)
    dtype = next(model.parameters()).dtype
    settings = config.to_dict() | {"dtype": str(dtype).removeprefix("torch.")}
    if not has_heads(model):
        settings["architectures"] = [type(model).__name__]
    metadata = {"format": "pt", CONFIG_KEY: json.dumps(settings, allow_nan=False)}
    with atomic_write(directory / "model.safetensors") as path:
        save_file(_hub_state(model), path, metadata)
    with atomic_write(directory / CONFIG) as path:
        text = json.dumps(settings, indent=2, sort_keys=True, allow_nan=False)
        path.write_text(text + "\n", encoding="utf-8")
    if processor is not None:
        processor.save_pretrained(directory)


def to_original_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """The weights of a detector under the names of the original implementation, whose query, key and value are one."""
    return from_module_names(_detached(model), "original")


def save_original(model: nn.Module, path: str | Path) -> None:
    """Write a .pth file that the original implementation reads (``{"model": state dict}``)."""
    # Into a file of Python's, whose errors say what is wrong with the disk.
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        torch.save({"model": to_original_state_dict(model)}, file)


def _hub_state(model: nn.Module) -> dict[str, Tensor]:
    state = from_module_names(_detached(model), "hub")
    if not has_heads(model):
        state = {name.removeprefix("model."): tensor for name, tensor in state.items()}
    return {name: tensor.contiguous() for name, tensor in state.items()}


def _detached(model: nn.Module) -> dict[str, Tensor]:
    prefix = "" if has_heads(model) else "model."
    return {f"{prefix}{name}": tensor.detach() for name, tensor in model.state_dict().items()}
