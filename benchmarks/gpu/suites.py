# SPDX-License-Identifier: Apache-2.0
"""What is measured of a contender: each suite of a result file is one way to run and time it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from core.devices import Device, Limits
from core.timed_cases import Bound, Case
from core.verify import check_forward, check_gradients

__all__ = ["SUITES", "Suite"]

GRAPH_CALLS = 20
"""Calls captured in one graph: the gap between two replays is shared among them."""

HOST_CALLS = 100


@dataclass(frozen=True)
class Suite:
    """One way to run and time a contender.

    Args:
        measure: seconds of the given function on the device, one entry per repetition.
        part: the function of a bound contender that is timed.
        check: raises AssertionError where what that computes is wrong.
        fused: whether it is the fused entry's.
        around: what the contender runs in.
        ours_only: whether it makes sense for this package's contenders alone.
    """

    measure: Callable[[Device, Callable[[], object], Limits], list[float]]
    part: Callable[[Bound], Callable[[], object]]
    check: Callable[[Bound, Case], None]
    fused: bool = False
    around: Callable[[], AbstractContextManager[None]] = nullcontext
    ours_only: bool = False

    def run(self, bound: Bound, case: Case, device: Device, limits: Limits) -> list[float]:
        """Seconds of every repetition, if the contender is right."""
        with self.around():
            self.check(bound, case)
            return self.measure(device, self.part(bound), limits)


def _cold(device: Device, function: Callable[[], object], limits: Limits) -> list[float]:
    return device.time_launch(function, limits)


def _replayed(device: Device, function: Callable[[], object], limits: Limits) -> list[float]:
    return device.time_graph(function, GRAPH_CALLS, limits)


def _on_the_host(device: Device, function: Callable[[], object], limits: Limits) -> list[float]:
    return device.time_host(function, HOST_CALLS, limits)


def _forward(bound: Bound) -> Callable[[], object]:
    return bound.forward


def _forward_backward(bound: Bound) -> Callable[[], object]:
    return bound.forward_backward


def _backward(bound: Bound) -> Callable[[], object]:
    """The backward alone, over and over the same graph."""
    out = bound.kernel(*bound.leaves)
    return lambda: torch.autograd.grad(
        out, bound.leaves, bound.grad_out, retain_graph=True, allow_unused=True
    )


@contextmanager
def _deterministic() -> Iterator[None]:
    """Without torch's filling of every fresh tensor, which finds bugs and is not part of the cost."""
    settings = torch.utils.deterministic
    fills, settings.fill_uninitialized_memory = settings.fill_uninitialized_memory, False
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)
        settings.fill_uninitialized_memory = fills


SUITES = {
    "forward": Suite(_cold, _forward, check_forward),
    "forward+backward": Suite(_cold, _forward_backward, check_gradients),
    "backward": Suite(_cold, _backward, check_gradients, ours_only=True),
    "backward, deterministic": Suite(
        _cold, _backward, check_gradients, around=_deterministic, ours_only=True
    ),
    "fused forward": Suite(_cold, _forward, check_forward, fused=True),
    "fused forward+backward": Suite(_cold, _forward_backward, check_gradients, fused=True),
    "fused forward, graph": Suite(_replayed, _forward, check_forward, fused=True),
    "fused forward+backward, graph": Suite(
        _replayed, _forward_backward, check_gradients, fused=True
    ),
    "call": Suite(_on_the_host, _forward, check_forward),
}
"""By their names in result files."""
