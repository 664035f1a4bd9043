# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from model_cases import image, tiny_config
from torch import Tensor

from rtdetr.data import Batch
from rtdetr.errors import RTDetrError
from rtdetr.model import RTDetrV2ForObjectDetection
from rtdetr.training.ema import MovingAverage
from rtdetr.training.schedule import Schedule
from rtdetr.training.step import Precision, TrainingStep


def make_model(**changes: Any) -> RTDetrV2ForObjectDetection:
    torch.manual_seed(0)
    return RTDetrV2ForObjectDetection(tiny_config(**changes)).train()


def make_step(model: RTDetrV2ForObjectDetection, part: int = 8, **changes: Any) -> TrainingStep:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    schedule = Schedule(steps=100, warmup=1, cosine=0.0, final=1.0)
    average = MovingAverage(model, decay=0.9, tau=1.0)
    return TrainingStep(model, optimizer, schedule, average, part=part, clip=0.1, **changes)


def draw_batch(*counts: int, dtype: torch.dtype = torch.uint8) -> Batch:
    random = torch.Generator().manual_seed(0)
    labels: list[Any] = []
    for seed, count in enumerate(counts):
        boxes = 0.2 + 0.3 * torch.rand(count, 4, generator=random)
        classes = torch.randint(5, (count,), generator=random)
        labels.append({"class_labels": classes, "boxes": boxes, "noise_seed": torch.tensor([seed])})
    pixels = image(64, 96, batch=len(counts))
    pixels = (255 * pixels).to(dtype) if dtype == torch.uint8 else pixels.to(dtype)
    return {"pixel_values": pixels, "labels": labels}


def weights(model: torch.nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_parts_give_the_update_of_the_whole_batch() -> None:
    """Where normalization is fixed; denoising and the number of objects are those of the whole batch."""
    batch = draw_batch(3, 0, 1, 5, dtype=torch.float64)
    results = []
    for part in (4, 2, 1):
        model = make_model().double()
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eval()
        step = make_step(model, part)
        result = step(batch, 0)
        assert result.part == part
        results.append((weights(model), result.losses["loss"], result.gradient_norm))
    for moved, loss, norm in results[1:]:
        torch.testing.assert_close(moved, results[0][0], rtol=1e-12, atol=1e-14)
        assert loss == pytest.approx(results[0][1], rel=1e-12)
        assert norm == pytest.approx(results[0][2], rel=1e-10)


def test_a_step_moves_the_weights_by_a_clipped_gradient_and_the_average_after_them() -> None:
    model = make_model()
    step = make_step(model)
    before, average = weights(model), weights(step.average.module)
    result = step(draw_batch(3, 1), 0)
    moved = weights(model) - before
    assert not result.skipped
    assert result.gradient_norm > 0.1
    assert float(moved.norm()) == pytest.approx(0.1 * 0.1, rel=1e-3)
    assert step.average.updates == 1
    assert not torch.equal(weights(step.average.module), average)
    assert result.losses["loss"] == pytest.approx(
        sum(value for name, value in result.losses.items() if name != "loss"), rel=1e-5
    )


def test_the_same_seeds_give_the_same_bits() -> None:
    batch, moved = draw_batch(3, 1), []
    for seeds in ([1, 2], [1, 2], [1, 3]):
        model = make_model()
        for label, seed in zip(batch["labels"], seeds, strict=True):
            label["noise_seed"] = torch.tensor([seed])
        make_step(model)(batch, 0)
        moved.append(weights(model))
    assert torch.equal(moved[0], moved[1])
    assert not torch.equal(moved[0], moved[2])


@pytest.mark.parametrize("broken", ["loss", "gradient"])
def test_a_step_that_is_not_finite_changes_nothing(
    broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model()
    step = make_step(model)
    before = copy.deepcopy(step.optimizer.state_dict()), copy.deepcopy(model.state_dict())
    batch = draw_batch(2, 2)
    if broken == "loss":
        batch["pixel_values"] = torch.full((2, 3, 64, 96), torch.nan)
    else:
        model.class_embed[0].weight.register_hook(lambda grad: grad * torch.inf)
    result = step(batch, 0)
    assert result.skipped
    assert step.optimizer.state_dict()["state"] == before[0]["state"]
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[1][name]), name
    assert step.average.updates == 0
    assert all(parameter.grad is None for parameter in model.parameters())


def test_out_of_memory_halves_the_parts_and_repeats_the_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = make_model()
    step = make_step(model, part=7)
    limit_memory(model, 2, monkeypatch)
    result = step(draw_batch(1, 2, 0, 1, 1, 1, 1), 0)
    assert (result.part, step.part) == (2, 2)
    assert not result.skipped


def test_a_rehearsal_finds_what_fits_and_changes_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = make_model()
    step = make_step(model, part=7)
    before = copy.deepcopy(model.state_dict())
    limit_memory(model, 3, monkeypatch)
    step.rehearse(draw_batch(1, 2, 0, 1, 1, 1, 1))
    assert step.part == 2
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_an_image_that_does_not_fit_is_said_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model()
    limit_memory(model, 0, monkeypatch)
    with pytest.raises(RTDetrError, match=r"one image of 96x64 .*imgsz"):
        make_step(model)(draw_batch(1, 2), 0)


def limit_memory(
    model: RTDetrV2ForObjectDetection, images: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Let the model run out of memory beyond so many images at once."""
    forward = model.forward

    def limited(pixels: Tensor, **options: Any) -> Any:
        if len(pixels) > images:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return forward(pixels, **options)

    monkeypatch.setattr(model, "forward", limited)


def test_sixteen_bits_learn_too() -> None:
    model = make_model()
    step = make_step(model, precision=Precision(torch.bfloat16))
    losses = [step(draw_batch(3, 1), number).losses["loss"] for number in range(6)]
    assert losses[-1] < losses[0]
    assert model.dtype == torch.float32


def test_scaled_gradients_give_the_same_step_and_infinity_lowers_the_scale() -> None:
    moved = []
    for scaler in (None, torch.amp.GradScaler("cpu", init_scale=1024.0)):
        model = make_model()
        step = make_step(model, precision=Precision(scaler=scaler))
        step(draw_batch(3, 1), 0)
        moved.append(weights(model))
    torch.testing.assert_close(moved[0], moved[1])
    assert scaler is not None
    batch = draw_batch(3, 1)
    batch["pixel_values"] = torch.full((2, 3, 64, 96), torch.nan)
    assert step(batch, 1).skipped
    assert scaler.get_scale() == 512.0
    assert torch.equal(weights(model), moved[1])
    assert not step(draw_batch(3, 1), 2).skipped
