# SPDX-License-Identifier: Apache-2.0
"""The search for block sizes: by Triton's interpreter with a made-up clock, or on a GPU with the real one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count

import pytest
from cases import RAGGED, SHAPES

from rtdetr_ops.environment import TRITON_INTERPRETED as INTERPRETED
from rtdetr_ops.testing.inputs import Case, Fused
from rtdetr_ops.testing.tester import Target, assert_matches_reference, targets

pytestmark = pytest.mark.skipif(
    "triton" not in {target.name for target in targets()}, reason="Triton does not run here"
)


class Clock:
    """As much of Triton's driver as the search needs: each trial takes less time than the one before."""

    def __init__(self) -> None:
        self.trials = 0
        self.times = count(0, -1)

    def get_benchmarker(self) -> Callable[..., list[int]]:
        def time(trial: Callable[[], None], quantiles: object) -> list[int]:
            trial()
            self.trials += 1
            return [next(self.times)] * 3

        return time


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    import triton

    from rtdetr_ops.ms_deform_attn import triton_tuning

    monkeypatch.setenv("RTDETR_OPS_TRITON_AUTOTUNE", "1")
    triton_tuning.tuned.cache_clear()
    clock = Clock()
    if INTERPRETED:
        triton.runtime.driver.set_active(clock)
    yield clock
    triton_tuning.tuned.cache_clear()
    if INTERPRETED:
        triton.runtime.driver.set_active(None)


@pytest.fixture
def searching() -> Target:
    return next(target for target in targets() if target.name == "triton")


@pytest.mark.parametrize("form", [None, Fused(4, masked=True)], ids=["plain", "fused_box"])
def test_gradients_are_those_of_one_run(
    clock: Clock, searching: Target, form: Fused | None
) -> None:
    # Each trial of a backward adds to the gradient of value.
    assert_matches_reference(searching, Case(RAGGED, fused=form))


@pytest.mark.skipif(not INTERPRETED, reason="counts the trials of a made-up clock")
def test_a_kind_of_call_is_searched_once(clock: Clock, searching: Target) -> None:
    assert_matches_reference(searching, Case(SHAPES[3]))
    assert clock.trials > 4  # several configurations, forward and backward
    before = clock.trials
    assert_matches_reference(searching, Case(SHAPES[3]))
    assert clock.trials == before


@pytest.mark.skipif(not INTERPRETED, reason="counts the trials of a made-up clock")
def test_nothing_is_tried_unless_asked(
    clock: Clock, searching: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RTDETR_OPS_TRITON_AUTOTUNE")
    assert_matches_reference(searching, Case(SHAPES[3]))
    assert clock.trials == 0
