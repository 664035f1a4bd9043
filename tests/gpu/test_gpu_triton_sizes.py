# SPDX-License-Identifier: Apache-2.0
"""Multi-scale training feeds images of many sizes: the Triton kernels are compiled for the first one alone."""

from __future__ import annotations

import pytest
from on_gpu import forward_backward, gpu_targets

from rtdetr_ops.testing.inputs import Case, Fused, make_call
from rtdetr_ops.testing.workloads import Workload

SIDES = (*range(480, 640, 32), 640, 640, 640, *range(672, 801, 32))
"""Of the square images of RT-DETR's recipe; the middle one is drawn more often."""

COUNTS = (3, 5, 4)
"""Of points on the levels: no other test has these, whose kernels would be here already."""


def at_side(side: int, every_pixel: bool) -> Workload:
    """Self-attention over every pixel, or the 300 queries of a decoder."""
    levels = tuple((side // stride, side // stride) for stride in (8, 16, 32))
    queries = sum(height * width for height, width in levels) if every_pixel else 300
    return Workload(f"side_{side}", 1, queries, 8, levels, COUNTS, 32)


@pytest.fixture
def compiled(cuda: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the kernels that Triton compiles, or takes from its cache on disk, from now on."""
    if "triton" not in {target.name for target in gpu_targets()}:
        pytest.skip("Triton does not run here")
    import triton

    names: list[str] = []
    monkeypatch.setattr(
        triton.knobs.runtime, "jit_cache_hook", lambda **event: names.append(event["repr"])
    )
    return names


@pytest.mark.parametrize("every_pixel", [False, True], ids=["decoder", "encoder"])
@pytest.mark.parametrize("form", [None, Fused(4)], ids=["plain", "fused_box"])
def test_another_size_compiles_nothing(
    compiled: list[str], form: Fused | None, every_pixel: bool
) -> None:
    for number, side in enumerate(SIDES):
        call = make_call(Case(at_side(side, every_pixel), fused=form)).to("cuda")
        forward_backward(call, "triton")()
        if number == 0:
            assert compiled, "the hook hears nothing"
            compiled.clear()
    assert len(SIDES) == 13
    assert compiled == []
