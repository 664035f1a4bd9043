# SPDX-License-Identifier: Apache-2.0
"""Parameter groups by role, and the optimizer over them."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import nn

from .recipes import Recipe
from .roles import roles

__all__ = ["make_optimizer", "parameter_groups"]


def parameter_groups(model: nn.Module, backbone: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """One group for each pair of learning rate and weight decay, with the roles in it as ``name``."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
    names: dict[tuple[float, float], set[str]] = defaultdict(set)
    for _, parameter, role in roles(model, backbone):
        lr = recipe.backbone_lr if role.in_backbone else recipe.lr
        decay = 0.0 if role in recipe.undecayed else recipe.weight_decay
        groups[lr, decay].append(parameter)
        names[lr, decay].add(role.value)
    return [
        {
            "params": groups[key],
            "lr": key[0],
            "weight_decay": key[1],
            "name": ", ".join(sorted(names[key])),
        }
        for key in groups
    ]


def make_optimizer(model: nn.Module, backbone: nn.Module, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW over the groups of a recipe.

    Source: Decoupled weight decay regularization (Loshchilov and Hutter, 2019).
    """
    return torch.optim.AdamW(parameter_groups(model, backbone, recipe), betas=(0.9, 0.999))
