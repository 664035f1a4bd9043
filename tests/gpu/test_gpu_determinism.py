# SPDX-License-Identifier: Apache-2.0
"""The deterministic backward: the same bits every time, and close to the one of atomics."""

from __future__ import annotations

import pytest
import torch
from cases import each_mode, in_mode
from on_gpu import DEVICE, GpuTarget, forward_backward

from rtdetr_ops.testing.inputs import Case, Fused, Storage, make_call
from rtdetr_ops.testing.workloads import Workload

# Pixels of the small level are hit hundreds of times: atomics add them in another order every time.
CROWDED = Workload("crowded", 2, 600, 4, ((24, 24), (3, 3)), (4, 4), 32)
FORMS = {"plain": None, "fused_box": Fused(4, masked=True), "fused_point": Fused(2, per_level=True)}
STORAGES = {
    "float32": Storage(torch.float32),
    "bfloat16": Storage(torch.bfloat16, torch.float32, torch.float32),
}

each_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
each_storage = pytest.mark.parametrize("storage", STORAGES.values(), ids=STORAGES)


@each_mode
@each_form
@each_storage
def test_twenty_runs_agree_bit_by_bit(
    kernel: GpuTarget, deterministic: None, storage: Storage, form: Fused | None, mode: str
) -> None:
    once = forward_backward(
        make_call(in_mode(Case(CROWDED, storage, form), mode)).to(DEVICE), kernel.backend
    )
    expected = once()
    for _ in range(20):
        for got, want in zip(once(), expected, strict=True):
            assert torch.equal(got, want)


@each_form
def test_both_backwards_agree(kernel: GpuTarget, form: Fused | None) -> None:
    once = forward_backward(make_call(Case(CROWDED, fused=form)).to(DEVICE), kernel.backend)
    atomic = once()
    torch.use_deterministic_algorithms(True)
    try:
        ordered = once()
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(atomic[0], ordered[0])
    for one, other in zip(atomic[1:], ordered[1:], strict=True):
        # Sums of some hundred terms in another order.
        largest = other.abs().max().item()
        torch.testing.assert_close(
            one, other, rtol=0, atol=64 * torch.finfo(one.dtype).eps * largest
        )


def test_the_device_is_the_one_asked_for(kernel: GpuTarget) -> None:
    call = make_call(Case(CROWDED)).to(DEVICE)
    assert all(part.device.type == DEVICE for part in forward_backward(call, kernel.backend)())
