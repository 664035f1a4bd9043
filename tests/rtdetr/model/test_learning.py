# SPDX-License-Identifier: Apache-2.0
"""Losses and gradients of whole detectors, beside those of transformers, and a detector that learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from model_cases import image, tiny_config, tiny_model
from test_parity import awaken, small
from torch import Tensor, nn

from rtdetr.boxes import cxcywh_to_xyxy, iou_and_giou
from rtdetr.model import RTDetrV2ForObjectDetection
from rtdetr.model.decoder import Decoder

Labels = list[dict[str, Tensor]]


def draw_labels(*counts: int, classes: int = 5, dtype: torch.dtype = torch.float32) -> Labels:
    random = torch.Generator().manual_seed(0)
    labels = []
    for count in counts:
        size = 0.1 + 0.3 * torch.rand(count, 2, generator=random)
        center = 0.3 + 0.4 * torch.rand(count, 2, generator=random)
        class_labels = torch.randint(classes, (count,), generator=random)
        labels.append(
            {"class_labels": class_labels, "boxes": torch.cat([center, size], 1).to(dtype)}
        )
    return labels


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """A detector without denoising of each kind, with the same weights, in float64."""
    theirs = awaken(small(num_denoising=0))
    folder: Path = tmp_path_factory.mktemp("theirs")
    theirs.save_pretrained(folder)
    ours = RTDetrV2ForObjectDetection.from_pretrained(folder)
    return ours.double(), theirs.double()


def test_evaluation_with_labels_has_the_loss_of_transformers(pair: tuple[Any, Any]) -> None:
    pixels, labels = image(96, 128, batch=3).double(), draw_labels(4, 0, 2, dtype=torch.float64)
    ours, theirs = (model.eval()(pixels, labels=labels) for model in pair)
    assert set(ours.loss_dict) == set(theirs.loss_dict)
    for name, value in theirs.loss_dict.items():
        torch.testing.assert_close(ours.loss_dict[name], value, rtol=1e-5, atol=1e-7, msg=name)
    torch.testing.assert_close(ours.loss, theirs.loss, rtol=1e-5, atol=0)
    assert len(ours.auxiliary_outputs) == len(theirs.auxiliary_outputs)
    assert ours.denoising_meta_values is None
    assert ours[0] is ours.loss


def take_step(model: Any, pixels: Tensor, labels: Labels) -> dict[str, Tensor]:
    """The gradients, after which the weights have moved."""
    model.zero_grad()
    model(pixels, labels=labels).loss.backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter -= 1e-4 * parameter.grad
    return gradients


def largest_difference(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """Over all gradients, in parts of the largest number of each."""
    assert set(ours) == set(theirs)
    return max(
        float((ours[n] - theirs[n]).abs().max() / theirs[n].abs().max().clamp(min=1e-3))
        for n in theirs
    )


@pytest.mark.parametrize("looks_twice", [False, True])
def test_three_steps_have_the_gradients_of_transformers(
    pair: tuple[Any, Any], looks_twice: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All but the one that transformers lacks: a layer's box teaches the layer before it."""
    if not looks_twice:
        monkeypatch.setattr(Decoder, "_look_twice", lambda *arguments: arguments[2])
    models = [RTDetrV2ForObjectDetection(pair[0].config).double(), small(num_denoising=0).double()]
    for model, like in zip(models, pair, strict=True):
        model.load_state_dict(like.state_dict())
        model.train()
    differences = []
    for step in range(3):
        pixels = image(96, 128, batch=2, seed=step).double()
        labels = draw_labels(3, 1, dtype=torch.float64)
        differences.append(largest_difference(*(take_step(m, pixels, labels) for m in models)))
    if looks_twice:
        assert differences[0] > 1e-2
    else:
        assert max(differences) < 1e-5


def test_every_parameter_that_trains_gets_a_gradient_with_objects_and_without() -> None:
    for counts in ((3, 0), (0, 0)):
        model = tiny_model().train()
        model(image(96, 96, batch=2), labels=draw_labels(*counts)).loss.backward()
        without = {n for n, p in model.named_parameters() if p.requires_grad and p.grad is None}
        assert not without


def test_an_image_of_fewer_pixels_than_queries_teaches() -> None:
    model = tiny_model(num_queries=50).train()
    outputs = model(image(32, 64, batch=2), labels=draw_labels(3, 1))
    noisy, queries = outputs.denoising_meta_values["dn_num_split"]
    assert (noisy + queries, queries) == (outputs.logits.shape[1], 42)
    outputs.loss.backward()


def test_a_batch_without_objects_teaches_the_denoising_classes_nothing() -> None:
    model = tiny_model().train()
    outputs = model(image(96, 96, batch=2), labels=draw_labels(0, 0))
    outputs.loss.backward()
    assert outputs.loss_dict["loss_vfl_dn_0"] == 0
    assert (model.model.denoising_class_embed.weight.grad == 0).all()


def test_denoising_stands_before_the_queries_of_the_image_and_they_do_not_see_it() -> None:
    model = tiny_model().train()
    pixels, labels = image(96, 96, batch=2), draw_labels(3, 1)
    with torch.no_grad():
        plain, noisy = model(pixels), model(pixels, labels=labels)
    first, queries = noisy.denoising_meta_values["dn_num_split"]
    assert (first, queries) == (2 * 33 * 3, 30)
    assert noisy.logits.shape == (2, first + queries, 5)
    torch.testing.assert_close(noisy.logits[:, first:], plain.logits, rtol=1e-4, atol=1e-5)
    assert set(noisy.loss_dict) == {
        f"loss_{kind}{head}"
        for kind in ("vfl", "bbox", "giou")
        for head in ("", *(f"_{name}_{i}" for name in ("aux", "dn") for i in range(3)))
    }


def test_generators_decide_the_noise() -> None:
    model = tiny_model().train()
    pixels, labels = image(96, 96, batch=2), draw_labels(3, 1)

    def loss(*seeds: int) -> Tensor:
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        with torch.no_grad():
            value: Tensor = model(pixels, labels=labels, generators=generators).loss_dict[
                "loss_bbox_dn_0"
            ]
        return value

    assert loss(1, 2) == loss(1, 2)
    assert loss(1, 2) != loss(1, 3)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (draw_labels(1), r"one entry for each of B=2 images, got 1"),
        (draw_labels(1, 1, 1), r"got 3"),
        (draw_labels(1, 30, classes=9), r"class_labels within 0\.\.4, got"),
    ],
    ids=["too_few", "too_many", "class"],
)
@pytest.mark.parametrize("training", [False, True])
def test_labels_that_do_not_fit_are_named(labels: Labels, words: str, training: bool) -> None:
    with pytest.raises(ValueError, match=f"^labels: .*{words}"):
        tiny_model().train(training)(image(64, 64, batch=2), labels=labels)


SIDE = 128
COLORS = torch.tensor([[1.0, 0.1, 0.1], [0.1, 1.0, 0.1], [0.2, 0.2, 1.0]])


def draw_scenes(count: int) -> tuple[Tensor, Labels]:
    """Images [N, 3, H, W] of one to three colored rectangles each; the color is the class."""
    random = torch.Generator().manual_seed(0)
    pixels = 0.4 + 0.1 * torch.rand(count, 3, SIDE, SIDE, generator=random)
    labels = []
    for scene in pixels:
        objects = 1 + int(torch.randint(3, (), generator=random))
        classes = torch.randint(3, (objects,), generator=random)
        boxes = torch.empty(objects, 4)
        for index, color in enumerate(COLORS[classes]):
            width, height = (24 + torch.randint(32, (2,), generator=random)).tolist()
            # Each in a third of its own: none hides another.
            left = index * SIDE // 3 + int(
                torch.randint(max(1, SIDE // 3 - width), (), generator=random)
            )
            top = int(torch.randint(SIDE - height, (), generator=random))
            width = min(width, (index + 1) * SIDE // 3 - left)
            scene[:, top : top + height, left : left + width] = color[:, None, None]
            box = (left + width / 2, top + height / 2, width, height)
            boxes[index] = torch.tensor(box) / SIDE
        labels.append({"class_labels": classes, "boxes": boxes})
    return pixels, labels


def test_a_detector_learns_eight_images_by_heart() -> None:
    torch.manual_seed(0)
    model = RTDetrV2ForObjectDetection(tiny_config(num_labels=3)).train()
    pixels, labels = draw_scenes(8)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    generators = [torch.Generator().manual_seed(i) for i in range(8)]
    for _ in range(100):
        loss = model(pixels, labels=labels, generators=generators).loss
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
    with torch.inference_mode():
        outputs = model.eval()(pixels)
    scores, classes = outputs.logits.sigmoid().max(-1)
    missed = 0
    for index, label in enumerate(labels):
        boxes, truth = cxcywh_to_xyxy(outputs.pred_boxes[index]), cxcywh_to_xyxy(label["boxes"])
        iou, _ = iou_and_giou(boxes[:, None], truth)
        right = (classes[index][:, None] == label["class_labels"]) & (scores[index][:, None] > 0.3)
        missed += int((~((iou > 0.5) & right).any(0)).sum())
    assert missed == 0


def test_one_image_teaches_what_two_of_it_teach() -> None:
    """Batch normalization must not mistake the layout of a gradient that comes from tokens."""
    model = tiny_model(num_denoising=0).double().train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    pixels, (label,) = image(64, 96).double(), draw_labels(3, dtype=torch.float64)
    gradients = []
    for count in (1, 2):
        model.zero_grad()
        model(pixels.expand(count, -1, -1, -1), labels=[label] * count).loss.backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    assert largest_difference(*gradients) < 1e-9
