# SPDX-License-Identifier: Apache-2.0
"""A few small calls that reach every kernel, for compute-sanitizer too, under which a call takes long."""

from __future__ import annotations

import pytest
import torch
from cases import BF16, F32, F64, RAGGED, each_mode, in_mode
from on_gpu import GpuTarget

from rtdetr_ops.testing.inputs import Case, Fused, Storage, make_call
from rtdetr_ops.testing.tester import assert_close_to_truth, assert_matches_reference
from rtdetr_ops.testing.workloads import Workload

# Heads of whole vectors; every pixel a query; a level small enough to be privatised, hit hard.
VECTORS = Workload("vectors", 2, 33, 2, ((4, 6), (2, 3), (1, 3)), (4, 4, 4), 32)
MANY_HITS = Workload("many_hits", 1, 200, 2, ((2, 2), (12, 12)), (4, 4), 16)

CASES = {
    "vectors_float32": Case(VECTORS),
    "vectors_bfloat16": Case(VECTORS, Storage(BF16, F32, F32)),
    "vectors_float64": Case(VECTORS, Storage(F64)),
    "odd_channels": Case(RAGGED),
    "odd_channels_bfloat16": Case(RAGGED, Storage(BF16)),
    "many_hits": Case(MANY_HITS),
    "fused_box_masked": Case(VECTORS, Storage(BF16), Fused(4, masked=True)),
    "fused_point_per_level": Case(RAGGED, fused=Fused(2, per_level=True)),
    "strided": Case(VECTORS, layout="value_stored_BMSD"),
}
each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@each_mode
@each_case
def test_matches_the_reference(kernel: GpuTarget, case: Case, mode: str) -> None:
    assert_matches_reference(kernel, in_mode(case, mode))


@each_case
def test_matches_the_reference_deterministically(
    kernel: GpuTarget, deterministic: None, case: Case
) -> None:
    assert_matches_reference(kernel, case)


@pytest.mark.parametrize("form", [None, Fused(2)], ids=["plain", "fused"])
def test_levels_in_device_memory(kernel: GpuTarget, form: Fused | None) -> None:
    call = make_call(Case(RAGGED, fused=form))
    call.options["levels"] = torch.tensor(RAGGED.levels)  # moves to the device with the call
    assert_close_to_truth(kernel, call)
