# SPDX-License-Identifier: Apache-2.0
"""How each preset was trained, as published, and how a run on other data is: the numbers alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from ..config import RTDetrV2Config
from ..config.presets import find_preset
from ..data import strong_epochs
from .roles import Role

__all__ = ["RECIPES", "Recipe", "find_recipe", "recipe_for"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One way to train.

    Args:
        epochs: passes over the data.
        strong_epochs: epochs with photometric distortion, zoom-out and crop, the first ones.
        multi_scale_epochs: epochs with a size drawn for each step, the first ones; 0 keeps one size.
        lr: learning rate.
        backbone_lr: of the backbone; the larger, the smaller the backbone.
        undecayed: roles of parameters that weight decay leaves alone.
        batch: images of a step, over all processes and accumulated ones.
        weight_decay: of all other parameters.
        clip: largest norm of the gradient.
        warmup: steps over which learning rates rise from 0.
        ema_decay: of the average of weights, once it is old.
        ema_tau: steps by which it grows old.
        cosine: share of the run, its end, in which learning rates fall to ``final_lr`` of theirs; 0 keeps them.
        final_lr: see ``cosine``.

    Source: RT-DETRv2 (Lv et al., 2024), sec. 3.2 and tab. 2, with the numbers of its published configurations.
    """

    epochs: int
    strong_epochs: int
    multi_scale_epochs: int
    lr: float = 1e-4
    backbone_lr: float = 1e-5
    undecayed: frozenset[Role] = frozenset({Role.NORM})
    batch: int = 16
    weight_decay: float = 1e-4
    clip: float = 0.1
    warmup: int = 2000
    ema_decay: float = 0.9999
    ema_tau: int = 2000
    cosine: float = 0.0
    final_lr: float = 0.05

    def shortened(self, epochs: int, steps_per_epoch: int) -> Recipe:
        """The recipe for a run of ``epochs`` on other data.

        What the published numbers say in steps of COCO is kept as a share of the run: warm-up and the average span at
        most a tenth of it. The share of weakly augmented epochs is kept too, at least one of them but in runs of one
        epoch. The last three tenths lower the learning rates.
        """
        steps = epochs * steps_per_epoch
        span = min(self.warmup, max(1, steps // 10))
        strong = strong_epochs(epochs, self.strong_epochs / self.epochs)
        return replace(
            self,
            epochs=epochs,
            strong_epochs=strong,
            multi_scale_epochs=strong if self.multi_scale_epochs else 0,
            warmup=span,
            ema_tau=span,
            ema_decay=min(self.ema_decay, max(0.0, 1 - 10 / max(1, steps))),
            cosine=0.3,
        )


_NORMS = frozenset({Role.NORM, Role.BACKBONE_NORM})

_SMALL = Recipe(
    epochs=120, strong_epochs=117, multi_scale_epochs=0, backbone_lr=1e-4, undecayed=_NORMS
)
_MEDIUM = Recipe(
    epochs=120,
    strong_epochs=117,
    multi_scale_epochs=117,
    backbone_lr=5e-5,
    undecayed=_NORMS | {Role.BIAS},
)
# Random weights take a higher rate than a backbone that knows photos. Chosen on digits, with a smaller model and batch.
_TINY = replace(_SMALL, lr=1e-3, backbone_lr=1e-3, batch=8)
_LARGE = Recipe(epochs=72, strong_epochs=71, multi_scale_epochs=71)
_R50_M = Recipe(epochs=84, strong_epochs=81, multi_scale_epochs=81)


def _tuned(recipe: Recipe, epochs: int, strong: int) -> Recipe:
    """As the discrete form was tuned from the trained bilinear one."""
    return replace(
        recipe,
        epochs=epochs,
        strong_epochs=strong,
        multi_scale_epochs=strong if recipe.multi_scale_epochs else 0,
    )


RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        "rtdetrv2_tiny": _TINY,
        "rtdetrv2_r18vd": _SMALL,
        "rtdetrv2_r34vd": _MEDIUM,
        "rtdetrv2_r50vd_m": _R50_M,
        "rtdetrv2_r50vd": _LARGE,
        "rtdetrv2_r101vd": replace(_LARGE, backbone_lr=1e-6),
        "rtdetrv2_hgnetv2_l": replace(_LARGE, backbone_lr=5e-6),
        "rtdetrv2_hgnetv2_x": replace(_LARGE, backbone_lr=1e-6),
        "rtdetrv2_hgnetv2_h": replace(_LARGE, backbone_lr=5e-6),
        "rtdetrv2_r18vd_dsp": _tuned(_SMALL, 36, 33),
        "rtdetrv2_r34vd_dsp": _tuned(_MEDIUM, 12, 10),
        "rtdetrv2_r50vd_m_dsp": _tuned(_R50_M, 36, 33),
        "rtdetrv2_r50vd_dsp": _tuned(_LARGE, 12, 10),
    }
)
"""By the name of the preset. Discrete ones start from the trained bilinear model."""


def find_recipe(preset: str) -> Recipe:
    """The published recipe of a preset, by any name of it.

    Raises:
        ModelError: there is no such preset.
    """
    return RECIPES[find_preset(preset).name]


def recipe_for(config: RTDetrV2Config) -> Recipe:
    """The recipe of the preset with this backbone and decoder, or of one that is as wide and trains as much."""
    for name, recipe in RECIPES.items():
        published = RTDetrV2Config.from_preset(name)
        if all(getattr(config, field) == getattr(published, field) for field in _TELLING):
            return recipe
    if config.d_model < NARROW:
        return _TINY
    return _LARGE if config.freeze_backbone_batch_norms else _SMALL


NARROW = 256
"""Width below which no published model is."""

_TELLING = ("backbone_config", "decoder_layers", "decoder_method", "hidden_expansion")
"""Fields in which the presets differ from each other."""
