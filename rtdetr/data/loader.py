# SPDX-License-Identifier: Apache-2.0
"""Batches made by worker processes that live for the whole run."""

from __future__ import annotations

import signal
from collections.abc import Iterable

import torch
from torch.utils.data import DataLoader

from .dataset import DetectionDataset, Item, Key, collate

__all__ = ["make_loader"]

GRACE = 10
"""Seconds that a worker lives on after SIGTERM, in which a run takes its last step."""


def make_loader(
    dataset: DetectionDataset,
    batches: Iterable[list[Key]] | Iterable[list[int]],
    *,
    workers: int = 0,
    pin_memory: bool = False,
    start_method: str | None = None,
) -> DataLoader[Item]:
    """A loader of :class:`~rtdetr.data.dataset.Batch`; the same batches for any number of workers.

    Args:
        dataset: the images.
        batches: their keys; asked again for every epoch.
        workers: processes; 0 makes batches in this one.
        pin_memory: whether batches lie in memory from which a GPU copies without waiting.
        start_method: "fork", "spawn" or "forkserver"; by default the system's.
    """
    return DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=pin_memory,
        persistent_workers=workers > 0,
        generator=torch.Generator(),  # else each epoch draws from the generator of the run
        multiprocessing_context=start_method if workers else None,
        worker_init_fn=_outlive_interruptions if workers else None,
    )


def _outlive_interruptions(_: int) -> None:
    """A terminal sends Ctrl-C to the workers too, and a batch system SIGTERM: the run, which ends them, comes first."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "alarm"):
        signal.signal(signal.SIGTERM, lambda *_: signal.alarm(GRACE) and None)
