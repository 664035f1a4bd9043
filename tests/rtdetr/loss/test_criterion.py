# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rtdetr.config import RTDetrV2Config
from rtdetr.loss import (
    DenoisingPredictions,
    Matches,
    MatchingCosts,
    Objects,
    Predictions,
    compute_losses,
    match,
)

GOLDEN = Path(__file__).parents[2] / "golden" / "criterion.npz"
LAYERS = ("aux_0", "aux_1", "outputs")
DENOISING = ("dn_0", "dn_1", "dn_2")


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    with np.load(GOLDEN) as file:
        return {name: torch.from_numpy(np.asarray(file[name])) for name in file}


def of(heads: tuple[str, ...], kind: str, golden: dict[str, Tensor]) -> Tensor:
    return torch.stack([golden[f"{head}/{kind}"] for head in heads])


def golden_objects(golden: dict[str, Tensor]) -> Objects:
    labels = [
        {"class_labels": golden[f"target_{i}/labels"], "boxes": golden[f"target_{i}/boxes"]}
        for i in range(3)
    ]
    return Objects.from_labels(labels, 3, 5, torch.device("cpu"))


def golden_denoising(golden: dict[str, Tensor], leaves: dict[str, Tensor]) -> DenoisingPredictions:
    groups, start, pairs = int(golden["dn_num_group"]), 0, []
    for image in range(3):
        query = golden[f"target_{image}/dn_positive_idx"]
        count = len(golden[f"target_{image}/labels"])
        target = start + torch.arange(count).repeat(groups)
        pairs.append(torch.stack([torch.full_like(query, image), query, target]))
        start += count
    matches = Matches(*torch.cat(pairs, 1)[:, None])
    return DenoisingPredictions(leaves["dn_logits"], leaves["dn_boxes"], matches, groups)


def test_terms_and_gradients_are_those_of_the_original(golden: dict[str, Tensor]) -> None:
    leaves = {
        "logits": of(LAYERS, "pred_logits", golden),
        "boxes": of(LAYERS, "pred_boxes", golden),
        "encoder_logits": golden["enc_0/pred_logits"],
        "encoder_boxes": golden["enc_0/pred_boxes"],
        "dn_logits": of(DENOISING, "pred_logits", golden),
        "dn_boxes": of(DENOISING, "pred_boxes", golden),
    }
    leaves = {name: leaf.clone().requires_grad_() for name, leaf in leaves.items()}
    plain = [leaves[n] for n in ("logits", "boxes", "encoder_logits", "encoder_boxes")]
    predictions = Predictions(*plain, golden_denoising(golden, leaves))
    losses = compute_losses(predictions, golden_objects(golden), RTDetrV2Config(num_labels=5))

    expected = {n.split("/")[1]: v for n, v in golden.items() if n.startswith("losses/")}
    names = {name: name.replace("_enc_0", "_aux_2") for name in expected}
    assert set(losses) == set(names.values())
    for name, value in expected.items():
        torch.testing.assert_close(losses[names[name]].double(), value, rtol=1e-6, atol=0)

    sum(losses.values()).backward()  # type: ignore[union-attr]
    for leaf, heads, kind in (
        ("logits", LAYERS, "logits"),
        ("boxes", LAYERS, "boxes"),
        ("encoder_logits", ("enc_0",), "logits"),
        ("encoder_boxes", ("enc_0",), "boxes"),
        ("dn_logits", DENOISING, "logits"),
        ("dn_boxes", DENOISING, "boxes"),
    ):
        right = of(heads, f"grad_pred_{kind}", golden)
        grad = leaves[leaf].grad
        assert grad is not None
        torch.testing.assert_close(grad.reshape(right.shape), right, rtol=1e-6, atol=1e-6)


def test_matches_are_those_of_the_original(golden: dict[str, Tensor]) -> None:
    objects = golden_objects(golden)
    logits, boxes = golden["outputs/pred_logits"][None], golden["outputs/pred_boxes"][None]
    matches = match(MatchingCosts().of_pairs(logits, boxes, objects), objects)
    for image, start in enumerate(objects.starts()):
        here = matches.image[0] == image
        assert matches.query[0][here].tolist() == golden[f"match_{image}/query"].tolist()
        assert (matches.target[0][here] - start).tolist() == golden[
            f"match_{image}/target"
        ].tolist()


def draw_labels(
    random: torch.Generator, counts: tuple[int, ...], classes: int
) -> list[dict[str, Tensor]]:
    return [
        {
            "class_labels": torch.randint(classes, (count,), generator=random),
            "boxes": draw_boxes(random, count),
        }
        for count in counts
    ]


def draw_boxes(random: torch.Generator, *shape: int) -> Tensor:
    """Inside the image, with sides down to a hundredth of it."""
    size = 0.01 + 0.4 * torch.rand(*shape, 2, generator=random)
    center = size / 2 + (1 - size) * torch.rand(*shape, 2, generator=random)
    return torch.cat([center, size], -1)


def draw_cases() -> Iterator[tuple[int, int, tuple[int, ...]]]:
    """Seeds, classes and objects of images: none, few, more than queries."""
    for seed in range(200):
        random = np.random.default_rng(seed)
        most = (3, 30, 120, 400)[seed % 4] if seed % 20 == 3 else (3, 30)[seed % 2]
        counts = random.integers(0, most + 1, random.integers(1, 4))
        yield seed, (1, 2, 80)[seed % 3], tuple(int(n) for n in counts)


def test_200_random_batches_lose_what_transformers_says() -> None:
    reference = pytest.importorskip("transformers.loss.loss_rt_detr")
    for seed, classes, counts in draw_cases():
        ours, theirs = both_losses(reference, seed, classes, counts)
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-9, msg=f"seed {seed}")


def both_losses(
    reference: Any, seed: int, classes: int, counts: tuple[int, ...]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Terms and gradients in float64, by these rules and by transformers'."""
    random = torch.Generator().manual_seed(seed)
    labels = draw_labels(random, counts, classes)
    for label in labels:
        label["boxes"] = label["boxes"].double()
    layers, batch, queries = 3, len(counts), 50
    logits = (3 * torch.randn(layers + 1, batch, queries, classes, generator=random) - 2).double()
    boxes = draw_boxes(random, layers + 1, batch, queries).double()
    config = RTDetrV2Config(num_labels=classes)
    objects = Objects.from_labels(labels, len(counts), classes, torch.device("cpu"))  # type: ignore[arg-type]
    criterion = reference.RTDetrLoss(config)

    def ours(x: Tensor, y: Tensor) -> dict[str, Tensor]:
        return compute_losses(Predictions(x[:-1], y[:-1], x[-1], y[-1]), objects, config)

    def theirs(x: Tensor, y: Tensor) -> Any:
        return criterion(_as_transformers(x, y), labels)

    return _losses_and_gradients(ours, logits, boxes), _losses_and_gradients(theirs, logits, boxes)


def _as_transformers(logits: Tensor, boxes: Tensor) -> dict[str, Any]:
    """Decoder layers, the last of them apart, then the encoder."""
    heads = [{"logits": x, "pred_boxes": y} for x, y in zip(logits, boxes, strict=True)]
    return {**heads[-2], "auxiliary_outputs": [*heads[:-2], heads[-1]]}


def _losses_and_gradients(losses_of: Any, logits: Tensor, boxes: Tensor) -> dict[str, Tensor]:
    leaves = [logits.clone().requires_grad_(), boxes.clone().requires_grad_()]
    losses: dict[str, Tensor] = losses_of(*leaves)
    sum(losses.values()).backward()  # type: ignore[union-attr]
    gradients = {f"grad_{i}": leaf.grad for i, leaf in enumerate(leaves)}
    return {
        name: value.detach() for name, value in (losses | gradients).items() if value is not None
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("objects_have_area", [True, False])
def test_sure_queries_and_boxes_without_area_are_finite_and_matched_as_in_float32(
    dtype: torch.dtype, objects_have_area: bool
) -> None:
    random = torch.Generator().manual_seed(0)
    counts, classes, queries = (5, 0, 9), 4, 20
    labels = draw_labels(random, counts, classes)
    if not objects_have_area:
        labels[0]["boxes"][:, 2:] = 0
    objects = Objects.from_labels(labels, len(counts), classes, torch.device("cpu"))  # type: ignore[arg-type]
    logits = 20 * torch.randn(2, 3, queries, classes, generator=random).sign()
    boxes = draw_boxes(random, 2, 3, queries)
    boxes[:, :, :4, 2:] = 0
    boxes[:, 0, 5] = labels[0]["boxes"][0]
    stored = [logits.to(dtype).requires_grad_(), boxes.to(dtype).requires_grad_()]
    with torch.autocast("cpu", torch.bfloat16):
        losses = compute_losses(
            Predictions(*stored, stored[0][-1], stored[1][-1]),
            objects,
            RTDetrV2Config(num_labels=4),
        )
    sum(losses.values()).backward()  # type: ignore[union-attr]
    assert all(loss.isfinite() and loss.dtype == torch.float32 for loss in losses.values())
    assert all(leaf.grad is not None and leaf.grad.isfinite().all() for leaf in stored)
    wide = [leaf.detach().float() for leaf in stored]
    costs = MatchingCosts().of_pairs(*wide, objects)
    assert costs.isfinite().all()


def test_a_batch_without_objects_teaches_background_alone() -> None:
    logits = torch.randn(2, 2, 10, 3).requires_grad_()
    boxes = torch.rand(2, 2, 10, 4).requires_grad_()
    labels = draw_labels(torch.Generator(), (0, 0), 3)
    objects = Objects.from_labels(labels, 2, 3, torch.device("cpu"))  # type: ignore[arg-type]
    none = torch.empty(1, 0, dtype=torch.int64)
    denoising = DenoisingPredictions(logits, boxes, Matches(none, none, none), 1)
    losses = compute_losses(
        Predictions(logits, boxes, logits[0], boxes[0], denoising),
        objects,
        RTDetrV2Config(num_labels=3),
    )
    assert losses["loss_vfl"] > 0
    assert losses["loss_bbox"] == losses["loss_giou"] == 0
    assert losses["loss_vfl_dn_0"] == 0
    sum(losses.values()).backward()  # type: ignore[union-attr]
    assert boxes.grad is not None
    assert (boxes.grad == 0).all()


def test_a_query_that_is_not_a_number_wins_nothing_another_can_have() -> None:
    random = torch.Generator().manual_seed(0)
    objects = Objects.from_labels(draw_labels(random, (3,), 2), 1, 2, torch.device("cpu"))  # type: ignore[arg-type]
    logits, boxes = torch.randn(1, 1, 5, 2, generator=random), draw_boxes(random, 1, 1, 5)
    logits[0, 0, 1], boxes[0, 0, 3] = torch.nan, torch.inf
    matches = match(MatchingCosts().of_pairs(logits, boxes, objects), objects)
    assert matches.query.tolist() == [[0, 2, 4]]


def test_the_terms_of_auxiliary_heads_are_left_out_on_request() -> None:
    random = torch.Generator().manual_seed(0)
    objects = Objects.from_labels(draw_labels(random, (3,), 2), 1, 2, torch.device("cpu"))  # type: ignore[arg-type]
    logits, boxes = torch.randn(2, 1, 5, 2, generator=random), draw_boxes(random, 2, 1, 5)
    predictions = Predictions(logits, boxes, logits[0], boxes[0])
    losses = compute_losses(
        predictions, objects, RTDetrV2Config(num_labels=2, auxiliary_loss=False)
    )
    assert set(losses) == {"loss_vfl", "loss_bbox", "loss_giou"}


def test_one_score_for_all_classes_is_matched_and_taught_as_one_class() -> None:
    random = torch.Generator().manual_seed(0)
    objects = Objects.from_labels(draw_labels(random, (3, 2), 7), 2, 7, torch.device("cpu"))  # type: ignore[arg-type]
    logits, boxes = torch.randn(2, 2, 9, 7, generator=random), draw_boxes(random, 2, 2, 9)
    one = torch.randn(2, 9, 1, generator=random)
    losses = compute_losses(
        Predictions(logits, boxes, one, boxes[0]), objects, RTDetrV2Config(num_labels=7)
    )
    same = Objects(torch.zeros_like(objects.classes), objects.boxes, objects.counts)
    alone = compute_losses(
        Predictions(one[None], boxes[:1], one, boxes[0]), same, RTDetrV2Config(num_labels=1)
    )
    assert losses["loss_vfl_aux_1"] == alone["loss_vfl"]


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ({"boxes": torch.rand(1, 4)}, 'image 0 has no "class_labels"'),
        ({"class_labels": torch.zeros(2).long(), "boxes": torch.rand(1, 4)}, r"image 0 has \[2\]"),
        ({"class_labels": torch.tensor([5]), "boxes": torch.rand(1, 4)}, r"within 0\.\.4, got 5"),
        ({"class_labels": torch.tensor([-1]), "boxes": torch.rand(1, 4)}, "got -1"),
        ({"class_labels": torch.tensor([0]), "boxes": torch.full((1, 4), torch.nan)}, "finite"),
    ],
    ids=["no_classes", "unequal", "class_too_large", "class_negative", "nan"],
)
def test_wrong_labels_are_named(label: dict[str, Tensor], words: str) -> None:
    with pytest.raises(ValueError, match=f"labels: .*{words}"):
        Objects.from_labels([label], 1, 5, torch.device("cpu"))  # type: ignore[list-item]
