# SPDX-License-Identifier: Apache-2.0
"""The entry that takes the raw outputs of the projections: result and every gradient, on every backend."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch
from cases import (
    F32,
    F64,
    HOT,
    RAGGED,
    UNIFORM,
    each_mode,
    each_shape,
    each_storage,
    each_uniform_dtype,
    in_mode,
    with_channels,
)
from torch import Tensor

from rtdetr_ops import ms_deform_attn, ms_deform_attn_fused
from rtdetr_ops.testing.inputs import LAYOUTS, Call, Case, Fused, Storage, make_call
from rtdetr_ops.testing.tester import Target, assert_close_to_truth, assert_matches_reference
from rtdetr_ops.testing.workloads import Workload

NAN, INF = math.nan, math.inf

# Each number of coordinates one and L reference points, with and without mask; a factor that is not the default.
FORMS = (
    Fused(2),
    Fused(2, per_level=True, masked=True),
    Fused(4, masked=True),
    Fused(4, per_level=True),
    Fused(4, offset_scale=1.25),
)
BOX = Fused(4, masked=True)

each_form = pytest.mark.parametrize("form", FORMS, ids=str)


@each_mode
@each_form
def test_reference_forms(kernel: Target, form: Fused, mode: str) -> None:
    assert_matches_reference(kernel, in_mode(Case(RAGGED, fused=form), mode))


@each_shape
@each_mode
def test_shape(kernel: Target, shape: Workload, mode: str) -> None:
    assert_matches_reference(kernel, in_mode(Case(shape, fused=BOX), mode))


@each_mode
@each_storage
def test_dtypes(kernel: Target, storage: Storage, mode: str) -> None:
    assert_matches_reference(kernel, in_mode(Case(RAGGED, storage, BOX), mode))


# Not float64: hundreds of numbers added in another order differ by more than its tolerance.
@each_mode
@pytest.mark.parametrize("storage", UNIFORM[1:], ids=str)
def test_hot_levels(kernel: Target, storage: Storage, mode: str) -> None:
    assert_matches_reference(kernel, in_mode(Case(HOT, storage, BOX), mode))


@each_storage
def test_dtypes_of_a_point_per_level(kernel: Target, storage: Storage) -> None:
    assert_matches_reference(kernel, Case(RAGGED, storage, Fused(2, per_level=True)))


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_layout(kernel: Target, layout: str) -> None:
    assert_matches_reference(kernel, Case(RAGGED, fused=BOX, layout=layout))


@pytest.mark.parametrize("channels", [1, 40])
def test_channels(kernel: Target, channels: int) -> None:
    assert_matches_reference(kernel, Case(with_channels(RAGGED, channels), fused=BOX))


@each_mode
def test_detector(kernel: Target, mode: str) -> None:
    shape = Workload("decoder", 2, 151, 8, ((20, 20), (10, 10), (5, 5)), (3, 6, 3), 32)
    assert_matches_reference(kernel, in_mode(Case(shape, fused=Fused(4)), mode))


@each_uniform_dtype
def test_points_on_pixel_borders(kernel: Target, storage: Storage) -> None:
    # Half a pixel from a corner of the 4 x 8 level: powers of two, every dtype computes these places exactly.
    shape = Workload("knots", 1, 4, 2, ((4, 8),), (5,), 3)
    call = make_call(Case(shape, storage, Fused(2)))
    steps = torch.tensor([-4.5, -0.5, 0.0, 0.5, 3.5], dtype=storage.value)
    offsets = torch.stack([steps, steps.flip(0)], -1).expand(1, 4, 2, -1, -1).clone()
    reference = torch.tensor(
        [[0.5, 0.5], [0.0, 0.5], [1.0, 0.25], [0.25, 1.0]], dtype=storage.value
    )
    call = call.with_tensors(reference=reference.view(1, 4, 1, 2), offsets=offsets)
    assert_close_to_truth(kernel, call)


@each_mode
@each_form
def test_is_the_plain_entry_after_softmax(target: Target, form: Fused, mode: str) -> None:
    # The definition by hand, for the reference too: one softmax over all points, and the two location formulas.
    call = make_call(in_mode(Case(RAGGED, Storage(F64), form), mode))
    value, reference, offsets, logits = call.tensors.values()
    if form.masked:
        value = value * call.options["value_mask"][..., None, None]
    level_of = [0, 0, 0, 2]  # the level of each point: counts are 3, 0, 1
    references = (reference if form.per_level else reference.expand(-1, -1, 3, -1))[
        :, :, None, level_of
    ]
    if form.coordinates == 2:
        scale = 1 / torch.tensor([[4.0, 7.0], [4.0, 7.0], [4.0, 7.0], [2.0, 2.0]], dtype=F64)
    else:
        count = torch.tensor([3.0, 3.0, 3.0, 1.0], dtype=F64)[:, None]
        scale = references[..., 2:] * form.offset_scale / count
    shape = {name: call.options[name] for name in ("levels", "points", "mode")}
    locations = references[..., :2] + offsets * scale
    expected = ms_deform_attn(value, locations=locations, weights=logits.softmax(-1), **shape)
    torch.testing.assert_close(target.run(call)["output"], expected, rtol=1e-12, atol=1e-12)


def centered(mode: str, queries: int = 1, taps: int = 2, dtype: torch.dtype = F32) -> Call:
    """All points at the corner that pixels 6, 7, 10, 11 of a 4 x 4 level share; the level holds 1, 2, 3, ..."""
    tensors = {
        "value": torch.arange(1, 17, dtype=dtype).view(1, 16, 1, 1).repeat(1, 1, 1, 2),
        "reference": torch.tensor([0.5, 0.5, 0.5, 0.5], dtype=dtype)
        .expand(1, queries, 1, 4)
        .clone(),
        "offsets": torch.zeros(1, queries, 1, taps, 2, dtype=dtype),
        "logits": torch.zeros(1, queries, 1, taps, dtype=dtype),
    }
    options = {"levels": ((4, 4),), "points": taps, "mode": mode}
    return Call(ms_deform_attn_fused, tensors, options, torch.ones(1, queries, 2, dtype=dtype))


# Coordinates 0 and 1 of `reference` are the center, 2 and 3 the box.
NON_FINITE_CENTRE = [*itertools.product(("reference",), (0, 1), (NAN, INF, -INF))]
NON_FINITE_STEP = [
    *itertools.product(("offsets",), (0, 1), (NAN, INF, -INF)),
    *itertools.product(("reference",), (2, 3), (NAN, INF)),
]
NON_FINITE = ("name", "coordinate", "number")


@each_mode
@pytest.mark.parametrize(NON_FINITE, NON_FINITE_CENTRE + NON_FINITE_STEP)
def test_non_finite_location_is_zero(
    target: Target, name: str, coordinate: int, number: float, mode: str
) -> None:
    call = centered(mode, taps=1)
    call.tensors["offsets"] += 0.25  # times an infinite box is infinite
    call.tensors[name][..., coordinate] = number
    results = target.run(call)
    for output in ("output", "grad_value", "grad_logits"):
        assert not results[output].any(), output


@pytest.mark.parametrize(NON_FINITE, NON_FINITE_CENTRE + NON_FINITE_STEP)
def test_non_finite_location_has_zero_gradients(
    target: Target, name: str, coordinate: int, number: float
) -> None:
    call = centered("bilinear", taps=1)
    call.tensors["offsets"] += 0.25
    call.tensors[name][..., coordinate] = number
    results = target.run(call)
    for gradient in ("grad_reference", "grad_offsets"):
        assert not results[gradient].any(), gradient


@each_mode
def test_non_finite_location_keeps_its_share_of_the_softmax(target: Target, mode: str) -> None:
    call = centered(mode)
    whole = target.run(call)["output"]
    call.tensors["offsets"][..., 0, 0] = NAN
    torch.testing.assert_close(target.run(call)["output"], whole / 2)


def test_outside_is_zero(target: Target) -> None:
    call = centered("bilinear")
    call.tensors["offsets"][:] = torch.tensor([1e30, -1e30])
    for name, tensor in target.run(call).items():
        assert not tensor.any(), name


@each_mode
def test_outside_points_leave_the_softmax_alone(kernel: Target, mode: str) -> None:
    # Points outside have zero slope but take part in the softmax: their logits have a gradient.
    call = make_call(in_mode(Case(RAGGED, fused=Fused(2)), mode))
    offsets = call.tensors["offsets"].clone()
    offsets[:, :, :, 1] = 50.25
    assert_close_to_truth(kernel, call.with_tensors(offsets=offsets))


@each_uniform_dtype
def test_extreme_logits(kernel: Target, storage: Storage) -> None:
    call = make_call(Case(RAGGED, storage, BOX))
    logits = call.tensors["logits"].clone()
    logits[0] *= 1000  # one point takes all
    logits[1, 0] = 30000  # exp of this is infinite
    logits[1, 1] = -30000
    logits[1, 2, :, 0] = -INF  # a point that is switched off
    assert_close_to_truth(kernel, call.with_tensors(logits=logits))


@pytest.mark.parametrize("dtype", [F64, F32], ids=str)
@pytest.mark.parametrize("span", [0.1, 1.0, 80.0])
def test_softmax_is_accurate(target: Target, span: float, dtype: torch.dtype) -> None:
    # Point t of a head reads pixel t, which is 1 in channel t alone: the result is the softmax.
    taps = 64
    random = torch.Generator().manual_seed(0)
    logits = -span * torch.rand((1, 50, 1, taps), generator=random, dtype=F64).to(dtype)
    centers = torch.stack([torch.arange(taps) / taps, torch.zeros(taps)], -1)
    with target.selected():
        out = ms_deform_attn_fused(
            torch.eye(taps, dtype=dtype).view(1, taps, 1, taps),
            ((1, taps),),
            torch.zeros(1, 50, 1, 2, dtype=dtype),
            (centers * torch.tensor([taps, 1])).to(dtype).expand(1, 50, 1, -1, -1),
            logits,
            mode="discrete",
            backend=target.backend,
        )
    expected = logits.double().softmax(-1).view_as(out)
    error = ((out.double() - expected) / expected).abs().max().item()
    # Subtracting the maximum rounds by half a step of the span; a sum of 64 terms and the rest by a few.
    assert error <= (5 + span / 2) * torch.finfo(dtype).eps


@pytest.mark.usefixtures("deterministic")
@each_mode
def test_masked_pixel_counts_as_zero(target: Target, mode: str) -> None:
    call = make_call(in_mode(Case(RAGGED, fused=BOX), mode))
    mask = call.options["value_mask"]
    expected = target.run(call)
    assert not expected["grad_value"][~mask].any()
    poisoned = call.tensors["value"].masked_fill(~mask[:, :, None, None], NAN)
    for name, tensor in target.run(call.with_tensors(value=poisoned)).items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=0, msg=name)


@each_mode
def test_everything_masked_is_zero(target: Target, mode: str) -> None:
    call = make_call(in_mode(Case(RAGGED, fused=BOX), mode))
    call.options["value_mask"].zero_()
    for name, tensor in target.run(call).items():
        assert not tensor.any(), name


@each_mode
@pytest.mark.parametrize(
    ("batch", "queries", "points"),
    [(0, 3, (2, 1)), (2, 0, (2, 1)), (2, 3, (0, 0))],
    ids=["no_image", "no_query", "no_point"],
)
def test_empty(
    target: Target, batch: int, queries: int, points: tuple[int, int], mode: str
) -> None:
    shape = Workload("empty", batch, queries, 2, ((2, 3), (2, 2)), points, 3, mode)
    for form in (Fused(2, per_level=True), Fused(4, masked=True)):
        results = target.run(make_call(Case(shape, fused=form)))
        assert results["output"].shape == (batch, queries, 6)
        for name, tensor in results.items():
            assert not tensor.any(), name


@pytest.mark.usefixtures("deterministic")
def test_classic_axes(target: Target) -> None:
    call = make_call(Case(Workload("classic", 2, 5, 3, ((3, 4), (2, 2)), (4, 4), 8), fused=BOX))
    offsets, logits = call.tensors["offsets"], call.tensors["logits"]
    classic = call.with_tensors(
        offsets=offsets.view(2, 5, 3, 2, 4, 2), logits=logits.view(2, 5, 3, 2, 4)
    )
    expected = target.run(call)
    for name, tensor in target.run(classic).items():
        torch.testing.assert_close(tensor.view_as(expected[name]), expected[name], rtol=0, atol=0)


SHARED = {"images": (1, 5), "queries": (2, 1), "images_and_queries": (1, 1)}


@pytest.mark.parametrize("shared", SHARED)
def test_one_reference_and_one_mask_serve_all(target: Target, shared: str) -> None:
    """As the same ones written out for each, and the gradient of the reference is the sum of theirs."""
    call = make_call(Case(RAGGED, fused=Fused(4, masked=True)))
    batch, queries = SHARED[shared]
    reference = call.tensors["reference"][:batch, :queries]
    mask = call.options["value_mask"][:1]
    written_out = replace(
        call.with_tensors(reference=reference.expand(2, 5, -1, -1).contiguous()),
        options=call.options | {"value_mask": mask.expand(2, -1).contiguous()},
    )
    expected = target.run(written_out)
    expected["grad_reference"] = expected["grad_reference"].sum_to_size(reference.shape)
    results = target.run(
        replace(call.with_tensors(reference=reference), options=call.options | {"value_mask": mask})
    )
    torch.testing.assert_close(results, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("deterministic")
def test_levels_as_a_tensor(target: Target) -> None:
    call = make_call(Case(RAGGED, fused=Fused(2)))
    expected = target.run(call)
    call.options["levels"] = torch.tensor(RAGGED.levels)
    torch.testing.assert_close(target.run(call), expected, rtol=0, atol=0)


def tiny_call(mode: str, form: Fused) -> Call:
    shape = Workload("tiny", 1, 2, 2, ((3, 2), (2, 2)), (2, 1), 2, mode)
    return make_call(Case(shape, Storage(F64), form))


@each_mode
@each_form
def test_gradcheck(target: Target, form: Fused, mode: str) -> None:
    call = tiny_call(mode, form)
    differentiable = [n for n in call.tensors if mode == "bilinear" or n in ("value", "logits")]

    def function(*leaves: Tensor) -> Tensor:
        return ms_deform_attn_fused(**dict(zip(call.tensors, leaves, strict=True)), **call.options)

    leaves = [t.requires_grad_(n in differentiable) for n, t in call.tensors.items()]
    call.options["backend"] = target.backend
    with target.selected():
        assert torch.autograd.gradcheck(function, leaves)


def test_reference_differentiates_twice() -> None:
    call = tiny_call("bilinear", BOX)

    def function(*leaves: Tensor) -> Tensor:
        named = dict(zip(call.tensors, leaves, strict=True))
        return ms_deform_attn_fused(**named, **call.options, backend="reference")

    assert torch.autograd.gradgradcheck(
        function, [t.requires_grad_() for t in call.tensors.values()]
    )


def test_kernels_refuse_to_differentiate_twice(kernel: Target) -> None:
    call = tiny_call("bilinear", BOX)
    leaves = {n: t.requires_grad_() for n, t in call.tensors.items()}
    out = ms_deform_attn_fused(**leaves, **call.options, backend=kernel.backend)
    (grad,) = torch.autograd.grad(out.square().sum(), leaves["offsets"], create_graph=True)
    with pytest.raises(NotImplementedError, match="differentiable once; use backend='reference'"):
        grad.sum().backward()


NAMES = ("value", "reference", "offsets", "logits")
SUBSETS = [names for n in (1, 2, 3) for names in itertools.combinations(NAMES, n)]


@pytest.mark.usefixtures("deterministic")
@each_mode
@pytest.mark.parametrize("names", SUBSETS, ids="_".join)
def test_gradients_of_a_subset(target: Target, names: tuple[str, ...], mode: str) -> None:
    call = make_call(in_mode(Case(RAGGED, fused=BOX), mode))
    moving = {"reference", "offsets"} if mode == "discrete" else set()
    expected = target.run(call)
    leaves = {n: t.detach().requires_grad_(n in names) for n, t in call.tensors.items()}
    with target.selected():
        out = ms_deform_attn_fused(**leaves, **call.options, backend=target.backend)
        if not out.requires_grad:
            assert set(names) <= moving
            return
        out.backward(call.grad_out)
    for name, leaf in leaves.items():
        if name not in names or name in moving:
            assert leaf.grad is None
        else:
            torch.testing.assert_close(leaf.grad, expected[f"grad_{name}"], rtol=0, atol=0)
