# SPDX-License-Identifier: Apache-2.0
"""Which images make a batch, on each rank, in each step of each epoch: a function of the seed, without a state."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from ..checking import check, check_int
from .annotations import IntArray
from .balance import Factors, round_at_random
from .dataset import Key
from .random_streams import order_stream, repeat_stream

__all__ = ["TrainingBatches", "shard_batches"]


class TrainingBatches(Sampler[list[Key]]):
    """The batches of an epoch: every image once, in another order each time, shared out among ranks.

    What does not fill the last batch is left out; of fewer images than a batch, some come again.

    Args:
        images: N.
        batch: images of a step on this rank.
        seed: of the order.
        rank, ranks: which process of how many; together they take ``batch * ranks`` images in a step.
        factors: [N] how often each image comes in relation to others, from
            :func:`~rtdetr.data.balance.repeat_factors`; N images make an epoch all the same.
    """

    def __init__(
        self,
        images: int,
        batch: int,
        *,
        seed: int = 0,
        rank: int = 0,
        ranks: int = 1,
        factors: Factors | None = None,
    ) -> None:
        check_int("images", images, 1)
        check_int("batch", batch, 1)
        check_int("ranks", ranks, 1)
        check(0 <= rank < ranks, "rank", f"a number within 0..{ranks - 1}", rank)
        check(factors is None or len(factors) == images, "factors", f"{images} numbers", factors)
        self.images, self.batch, self.seed = images, batch, seed
        self.rank, self.ranks, self.factors = rank, ranks, factors
        self.set_epoch(0)

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return max(1, self.images // (self.batch * self.ranks))

    def set_epoch(self, epoch: int, first_step: int = 0) -> None:
        """Which epoch comes next, and at which of its steps it begins: later than 0 where a run goes on."""
        check_int("epoch", epoch, 0)
        check(0 <= first_step <= self.steps, "first_step", f"0..{self.steps}", first_step)
        self.epoch, self.first_step = epoch, first_step

    def __len__(self) -> int:
        return self.steps - self.first_step

    def __iter__(self) -> Iterator[list[Key]]:
        keys = _number_repeats(self.epoch, self.order(self.epoch))
        for step in range(self.first_step, self.steps):
            start = (step * self.ranks + self.rank) * self.batch
            yield keys[start : start + self.batch]

    def order(self, epoch: int) -> IntArray:
        """[steps * batch * ranks] images in the order in which all ranks together take them."""
        rng = order_stream(self.seed, epoch)
        pool = np.arange(self.images)
        if self.factors is not None:
            pool = np.repeat(pool, round_at_random(self.factors, repeat_stream(self.seed, epoch)))
        total = self.steps * self.batch * self.ranks
        return np.resize(rng.permutation(pool)[: self.images], total)


def shard_batches(images: int, batch: int, rank: int = 0, ranks: int = 1) -> list[list[int]]:
    """Batches of every image once, in order; each of the ranks has its own. The last batch may be shorter."""
    own = list(range(rank, images, ranks))
    return [own[start : start + batch] for start in range(0, len(own), batch)]


def _number_repeats(epoch: int, order: IntArray) -> list[Key]:
    """Keys; an image that comes again is not augmented as it was before."""
    seen: dict[int, int] = {}
    keys = []
    for index in order.tolist():
        keys.append(Key(epoch, index, seen.get(index, 0)))
        seen[index] = seen.get(index, 0) + 1
    return keys
