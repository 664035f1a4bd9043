# SPDX-License-Identifier: Apache-2.0
"""One function on many numbers, in processes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

__all__ = ["map_in_processes"]

Key = TypeVar("Key")
Result = TypeVar("Result")
CHUNK = 16
"""Keys that are sent to a process at a time."""


def map_in_processes(
    function: Callable[[Key], Result], keys: Iterable[Key], workers: int
) -> Iterator[Result]:
    """The results in the order of the keys; 0 workers is this process."""
    if workers == 0:
        yield from map(function, keys)
        return
    # A process that is forked while threads of torch run may hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context) as pool:
        yield from pool.map(function, keys, chunksize=CHUNK)
