# SPDX-License-Identifier: Apache-2.0
"""No result depends on what memory held before: neither fresh blocks nor the scratch arrays that kernels reuse."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from cases import RAGGED, each_mode, in_mode

from rtdetr_ops.testing.inputs import Case, Fused, Storage, make_call
from rtdetr_ops.testing.tester import Target, assert_matches_reference
from rtdetr_ops.testing.workloads import Workload

CASES = {
    "plain": Case(RAGGED),
    "plain_float64": Case(RAGGED, Storage(torch.float64)),
    "fused_box": Case(RAGGED, Storage(torch.bfloat16, torch.float32), Fused(4, masked=True)),
    "fused_point": Case(RAGGED, fused=Fused(2, per_level=True)),
    # No point of the second level is inside, and nothing else writes to its pixels.
    "level_without_points": Case(replace(RAGGED, points=(3, 0, 0))),
    "many_blocks": Case(Workload("many_blocks", 2, 301, 2, ((9, 11), (5, 4)), (5, 3), 32)),
}
each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def test_fresh_blocks_are_nan() -> None:
    """The fixture of conftest.py works, or this says that it cannot."""
    fresh = torch.empty(1000)
    if not fresh.isnan().all():
        pytest.skip("this allocator cannot fill fresh memory (not glibc, or a sanitizer's)")
    assert torch.empty(100_000, dtype=torch.bfloat16).isnan().all()


@each_mode
@each_case
def test_scratch_of_another_call_does_not_leak(kernel: Target, case: Case, mode: str) -> None:
    # A call on nothing but NaN leaves NaN in every scratch array; one on infinities leaves those.
    case = in_mode(case, mode)
    for poison in (math.nan, math.inf):
        kernel.run(
            make_call(case).map(lambda tensor, poison=poison: torch.full_like(tensor, poison))
        )
        assert_matches_reference(kernel, case)


@each_case
def test_scratch_of_a_wider_call_does_not_leak(kernel: Target, case: Case) -> None:
    wide = replace(case, workload=replace(case.workload, channels=77, queries=400))
    kernel.run(make_call(wide).map(lambda tensor: torch.full_like(tensor, math.nan)))
    assert_matches_reference(kernel, case)
