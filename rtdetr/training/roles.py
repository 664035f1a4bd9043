# SPDX-License-Identifier: Apache-2.0
"""What a parameter is, told by its module and place, not by its name."""

from __future__ import annotations

import enum
from collections.abc import Iterator

from torch import nn

__all__ = ["Role", "roles"]

NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)


class Role(enum.Enum):
    """What a parameter is; learning rate and weight decay follow from it."""

    BACKBONE = "backbone"
    BACKBONE_NORM = "backbone norm"
    WEIGHT = "weight"
    BIAS = "bias"
    NORM = "norm"

    @property
    def in_backbone(self) -> bool:
        return self in (Role.BACKBONE, Role.BACKBONE_NORM)


def roles(model: nn.Module, backbone: nn.Module) -> Iterator[tuple[str, nn.Parameter, Role]]:
    """Name, parameter and role of each parameter of ``model`` that trains, each parameter once."""
    inside = set(backbone.parameters())
    seen: set[nn.Parameter] = set()
    for module_name, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad or parameter in seen:
                continue
            seen.add(parameter)
            full_name = f"{module_name}.{name}" if module_name else name
            yield full_name, parameter, _role(module, name, parameter in inside)


def _role(module: nn.Module, name: str, in_backbone: bool) -> Role:
    is_norm = isinstance(module, NORMS)
    if in_backbone:
        return Role.BACKBONE_NORM if is_norm else Role.BACKBONE
    if is_norm:
        return Role.NORM
    return Role.BIAS if name == "bias" else Role.WEIGHT
