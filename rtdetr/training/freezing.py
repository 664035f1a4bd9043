# SPDX-License-Identifier: Apache-2.0
"""Which parts of a model do not train."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from ..errors import UsageError, did_you_mean
from ..model import RTDetrV2ForObjectDetection

__all__ = ["freeze", "start_training"]


def freeze(model: RTDetrV2ForObjectDetection, words: Iterable[str]) -> list[nn.Module]:
    """Let parts of a model stay as they are; returns them.

    Args:
        model: what trains.
        words: "backbone", "encoder", "decoder", or the names of modules.

    Raises:
        UsageError: there is no such part, or nothing is left to train.
    """
    parts = _parts(model)
    modules = dict(model.named_modules(remove_duplicate=False))
    frozen: list[nn.Module] = []
    for word in words:
        named = parts.get(word) or ([modules[word]] if word in modules else None)
        if not named:
            hint = did_you_mean(word, [*parts, *modules])
            raise UsageError(
                f'freeze: expected {", ".join(parts)} or the name of a module, got "{word}".{hint}'
            )
        frozen += named
    for module in frozen:
        module.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UsageError("freeze: nothing is left to train")
    return frozen


def start_training(model: nn.Module, frozen: Iterable[nn.Module]) -> None:
    """Training mode, but for frozen parts, whose statistics stay as their weights do."""
    model.train()
    for module in frozen:
        module.eval()


def _parts(model: RTDetrV2ForObjectDetection) -> dict[str, list[nn.Module]]:
    network = model.model
    return {
        "backbone": [network.backbone],
        "encoder": [network.encoder_input_proj, network.encoder],
        "decoder": [network.decoder_input_proj, network.decoder],
    }
