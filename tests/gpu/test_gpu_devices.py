# SPDX-License-Identifier: Apache-2.0
"""Which device a call runs on, and what a mix of devices says."""

from __future__ import annotations

import pytest
import torch
from cases import RAGGED
from on_gpu import DEVICE, GpuTarget, forward_backward

import rtdetr_ops
from rtdetr_ops.testing.inputs import Case, Fused, make_call

FORMS = {"plain": None, "fused": Fused(4, masked=True)}
each_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


@each_form
def test_the_row_is_taken_unasked(kernel: GpuTarget, form: Fused | None) -> None:
    call = make_call(Case(RAGGED, fused=form)).to(DEVICE)
    explanation = rtdetr_ops.explain(call.tensors["value"])
    assert explanation.chosen is not None
    assert explanation.reasons[kernel.backend] is None


MIXED = [
    *((None, name) for name in ("locations", "weights")),
    *((FORMS["fused"], name) for name in ("reference", "offsets", "logits")),
]


@pytest.mark.parametrize(("form", "name"), MIXED, ids=lambda part: str(part))
def test_a_tensor_left_on_the_cpu_is_named(
    kernel: GpuTarget, cuda: str, form: Fused | None, name: str
) -> None:
    call = make_call(Case(RAGGED, fused=form)).to(DEVICE)
    left = call.with_tensors(**{name: call.tensors[name].cpu()})
    with pytest.raises(ValueError, match=f"^{name}: expected device cuda:0 as value, got cpu$"):
        left.entry(**left.tensors, **left.options)


def test_a_mask_left_on_the_cpu_is_named(kernel: GpuTarget, cuda: str) -> None:
    call = make_call(Case(RAGGED, fused=FORMS["fused"])).to(DEVICE)
    call.options["value_mask"] = call.options["value_mask"].cpu()
    with pytest.raises(ValueError, match=r"^value_mask: expected device cuda:0 as value, got cpu$"):
        call.entry(**call.tensors, **call.options)


@each_form
def test_a_tensor_left_on_the_cpu_is_named_by_the_operators(
    kernel: GpuTarget, cuda: str, form: Fused | None
) -> None:
    """Whoever calls a registered operator does not pass the checks of the public functions."""
    suffix, call = "_fused" if form else "", make_call(Case(RAGGED, fused=form)).to(DEVICE)
    name = "ms_deform_attn_triton" if kernel.backend == "triton" else "ms_deform_attn"
    forward, backward = (
        getattr(torch.ops.rtdetr_ops, name + suffix + end) for end in ("", "_backward")
    )
    value, *rest = call.tensors.values()
    sizes = torch.tensor(call.options["levels"], device=DEVICE)
    arguments = [value, [], sizes, *rest, call.options["points"], False]
    if form:
        arguments += [call.options["offset_scale"], call.options["value_mask"]]
    needs = [False, *(True for _ in call.tensors)]
    for place, argument in enumerate(arguments):
        if not isinstance(argument, torch.Tensor):
            continue
        left = [*arguments]
        left[place] = argument.cpu()
        with pytest.raises(RuntimeError, match=r"^\w+: expected device \S+ as value, got "):
            forward(*left)
        with pytest.raises(RuntimeError, match=r"^\w+: expected device \S+ as value, got "):
            backward(call.grad_out, *left, *needs)
    with pytest.raises(RuntimeError, match=r"^grad_output: expected device cuda:0 as value, got "):
        backward(call.grad_out.cpu(), *arguments, *needs)


def test_a_cpu_call_is_refused(kernel: GpuTarget, cuda: str) -> None:
    call = make_call(Case(RAGGED))
    with pytest.raises(RuntimeError, match=f"^backend: '{kernel.backend}' cannot run this call: "):
        call.entry(**call.tensors, **call.options, backend=kernel.backend)


@each_form
def test_another_device_than_the_current_one(
    kernel: GpuTarget, cuda: str, deterministic: None, form: Fused | None
) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two CUDA devices")
    first, second = (make_call(Case(RAGGED, fused=form)).to(f"cuda:{i}") for i in range(2))
    expected = forward_backward(first, kernel.backend)()
    for got, want in zip(forward_backward(second, kernel.backend)(), expected, strict=True):
        assert got.device.index == 1
        torch.testing.assert_close(got.cpu(), want.cpu(), rtol=0, atol=0)
    assert torch.cuda.current_device() == 0


WRONG = {
    "level_start_index": (
        [[7, 4], [3, 6], [2, 2]],
        [0, 28, 45],
        r"level_start_index: expected \[0",
    ),
    "levels": ([[7, 4], [3, 6], [2, 3]], [0, 28, 46], r"levels: .* have 52 pixels in all"),
}


@pytest.mark.parametrize("name", WRONG)
def test_check_reads_levels_and_start_indices(
    cuda: str, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    levels, starts, message = WRONG[name]
    monkeypatch.setattr(rtdetr_ops.environment, "CHECK", True)
    value = torch.zeros(1, 50, 2, 4, device=cuda)
    locations = torch.zeros(1, 3, 2, 3, 1, 2, device=cuda)
    weights = torch.zeros(1, 3, 2, 3, 1, device=cuda)
    geometry = (torch.tensor(levels, device=cuda), torch.tensor(starts, device=cuda))
    with pytest.raises(ValueError, match=message):
        rtdetr_ops.MSDeformAttnFunction.apply(value, *geometry, locations, weights, 64)
