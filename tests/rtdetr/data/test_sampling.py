# SPDX-License-Identifier: Apache-2.0
"""Which image comes when: every image once, shared out among ranks, the same for the same seed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rtdetr.data import Annotations, Categories, Key, TrainingBatches, repeat_factors, shard_batches
from rtdetr.data.annotations import FileNames
from rtdetr.data.balance import round_at_random


def images_of(batches: list[list[Key]]) -> list[int]:
    return [key.image for batch in batches for key in batch]


def test_an_epoch_is_every_image_once() -> None:
    batches = TrainingBatches(12, 4)
    assert len(batches) == 3
    assert sorted(images_of(list(batches))) == list(range(12))


def test_what_fills_no_batch_is_left_out() -> None:
    batches = TrainingBatches(14, 4)
    images = images_of(list(batches))
    assert len(images) == 12
    assert len(set(images)) == 12


def test_another_order_in_each_epoch_and_for_each_seed() -> None:
    orders = []
    for seed in range(3):
        batches = TrainingBatches(20, 4, seed=seed)
        for epoch in range(3):
            batches.set_epoch(epoch)
            assert list(batches) == list(batches)
            assert {key.epoch for batch in batches for key in batch} == {epoch}
            orders.append(tuple(images_of(list(batches))))
    assert len(set(orders)) == 9


def test_fewer_images_than_a_batch_come_again() -> None:
    (batch,) = list(TrainingBatches(3, 8))
    assert len(batch) == 8
    assert len(set(batch)) == 8
    assert [sorted(key.image for key in batch).count(image) for image in range(3)] in (
        [3, 3, 2], [3, 2, 3], [2, 3, 3],
    )  # fmt: skip
    assert max(key.repeat for key in batch) == 2


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_ranks_share_the_images_of_a_step(ranks: int) -> None:
    """Together they take what one process takes in the same step."""
    single = list(TrainingBatches(37, 8, seed=1))
    parts = [
        list(TrainingBatches(37, 8 // ranks, seed=1, rank=r, ranks=ranks)) for r in range(ranks)
    ]
    for step, batch in enumerate(single):
        assert [key for part in parts for key in part[step]] == batch


def test_an_epoch_goes_on_where_it_was_left() -> None:
    batches = TrainingBatches(40, 4, seed=2)
    batches.set_epoch(3)
    whole = list(batches)
    batches.set_epoch(3, first_step=6)
    assert len(batches) == 4
    assert list(batches) == whole[6:]


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no images": ({"images": 0}, "images: expected an int >= 1, got 0"),
    "no batch": ({"batch": 0}, "batch"),
    "rank": ({"rank": 2, "ranks": 2}, "rank: expected a number within 0..1, got 2"),
    "factors": ({"factors": np.ones(3)}, "factors: expected 8 numbers"),
}


@pytest.mark.parametrize(("arguments", "words"), BAD.values(), ids=BAD)
def test_bad_arguments(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        TrainingBatches(**({"images": 8, "batch": 2} | arguments))


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_validation_takes_each_image_once(ranks: int) -> None:
    shards = [shard_batches(11, 4, rank, ranks) for rank in range(ranks)]
    images = [image for shard in shards for batch in shard for image in batch]
    assert sorted(images) == list(range(11))
    assert all(len(batch) <= 4 for shard in shards for batch in shard)
    if ranks == 1:
        assert images == list(range(11))


def split_with(classes: list[list[int]], crowds: list[list[bool]] | None = None) -> Annotations:
    flat = [label for image in classes for label in image]
    return Annotations(
        root="",
        names=FileNames([str(index) for index in range(len(classes))]),
        image_ids=np.arange(len(classes)),
        sizes=np.full((len(classes), 2), 10),
        starts=np.cumsum([0, *map(len, classes)]),
        boxes=np.zeros((len(flat), 4), np.float32),
        classes=np.asarray(flat, dtype=np.int64),
        crowds=np.concatenate(crowds) if crowds else np.zeros(len(flat), np.bool_),
        categories=Categories.numbered(["a", "b", "c"]),
    )


def test_repeat_factors() -> None:
    """By hand: class 0 in 8 of 10 images, class 1 in 1 of 10, class 2 in none; threshold 0.4."""
    split = split_with([[0, 0]] * 7 + [[0, 1, 1], [], []])
    np.testing.assert_allclose(repeat_factors(split, 0.4), [1] * 7 + [2, 1, 1])
    np.testing.assert_allclose(repeat_factors(split), 1)


def test_crowds_make_no_image_rare() -> None:
    split = split_with([[0]] * 9 + [[1]], [[False]] * 9 + [[True]])
    np.testing.assert_allclose(repeat_factors(split, 0.4), 1)


def test_factors_are_met_on_average() -> None:
    factors = np.asarray([1, 1.25, 2.5, 3])
    draws = [round_at_random(factors, np.random.default_rng(seed)) for seed in range(4000)]
    np.testing.assert_allclose(np.mean(draws, 0), factors, atol=0.03)


def test_balanced_epochs_are_as_long_and_have_more_of_the_rare() -> None:
    factors = np.ones(100)
    factors[:10] = 3
    batches = TrainingBatches(100, 10, factors=factors)
    rare = 0
    for epoch in range(50):
        batches.set_epoch(epoch)
        images = images_of(list(batches))
        assert len(images) == 100
        rare += sum(image < 10 for image in images)
    # Of a pool of 120 with 30 rare ones, 100 are taken.
    assert rare / 50 == pytest.approx(25, abs=1)
