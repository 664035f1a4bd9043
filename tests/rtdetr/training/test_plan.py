# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from rtdetr.config import RTDetrV2Config
from rtdetr.errors import UsageError
from rtdetr.model import RTDetrV2ForObjectDetection
from rtdetr.training.distributed import World
from rtdetr.training.options import TrainOptions
from rtdetr.training.plan import Plan, make_plan, make_precision


def plan_of(
    preset: str = "rtdetrv2_r18vd",
    images: int = 1600,
    ranks: int = 1,
    size: tuple[int, int] = (640, 640),
    **options: Any,
) -> Plan:
    with torch.device("meta"):
        model = RTDetrV2ForObjectDetection(RTDetrV2Config.from_preset(preset))
    return make_plan(TrainOptions(**options), model, images, World(0, ranks), size)


@pytest.mark.parametrize(
    ("options", "batch", "accum", "steps"),
    [
        ({}, 4, 4, 100),
        ({"size": (160, 160)}, 16, 1, 100),
        ({"size": (320, 640)}, 8, 2, 100),
        ({"size": (1280, 1280)}, 1, 16, 100),
        ({"batch": 8}, 8, 2, 100),
        ({"batch": 32}, 32, 1, 50),
        ({"batch": 3}, 3, 5, 106),
        ({"batch": 2, "accum": 4}, 2, 4, 200),
        ({"accum": 2, "size": (160, 160)}, 8, 2, 100),
        ({"ranks": 4}, 4, 1, 100),
        ({"ranks": 32}, 1, 1, 50),
        ({"images": 5}, 4, 4, 1),
        ({"preset": "tiny"}, 4, 2, 200),
    ],
    ids=str,
)
def test_a_step_keeps_the_images_of_the_recipe(
    options: dict[str, Any], batch: int, accum: int, steps: int
) -> None:
    plan = plan_of(**options)
    assert (plan.batch, plan.accum, plan.steps_per_epoch) == (batch, accum, steps)


@pytest.mark.parametrize(("batch", "factor"), [(16, 1.0), (32, math.sqrt(2)), (4, 1.0)])
def test_rates_follow_the_root_of_the_images_of_a_step(batch: int, factor: float) -> None:
    plan = plan_of("rtdetrv2_r34vd", batch=batch)
    assert plan.recipe.lr == pytest.approx(1e-4 * factor)
    assert plan.recipe.backbone_lr == pytest.approx(5e-5 * factor)


def test_a_rate_of_the_user_counts_as_it_is() -> None:
    plan = plan_of("rtdetrv2_r34vd", batch=32, lr=3e-4)
    assert (plan.recipe.lr, plan.recipe.backbone_lr) == (3e-4, pytest.approx(1.5e-4))
    assert plan_of("rtdetrv2_r34vd", lr=3e-4, backbone_lr=1e-6).recipe.backbone_lr == 1e-6


def test_the_paper_is_followed_to_the_letter_unless_epochs_are_given() -> None:
    recipe = plan_of("rtdetrv2_r34vd", recipe="paper").recipe
    assert (recipe.epochs, recipe.strong_epochs, recipe.warmup) == (120, 117, 2000)
    assert (recipe.cosine, recipe.ema_decay, recipe.ema_tau) == (0, 0.9999, 2000)
    assert plan_of("rtdetrv2_r34vd", recipe="paper", epochs=40).recipe.strong_epochs == 39
    tuned = plan_of("rtdetrv2_r34vd").recipe
    assert (tuned.epochs, tuned.warmup, tuned.ema_tau, tuned.cosine) == (50, 500, 500, 0.3)


@pytest.mark.parametrize(
    ("options", "sides"),
    [
        ({}, (480, 800)),
        ({"size": (320, 320)}, (256, 384)),
        ({"size": (320, 640)}, None),
        ({"multi_scale": False}, None),
        ({"preset": "rtdetrv2_r18vd"}, None),
        ({"preset": "rtdetrv2_r18vd", "multi_scale": True}, (480, 800)),
    ],
    ids=str,
)
def test_sizes_vary_as_the_recipe_or_the_user_says(
    options: dict[str, Any], sides: tuple[int, int] | None
) -> None:
    plan = plan_of(**{"preset": "rtdetrv2_r34vd", **options})
    assert (min(plan.sides), max(plan.sides)) == sides if sides else not plan.sides
    assert plan.has_sides(0) == (sides is not None)
    assert not plan.has_sides(49)


@pytest.mark.parametrize(
    ("amp", "dtype"), [("auto", None), ("off", None), ("bf16", torch.bfloat16)]
)
def test_precision_on_a_cpu(amp: str, dtype: torch.dtype | None) -> None:
    assert make_precision(amp, torch.device("cpu")).dtype == dtype


def test_float16_does_not_train_on_a_cpu() -> None:
    with pytest.raises(UsageError, match="amp: expected off or bf16 on cpu"):
        make_precision("fp16", torch.device("cpu"))
