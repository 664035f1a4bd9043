# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from rtdetr.config import RTDetrV2Config
from rtdetr.config.presets import PRESETS
from rtdetr.errors import ModelError
from rtdetr.model import RTDetrV2ForObjectDetection
from rtdetr.training.optimizer import parameter_groups
from rtdetr.training.recipes import RECIPES, Recipe, find_recipe, recipe_for
from rtdetr.training.roles import roles
from rtdetr.weights.names import from_module_names

# Of the published configurations: a pattern of the original's names, a learning rate, a weight decay. The first pattern
# that fits counts; what fits none has 1e-4 and 1e-4.
BACKBONE, REST = r"^(?=.*backbone)", r"^(?=.*(?:encoder|decoder))"
LARGE_NORMS = (rf"{REST}(?=.*(?:norm|bn)).*$", 1e-4, 0.0)
PATTERNS = {
    "rtdetrv2_r18vd": [(r"^(?=.*(?:norm|bn)).*$", 1e-4, 0.0)],
    "rtdetrv2_r34vd": [
        (rf"{BACKBONE}(?!.*(?:norm|bn)).*$", 5e-5, 1e-4),
        (rf"{BACKBONE}(?=.*(?:norm|bn)).*$", 5e-5, 0.0),
        (rf"{REST}(?=.*(?:norm|bn|bias)).*$", 1e-4, 0.0),
    ],
    "rtdetrv2_r50vd_m": [(rf"{BACKBONE}(?!.*norm).*$", 1e-5, 1e-4), LARGE_NORMS],
    "rtdetrv2_r50vd": [(rf"{BACKBONE}(?!.*norm).*$", 1e-5, 1e-4), LARGE_NORMS],
    "rtdetrv2_r101vd": [(rf"{BACKBONE}(?!.*norm).*$", 1e-6, 1e-4), LARGE_NORMS],
    "rtdetrv2_hgnetv2_l": [(rf"{BACKBONE}(?!.*norm).*$", 5e-6, 1e-4), LARGE_NORMS],
}


@pytest.mark.parametrize("preset", PATTERNS)
def test_every_parameter_has_the_rate_and_decay_of_the_original(preset: str) -> None:
    config = RTDetrV2Config.from_preset(preset)
    with torch.device("meta"):
        model = RTDetrV2ForObjectDetection(config)
    backbone = model.model.backbone
    groups = parameter_groups(model, backbone, RECIPES[preset])
    ours = {id(p): (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}
    assert len(ours) == sum(len(group["params"]) for group in groups)

    trained = {name: parameter for name, parameter, _ in roles(model, backbone)}
    assert len(trained) == len(ours)
    for name, parameter in trained.items():
        # Query, key and value are one parameter of the original: any name of it will do.
        like = {name: torch.empty(parameter.shape)}
        for part in "qkv":
            like |= {re.sub("[qkv]_proj", f"{part}_proj", name): torch.empty(parameter.shape)}
        (original,) = from_module_names(like, "original")
        expected = next(
            ((lr, wd) for pattern, lr, wd in PATTERNS[preset] if re.match(pattern, original)),
            (1e-4, 1e-4),
        )
        assert ours[id(parameter)] == expected, original


def test_every_preset_has_a_recipe() -> None:
    assert set(PRESETS) == set(RECIPES)
    assert find_recipe("rtdetrv2-s") == RECIPES["rtdetrv2_r18vd"]
    with pytest.raises(ModelError, match="Did you mean"):
        find_recipe("rtdetrv2_r18v")


@pytest.mark.parametrize(
    ("epochs", "strong"), [(1, 1), (2, 1), (10, 9), (50, 49), (72, 71), (300, 296)]
)
def test_the_last_epochs_of_a_short_run_are_weakly_augmented(epochs: int, strong: int) -> None:
    recipe = RECIPES["rtdetrv2_r50vd"].shortened(epochs, steps_per_epoch=100)
    assert recipe.strong_epochs == strong
    assert recipe.multi_scale_epochs == strong
    assert RECIPES["rtdetrv2_r18vd"].shortened(epochs, 100).multi_scale_epochs == 0


@pytest.mark.parametrize(
    ("epochs", "per_epoch", "span", "decay"),
    [(50, 4, 20, 0.95), (50, 1000, 2000, 0.9998), (72, 7330, 2000, 0.9999), (1, 1, 1, 0.0)],
)
def test_warm_up_and_average_span_at_most_a_tenth_of_a_run(
    epochs: int, per_epoch: int, span: int, decay: float
) -> None:
    recipe: Recipe = RECIPES["rtdetrv2_r50vd"].shortened(epochs, per_epoch)
    assert (recipe.warmup, recipe.ema_tau) == (span, span)
    assert recipe.ema_decay == pytest.approx(decay)


@pytest.mark.parametrize(
    ("changes", "preset"),
    [
        ({}, "rtdetrv2_r50vd"),
        ({"decoder_layers": 5}, "rtdetrv2_r50vd"),
        ({"freeze_backbone_batch_norms": False, "decoder_layers": 5}, "rtdetrv2_r18vd"),
        (
            {"d_model": 128, "encoder_hidden_dim": 128, "decoder_in_channels": (128,) * 3},
            "rtdetrv2_r50vd",
        ),
        ({"d_model": 128, "decoder_layers": 2}, "rtdetrv2_tiny"),
    ],
    ids=["published", "fixed", "trained", "same-shape", "narrow"],
)
def test_other_shapes_train_as_the_preset_that_is_most_like_them(
    changes: dict[str, Any], preset: str
) -> None:
    assert recipe_for(RTDetrV2Config(**changes)) == RECIPES[preset]
