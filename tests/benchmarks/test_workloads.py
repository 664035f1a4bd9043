# SPDX-License-Identifier: Apache-2.0
import pytest
import torch

from rtdetr_ops import ms_deform_attn
from rtdetr_ops.testing import workloads
from rtdetr_ops.testing.workloads import (
    BORDER_MARGIN,
    LARGE_WORKLOADS,
    TINY,
    WORKLOADS,
    Workload,
    find_workload,
    make_inputs,
)

ENCODER = Workload("small_encoder", 1, 26, 4, ((4, 5), (2, 3)), (2, 2), 8)
RAGGED = Workload("small_ragged", 2, 7, 4, ((8, 8), (4, 4)), (3, 1), 8)

OFFSETS = ("ring", "uniform")
SMALL = tuple(pytest.param(workload, id=workload.name) for workload in (TINY, ENCODER, RAGGED))
NAMED = tuple(pytest.param(workload, id=workload.name) for workload in WORKLOADS)


def test_names_are_unique():
    every = (*WORKLOADS, *LARGE_WORKLOADS, TINY)
    assert len({workload.name for workload in every}) == len(every)


@pytest.mark.parametrize(
    ("name", "pixels", "taps", "is_encoder", "is_ragged"),
    [
        ("decoder_b1", 8400, 12, False, False),
        ("decoder_b8", 8400, 12, False, False),
        ("encoder_800x1333", 22_223, 16, True, False),
        ("mask2former_1024", 21_504, 12, True, False),
        ("decoder_ragged", 8400, 12, False, True),
        ("decoder_discrete", 8400, 12, False, False),
        ("decoder_b32", 8400, 12, False, False),
        ("encoder_800x1333_b2", 22_223, 16, True, False),
        ("bevformer_spatial", 30_825, 32, False, False),
        ("bevformer_temporal", 40_000, 4, True, False),
    ],
)
def test_sizes_of_the_named_workloads(name, pixels, taps, is_encoder, is_ragged):
    workload = find_workload(name)
    assert (workload.pixels, workload.taps) == (pixels, taps)
    assert (workload.is_encoder, workload.is_ragged) == (is_encoder, is_ragged)


def test_id_has_the_letters():
    assert str(find_workload("decoder_b8")) == "B8-Q300-M8-T12-D32-S8400"


@pytest.mark.parametrize("offsets", OFFSETS)
@pytest.mark.parametrize("workload", SMALL)
def test_inputs_fit_the_operator(workload, offsets):
    inputs = make_inputs(workload, seed=1, offsets=offsets)
    out = ms_deform_attn(
        *(inputs.value, workload.levels, inputs.locations, inputs.weights),
        points=workload.points,
        mode=workload.mode,
        backend="reference",
    )
    assert out.shape == inputs.grad_out.shape
    assert all(leaf.requires_grad for leaf in inputs.leaves)


@pytest.mark.parametrize("offsets", OFFSETS)
def test_same_seed_same_numbers(offsets):
    first, second = (
        make_inputs(RAGGED, seed=3, offsets=offsets),
        make_inputs(RAGGED, seed=3, offsets=offsets),
    )
    other = make_inputs(RAGGED, seed=4, offsets=offsets)
    for one, same, different in zip(first, second, other, strict=True):
        assert torch.equal(one, same)
        assert not torch.equal(one, different)


def test_narrow_inputs_are_the_wide_ones_rounded_and_keep_float32_coordinates():
    wide, narrow = make_inputs(RAGGED, torch.float32), make_inputs(RAGGED, torch.bfloat16)
    assert torch.equal(narrow.value, wide.value.bfloat16())
    assert narrow.weights.dtype == narrow.grad_out.dtype == torch.bfloat16
    assert torch.equal(narrow.locations, wide.locations)
    assert make_inputs(RAGGED, torch.float64).locations.dtype == torch.float64


@pytest.mark.parametrize("offsets", OFFSETS)
@pytest.mark.parametrize("workload", NAMED)
def test_no_point_is_near_a_pixel_border(workload, offsets):
    locations = make_inputs(workload, offsets=offsets).locations.detach().double()
    tap = 0
    for (height, width), count in zip(workload.levels, workload.points, strict=True):
        size = torch.tensor([width, height], dtype=torch.float64)
        shifted = locations[:, :, :, tap : tap + count] * size + 0.5
        assert (shifted - shifted.round()).abs().min() > BORDER_MARGIN / 2
        tap += count


def test_encoder_rings_surround_the_query_s_own_pixel(monkeypatch):
    monkeypatch.setattr(workloads, "NOISE", 0.0)
    inputs = make_inputs(ENCODER, torch.float64)
    height, width = ENCODER.levels[0]
    size = torch.tensor([width, height])
    pixels = inputs.locations.detach()[0, : height * width, :, :2] * size - 0.5
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    own = torch.stack([columns, rows], -1).flatten(0, 1)
    # Four heads look right, down, left and up; the second point is twice as far as the first.
    ring = torch.tensor([[1, 0], [0, 1], [-1, 0], [0, -1]])[:, None] * torch.tensor([1, 2])[:, None]
    error = pixels - own[:, None, None] - ring
    assert error.abs().max() < 2 * BORDER_MARGIN


def test_unknown_names_are_refused():
    with pytest.raises(
        ValueError, match=r"workload: expected one of decoder_b1, .*, got 'nothing'"
    ):
        find_workload("nothing")
    with pytest.raises(ValueError, match=r"offsets: expected one of 'ring', 'uniform', got 'grid'"):
        make_inputs(TINY, offsets="grid")
