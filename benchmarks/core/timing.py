# SPDX-License-Identifier: Apache-2.0
"""Timing of things that take turns on one device: whole models, single calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext

from core.devices import Device

__all__ = ["take_turns"]


def take_turns(
    device: Device,
    functions: Mapping[str, Callable[[], object]],
    rounds: int,
    calls: int = 1,
    warmup: int = 1,
    around: Mapping[str, Callable[[], AbstractContextManager[object]]] | None = None,
) -> dict[str, list[float]]:
    """Seconds per call, one entry per round; in every round each function has its turn.

    Args:
        device: runs and times them.
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
                elapsed = device.seconds(function, calls)
            if turn >= 0:
                seconds[name].append(elapsed)
    return seconds
