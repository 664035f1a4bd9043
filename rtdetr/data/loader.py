# SPDX-License-Identifier: Apache-2.0
"""Batches made by worker processes that live for the whole run."""

from __future__ import annotations

import multiprocessing
import pickle
import signal
from collections.abc import Iterable
from typing import Any

import torch
from torch.utils.data import DataLoader

from ..errors import UsageError
from .dataset import DetectionDataset, Item, Key, collate

__all__ = ["end_workers", "make_loader"]

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

    Raises:
        UsageError: workers start anew, and what they need cannot be sent to them.
    """
    if workers and multiprocessing.get_context(start_method).get_start_method() != "fork":
        _check_sendable(dataset)
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


def _check_sendable(dataset: DetectionDataset) -> None:
    try:
        pickle.dumps(dataset)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise UsageError(
            f"workers: expected 0, or images and transforms that can be sent to another process, got {error}; a "
            "function is sent if it stands at the top of a module"
        ) from error


def end_workers(loader: Iterable[Any]) -> None:
    """End the processes of a loader, which otherwise live as long as anything names it, such as a traceback."""
    iterator = getattr(loader, "_iterator", None)
    # torch offers no other way but to forget the loader.
    shut_down = getattr(iterator, "_shutdown_workers", None)
    if shut_down is not None:
        shut_down()
        loader._iterator = None  # type: ignore[attr-defined] # the next pass starts others


def _outlive_interruptions(_: int) -> None:
    """A terminal sends Ctrl-C or SIGHUP to them too, a batch system SIGTERM: the run, which ends them, comes first."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "alarm"):
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: signal.alarm(GRACE) and None)
