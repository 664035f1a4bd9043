# SPDX-License-Identifier: Apache-2.0
"""Bitwise equal results for any number of threads, from run to run, and for any order of the images."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from cases import HOT, RAGGED, each_mode, each_storage, in_mode, with_channels
from cases import SHAPES as CASE_SHAPES
from torch import Tensor

from rtdetr_ops.testing.inputs import Call, Case, Fused, Storage, make_call
from rtdetr_ops.testing.tester import Target, assert_matches_reference
from rtdetr_ops.testing.workloads import Workload

# Work for several threads (a thread takes 2^18 multiply-adds or more).
SHAPES = (
    # Enough heads, levels and images: each thread owns whole levels.
    Workload("tasks_of_levels", 2, 301, 4, ((9, 11), (5, 4)), (4, 4), 32),
    # Threads outnumber (image, head, level): levels are cut into strips, some without a pixel.
    Workload("tasks_of_strips", 1, 700, 1, ((3, 50), (13, 9)), (6, 6), 32),
)
FORMS = {"plain": None, "fused_box": Fused(4, masked=True), "fused_point": Fused(2, per_level=True)}

# A GPU adds in any order unless it is asked not to.
pytestmark = pytest.mark.usefixtures("deterministic")

each_shape = pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
each_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


def assert_same(got: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for name, tensor in expected.items():
        assert torch.equal(got[name], tensor), name


@each_mode
@each_form
@each_shape
def test_any_number_of_threads(
    kernel: Target, keep_threads: None, shape: Workload, form: Fused | None, mode: str
) -> None:
    call = make_call(in_mode(Case(shape, fused=form), mode))
    torch.set_num_threads(1)
    expected = kernel.run(call)
    for threads in (2, 3, 5):
        torch.set_num_threads(threads)
        assert_same(kernel.run(call), expected)


@each_form
@each_shape
def test_many_threads_are_right(
    kernel: Target, keep_threads: None, shape: Workload, form: Fused | None
) -> None:
    torch.set_num_threads(5)
    assert_matches_reference(kernel, Case(shape, fused=form))


@each_mode
@each_form
@pytest.mark.parametrize("operator_shape", [*CASE_SHAPES, HOT], ids=lambda shape: shape.name)
def test_shapes_are_right(
    kernel: Target, operator_shape: Workload, form: Fused | None, mode: str
) -> None:
    # The order-free backward and the ordered one may be different kernels.
    assert_matches_reference(kernel, in_mode(Case(operator_shape, fused=form), mode))


@each_form
@each_storage
def test_dtypes_are_right(kernel: Target, storage: Storage, form: Fused | None) -> None:
    assert_matches_reference(kernel, Case(RAGGED, storage, form))


@pytest.mark.parametrize("channels", [1, 31, 33, 96])
def test_channels_are_right(kernel: Target, channels: int) -> None:
    assert_matches_reference(kernel, Case(with_channels(RAGGED, channels)))


@each_form
def test_run_to_run(kernel: Target, form: Fused | None) -> None:
    call = make_call(Case(SHAPES[0], Storage(torch.bfloat16, torch.float32), form))
    expected = kernel.run(call)
    for _ in range(20):
        assert_same(kernel.run(call), expected)


def with_images(call: Call, order: list[int]) -> Call:
    options = dict(call.options)
    if "value_mask" in options:
        options["value_mask"] = options["value_mask"][order]
    return replace(call.map(lambda tensor: tensor[order]), options=options)


@each_mode
@each_form
def test_any_order_of_images(kernel: Target, form: Fused | None, mode: str) -> None:
    shape = Workload("images", 4, 75, 2, ((9, 11), (5, 4)), (5, 3), 17)
    call = make_call(in_mode(Case(shape, fused=form), mode))
    order = [2, 0, 3, 1]
    expected = {name: tensor[order] for name, tensor in kernel.run(call).items()}
    assert_same(kernel.run(with_images(call, order)), expected)


@each_form
def test_an_image_does_not_depend_on_its_batch(kernel: Target, form: Fused | None) -> None:
    call = make_call(Case(Workload("alone", 3, 75, 2, ((9, 11), (5, 4)), (5, 3), 17), fused=form))
    expected = {name: tensor[1:2] for name, tensor in kernel.run(call).items()}
    assert_same(kernel.run(with_images(call, [1])), expected)
