# SPDX-License-Identifier: Apache-2.0
"""Timing of things that take turns: whole models, imports, single calls."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext

__all__ = ["take_turns"]


def take_turns(
    functions: Mapping[str, Callable[[], object]],
    rounds: int,
    calls: int = 1,
    warmup: int = 1,
    around: Mapping[str, Callable[[], AbstractContextManager[object]]] | None = None,
) -> dict[str, list[float]]:
    """Seconds per call, one entry per round; in every round each function has its turn.

    Args:
        functions: by contender name.
        rounds: how many turns each has.
        calls: how many calls one turn makes.
        warmup: turns made before, not counted.
        around: contexts that turns of a contender happen in; entering and leaving them is not timed.
    """
    contexts = around or {}
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(-warmup, rounds):
        for name, function in functions.items():
            with contexts.get(name, nullcontext)():
                start = time.perf_counter()
                for _ in range(calls):
                    function()
                elapsed = time.perf_counter() - start
            if turn >= 0:
                seconds[name].append(elapsed / calls)
    return seconds
