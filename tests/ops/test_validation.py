# SPDX-License-Identifier: Apache-2.0
"""Malformed arguments: one sentence naming the argument, what was expected and what came; no kernel sees them."""

from __future__ import annotations

import math
import re
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from cases import F32, F64, freed
from torch import Tensor
from torch._subclasses import FakeTensorMode

from rtdetr_ops import _extension, ms_deform_attn, ms_deform_attn_fused
from rtdetr_ops.testing.inputs import Case, Fused, Storage, make_call
from rtdetr_ops.testing.tester import assert_matches_reference, targets
from rtdetr_ops.testing.workloads import Workload

compiled_only = pytest.mark.skipif(_extension.MISSING is not None, reason=str(_extension.MISSING))

# B=2, Q=3, M=2, L=2, T=3, D=4, S=10
LEVELS = ((2, 3), (2, 2))
VALUE, PAIRS, SCALARS = (2, 10, 2, 4), (2, 3, 2, 3, 2), (2, 3, 2, 3)


def plain(**changes: Any) -> dict[str, Any]:
    arguments = {
        "value": torch.zeros(VALUE),
        "levels": LEVELS,
        "locations": torch.zeros(PAIRS),
        "weights": torch.zeros(SCALARS),
        "points": (2, 1),
    }
    return arguments | changes


def fused(**changes: Any) -> dict[str, Any]:
    arguments = {
        "value": torch.zeros(VALUE),
        "levels": LEVELS,
        "reference": torch.zeros(2, 3, 1, 4),
        "offsets": torch.zeros(PAIRS),
        "logits": torch.zeros(SCALARS),
        "points": (2, 1),
    }
    return arguments | changes


class TorchLike:
    def __repr__(self) -> str:
        return "TorchLike()"


# What any entry may get wrong: the change, the exception, the whole message.
SHARED = [
    ({"value": None}, TypeError, "value: expected a tensor, got NoneType"),
    (
        {"value": torch.zeros(VALUE).long()},
        TypeError,
        "value: expected a tensor of float64, float32, bfloat16 or float16, got torch.int64",
    ),
    (
        {"value": torch.zeros(VALUE, dtype=torch.complex64)},
        TypeError,
        "value: expected a tensor of float64, float32, bfloat16 or float16, got torch.complex64",
    ),
    (
        {"value": torch.zeros(VALUE).to(torch.float8_e4m3fn)},
        TypeError,
        "value: expected a tensor of float64, float32, bfloat16 or float16, got torch.float8_e4m3fn",
    ),
    (
        {"value": torch.zeros(VALUE).to_sparse()},
        TypeError,
        "value: expected a dense tensor, got one of layout torch.sparse_coo",
    ),
    (
        {"value": torch.zeros(2, 10, 8)},
        ValueError,
        "value: expected shape [B, S, M, D], got [2, 10, 8]",
    ),
    (
        {"value": torch.zeros(2, 10, 0, 4)},
        ValueError,
        "value: expected [B, S, M >= 1, D >= 1], got [2, 10, 0, 4]",
    ),
    (
        {"value": torch.zeros(2, 10, 2, 0)},
        ValueError,
        "value: expected [B, S, M >= 1, D >= 1], got [2, 10, 2, 0]",
    ),
    (
        {"value": torch.zeros(2, 11, 2, 4)},
        ValueError,
        "levels: [(2, 3), (2, 2)] have 10 pixels in all, but value has S=11 (value is [B, S, M, D])",
    ),
    (
        {"levels": 3},
        TypeError,
        "levels: expected L pairs (H, W) of ints or an integer tensor [L, 2], got 3",
    ),
    (
        {"levels": ((2, 3, 1),)},
        TypeError,
        "levels: expected L pairs (H, W) of ints or an integer tensor [L, 2], got ((2, 3, 1),)",
    ),
    (
        {"levels": ((2.0, 3), (2, 2))},
        TypeError,
        "levels: expected pairs (H, W) of ints, got (2.0, 3)",
    ),
    ({"levels": ((0, 3), (5, 2))}, ValueError, "levels: expected sizes (H, W) >= 1, got (0, 3)"),
    (
        {"levels": ((-2, -3), (2, 2))},
        ValueError,
        "levels: expected sizes (H, W) >= 1, got (-2, -3)",
    ),
    *(
        (
            {"levels": freed(torch.tensor(LEVELS, dtype=dtype))},
            ValueError,
            "levels: expected a tensor with memory, got one whose storage was freed",
        )
        for dtype in (torch.int64, torch.int32)
    ),
    (
        {"levels": [freed(size) for size in torch.tensor(LEVELS)]},
        TypeError,
        "levels: expected L pairs (H, W) of ints or an integer tensor [L, 2], "
        "got [a tensor [2] of torch.int64 on cpu, a tensor [2] of torch.int64 on cpu]",
    ),
    (
        {"points": freed(torch.tensor([2, 1]))},
        TypeError,
        "points: expected an int or one int per level, got a tensor [2] of torch.int64 on cpu",
    ),
    (
        {"mode": freed(torch.tensor(1))},
        ValueError,
        "mode: expected one of 'bilinear', 'discrete', got a tensor [] of torch.int64 on cpu",
    ),
    (
        {"levels": torch.tensor(LEVELS).to_sparse()},
        TypeError,
        "levels: expected a dense tensor, got one of layout torch.sparse_coo",
    ),
    (
        {"levels": torch.tensor(LEVELS).double()},
        TypeError,
        "levels: expected a tensor of integers, got torch.float64",
    ),
    (
        {"levels": torch.tensor(LEVELS).bool()},
        TypeError,
        "levels: expected a tensor of integers, got torch.bool",
    ),
    (
        {"levels": torch.tensor(LEVELS, device="meta")},
        ValueError,
        "levels: expected a tensor with data, as value on cpu has, got one on meta",
    ),
    (
        {"levels": ((True, 6), (2, 2))},
        TypeError,
        "levels: expected pairs (H, W) of ints, got (True, 6)",
    ),
    (
        {"levels": torch.tensor([2, 3, 2, 2])},
        ValueError,
        "levels: expected shape [L, 2], got [4]",
    ),
    (
        {"levels": torch.tensor([[2, 3], [0, 2]])},
        ValueError,
        "levels: expected sizes (H, W) >= 1, got (0, 2)",
    ),
    (
        {"points": None},
        ValueError,
        "points: T=3 does not divide evenly over L=2 levels; pass one count per level",
    ),
    (
        {"points": 2},
        ValueError,
        "points: expected counts that add up to T=3, got [2, 2]",
    ),
    ({"points": (1, 1, 1)}, ValueError, "points: expected 2 counts, one per level, got 3"),
    ({"points": (4, -1)}, ValueError, "points: expected counts >= 0, got [4, -1]"),
    (
        {"points": (2, 1.0)},
        TypeError,
        "points: expected an int or one int per level, got (2, 1.0)",
    ),
    (
        {"points": (2, True)},
        TypeError,
        "points: expected an int or one int per level, got (2, True)",
    ),
    (
        {"points": 1.5},
        TypeError,
        "points: expected an int or one int per level, got 1.5",
    ),
    (
        {"mode": "nearest"},
        ValueError,
        "mode: expected one of 'bilinear', 'discrete', got 'nearest'",
    ),
    (
        {"mode": np.array(["bilinear"])},
        ValueError,
        "mode: expected one of 'bilinear', 'discrete', got array(['bilinear'], dtype='<U8')",
    ),
    (
        {"points": torch.tensor(1.5)},
        TypeError,
        "points: expected an int or one int per level, got a tensor [] of torch.float32 on cpu",
    ),
    (
        {"points": torch.tensor([2, 1], device="meta")},
        TypeError,
        "points: expected an int or one int per level, got a tensor [2] of torch.int64 on meta",
    ),
    ({"mode": None}, ValueError, "mode: expected one of 'bilinear', 'discrete', got None"),
    (
        {"backend": "gpu"},
        ValueError,
        "backend: expected one of 'cuda', 'cpu', 'triton', 'reference', got 'gpu'",
    ),
]

META = torch.zeros(PAIRS, device="meta")
META_SCALARS = torch.zeros(SCALARS, device="meta")


def taps(pairs: str, scalars: str) -> list[tuple[dict[str, Any], type[Exception], str]]:
    return [
        ({pairs: [0.5]}, TypeError, f"{pairs}: expected a tensor, got list"),
        ({scalars: TorchLike()}, TypeError, f"{scalars}: expected a tensor, got TorchLike"),
        (
            {pairs: torch.zeros(PAIRS).int()},
            TypeError,
            f"{pairs}: expected a tensor of float64, float32, bfloat16 or float16, got torch.int32",
        ),
        (
            {scalars: torch.zeros(SCALARS).bool()},
            TypeError,
            f"{scalars}: expected a tensor of float64, float32, bfloat16 or float16, got torch.bool",
        ),
        (
            {scalars: torch.zeros(SCALARS).to_sparse()},
            TypeError,
            f"{scalars}: expected a dense tensor, got one of layout torch.sparse_coo",
        ),
        ({pairs: META}, ValueError, f"{pairs}: expected device cpu as value, got meta"),
        ({scalars: META_SCALARS}, ValueError, f"{scalars}: expected device cpu as value, got meta"),
        *(
            (
                {pairs: torch.zeros(shape)},
                ValueError,
                f"{pairs}: expected shape [B=2, Q, M=2, T, 2], got {list(shape)}",
            )
            for shape in ((1, 3, 2, 3, 2), (2, 3, 4, 3, 2), (2, 3, 2, 3, 3), (2, 3, 2, 6), (2,))
        ),
        (
            {pairs: torch.zeros(2, 3, 2, 3, 1, 2)},
            ValueError,
            f"{pairs}: expected shape [B, Q, M, L=2, P, 2] (or [B, Q, M, T, 2]), got [2, 3, 2, 3, 1, 2]",
        ),
        *(
            (
                {scalars: torch.zeros(shape)},
                ValueError,
                f"{scalars}: expected shape [B=2, Q=3, M=2, T=3] as {pairs}, got {list(shape)}",
            )
            for shape in ((1, 3, 2, 3), (2, 4, 2, 3), (2, 3, 1, 3), (2, 3, 2, 4), (2, 3, 6))
        ),
    ]


FUSED_ONLY = [
    ({"reference": 0.5}, TypeError, "reference: expected a tensor, got float"),
    (
        {"reference": torch.zeros(2, 3, 1, 2).long()},
        TypeError,
        "reference: expected a tensor of float64, float32, bfloat16 or float16, got torch.int64",
    ),
    (
        {"reference": torch.zeros(2, 3, 1, 2, device="meta")},
        ValueError,
        "reference: expected device cpu as value, got meta",
    ),
    *(
        (
            {"reference": torch.zeros(shape)},
            ValueError,
            f"reference: expected shape [1 or B=2, 1 or Q=3, 1 or L=2, 2 or 4], got {list(shape)}",
        )
        for shape in (
            (2, 3, 4),
            (3, 3, 1, 4),
            (2, 2, 1, 4),
            (2, 3, 3, 4),
            (2, 3, 1, 3),
            (2, 3, 2, 1),
        )
    ),
    (
        {"value_mask": torch.ones(2, 10, dtype=torch.bool).to_sparse()},
        TypeError,
        "value_mask: expected a dense tensor, got one of layout torch.sparse_coo",
    ),
    (
        {"value_mask": torch.ones(2, 10)},
        TypeError,
        "value_mask: expected a bool tensor, got torch.float32",
    ),
    ({"value_mask": True}, TypeError, "value_mask: expected a bool tensor, got bool"),
    (
        {"value_mask": torch.ones(2, 9, dtype=torch.bool)},
        ValueError,
        "value_mask: expected shape [1 or B=2, S=10], got [2, 9]",
    ),
    (
        {"value_mask": torch.ones(10, dtype=torch.bool)},
        ValueError,
        "value_mask: expected shape [1 or B=2, S=10], got [10]",
    ),
    (
        {"value_mask": torch.ones(2, 10, dtype=torch.bool, device="meta")},
        ValueError,
        "value_mask: expected device cpu as value, got meta",
    ),
    (
        {"offset_scale": freed(torch.tensor(0.5))},
        TypeError,
        "offset_scale: expected a number, got a tensor [] of torch.float32 on cpu",
    ),
    ({"offset_scale": None}, TypeError, "offset_scale: expected a number, got None"),
    ({"offset_scale": "1/2"}, TypeError, "offset_scale: expected a number, got '1/2'"),
    (
        {"offset_scale": 2**1001},
        ValueError,
        f"offset_scale: expected a number that is a float, got {2**1001}",
    ),
    ({"offset_scale": True}, TypeError, "offset_scale: expected a number, got True"),
]


def parametrize(cases: list[Any]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        ("change", "error", "message"), cases, ids=lambda x: x if isinstance(x, str) else ""
    )


@parametrize(SHARED + taps("locations", "weights"))
def test_malformed_argument(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        ms_deform_attn(**plain(**change))


@parametrize(SHARED + taps("offsets", "logits") + FUSED_ONLY)
def test_malformed_argument_of_the_fused_entry(
    change: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        ms_deform_attn_fused(**fused(**change))


def test_well_formed_arguments_pass() -> None:
    # Else every refusal above could have another reason.
    assert ms_deform_attn(**plain()).shape == (2, 3, 8)
    assert ms_deform_attn_fused(**fused()).shape == (2, 3, 8)


TENSORS = ("value", "locations", "weights")
INTEGERS = {
    "levels_of_numpy": {"levels": np.array(LEVELS)},
    "levels_of_numpy_pairs": {"levels": [tuple(pair) for pair in np.array(LEVELS, np.int32)]},
    "levels_of_tensors": {"levels": [tuple(pair) for pair in torch.tensor(LEVELS)]},
    "levels_of_int32": {"levels": torch.tensor(LEVELS, dtype=torch.int32)},
    "levels_of_lists": {"levels": [list(pair) for pair in LEVELS]},
    "points_of_numpy": {"points": np.array([2, 1])},
    "points_of_numpy_list": {"points": list(np.array([2, 1]))},
    "points_tensor": {"points": torch.tensor([2, 1])},
}


@pytest.mark.parametrize("name", INTEGERS)
def test_whatever_serves_as_an_integer_passes(name: str) -> None:
    tensors = {key: torch.rand(item.shape) for key, item in plain().items() if key in TENSORS}
    result = ms_deform_attn(**plain(**tensors, **INTEGERS[name]))
    torch.testing.assert_close(result, ms_deform_attn(**plain(**tensors)), rtol=0, atol=0)


def test_one_count_of_numpy_and_a_scale_of_numpy_pass() -> None:
    changes = {"offsets": torch.rand(2, 3, 2, 4, 2), "logits": torch.rand(2, 3, 2, 4)}
    expected = ms_deform_attn_fused(**fused(**changes, points=2, offset_scale=0.5))
    numbers = {"points": np.int64(2), "offset_scale": np.float32(0.5)}
    result = ms_deform_attn_fused(**fused(**changes, **numbers))
    torch.testing.assert_close(result, expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["levels_of_int32", "points_of_numpy_list"])
def test_whatever_serves_as_an_integer_compiles(name: str) -> None:
    tensors = {key: torch.rand(item.shape) for key, item in plain().items() if key in TENSORS}

    def call(value: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
        arguments = {"value": value, "locations": locations, "weights": weights}
        return ms_deform_attn(**plain() | arguments | INTEGERS[name])

    torch._dynamo.reset()
    compiled = torch.compile(call, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(**tensors), call(**tensors), rtol=0, atol=0)


@pytest.mark.parametrize("backend", [None, "reference"])
def test_level_tensors_without_data_pass_beside_a_value_without_data(backend: str | None) -> None:
    meta = {
        name: item.to("meta") if isinstance(item, Tensor) else item
        for name, item in plain(levels=torch.tensor(LEVELS)).items()
    }
    assert ms_deform_attn(**meta, backend=backend).shape == (2, 3, 8)
    with pytest.raises(ValueError, match=r"^levels: expected sizes"):
        ms_deform_attn(**{**meta, "value": torch.zeros(2, 1, 2, 4, device="meta")})


@compiled_only
def test_level_tensor_passes_under_fake_tensors() -> None:
    with FakeTensorMode():
        arguments = plain(value=torch.zeros(VALUE, requires_grad=True))
        result = ms_deform_attn(**{**arguments, "levels": torch.tensor(LEVELS)})
        result.sum().backward()
        assert result.shape == (2, 3, 8)
        assert arguments["value"].grad.shape == VALUE


# The operators themselves, called behind the entries' back: refuse, never read past a tensor.
FLAT = [2, 3, 2, 2]
MALFORMED_CALLS = {
    "value_of_3_axes": (0, torch.zeros(2, 10, 8)),
    "value_of_no_axis": (0, torch.zeros(())),
    "value_of_more_images": (0, torch.zeros(3, 10, 2, 4)),
    "value_of_fewer_pixels": (0, torch.zeros(2, 9, 2, 4)),
    "value_of_integers": (0, torch.zeros(VALUE).long()),
    "levels_of_odd_length": (1, [2, 3, 2]),
    "levels_fewer_than_points": (1, [2, 5]),
    "levels_negative": (1, [-2, -3, 2, 2]),
    "levels_of_too_many_pixels": (1, [2, 3, 2, 3]),
    "levels_that_overflow": (1, [2**32, 2**32, 2, 5]),
    "levels_none": (1, []),
    "pairs_of_4_axes": (-4, torch.zeros(2, 3, 2, 3)),
    "pairs_of_more_images": (-4, torch.zeros(3, 3, 2, 3, 2)),
    "pairs_of_more_heads": (-4, torch.zeros(2, 3, 3, 3, 2)),
    "pairs_of_more_points": (-4, torch.zeros(2, 3, 2, 4, 2)),
    "pairs_of_one_coordinate": (-4, torch.zeros(2, 3, 2, 3, 1)),
    "pairs_of_booleans": (-4, torch.zeros(PAIRS).bool()),
    "scalars_of_fewer_queries": (-3, torch.zeros(2, 2, 2, 3)),
    "scalars_of_no_axis": (-3, torch.zeros(())),
    "scalars_of_integers": (-3, torch.zeros(SCALARS).int()),
    "points_of_wrong_sum": (-2, [2, 2]),
    "points_negative": (-2, [4, -1]),
    "points_of_too_many_levels": (-2, [1, 1, 1]),
}


def replaced(arguments: list[Any], place: int, argument: Any) -> list[Any]:
    changed = list(arguments)
    changed[place] = argument
    return changed


@compiled_only
@pytest.mark.parametrize(("place", "argument"), MALFORMED_CALLS.values(), ids=MALFORMED_CALLS)
def test_operator_refuses(place: int, argument: Any) -> None:
    ops, grad_out = torch.ops.rtdetr_ops, torch.zeros(2, 3, 8)
    valid = [
        torch.zeros(VALUE),
        FLAT,
        None,
        torch.zeros(PAIRS),
        torch.zeros(SCALARS),
        [2, 1],
        False,
    ]
    arguments = replaced(valid, place, argument)
    message = "^(value|levels|locations|weights|points): expected "
    with pytest.raises(RuntimeError, match=message):
        ops.ms_deform_attn(*arguments)
    with pytest.raises(RuntimeError, match=message):
        ops.ms_deform_attn_backward(grad_out, *arguments, False, True, True, True)
    boxes = [*arguments[:3], torch.zeros(2, 3, 1, 4), *arguments[3:], 0.5, None]
    message = "^(value|levels|offsets|logits|points): expected "
    with pytest.raises(RuntimeError, match=message):
        ops.ms_deform_attn_fused(*boxes)
    with pytest.raises(RuntimeError, match=message):
        ops.ms_deform_attn_fused_backward(grad_out, *boxes, False, True, True, True, True)


@compiled_only
def test_operator_refuses_counts_that_overflow() -> None:
    tensors = (torch.zeros(PAIRS), torch.zeros(SCALARS), [2**63 - 1, 2**63 - 1, 5])
    with pytest.raises(RuntimeError, match="points: expected counts from 0 to T=3"):
        torch.ops.rtdetr_ops.ms_deform_attn(
            torch.zeros(VALUE), [2, 3, 2, 1, 2, 1], None, *tensors, False
        )


@compiled_only
def test_operator_refuses_a_result_whose_bytes_overflow() -> None:
    # An expanded tensor has as many queries as one likes.
    pairs, scalars = torch.zeros(1, 1, 1, 1, 2), torch.zeros(1, 1, 1, 1)
    many = (pairs.expand(1, 2**60, 1, 1, 2), scalars.expand(1, 2**60, 1, 1))
    message = (
        r"^value: expected a result below 2\^63 bytes, got shape \[1, 1152921504606846976, 8\]"
    )
    with pytest.raises(RuntimeError, match=message):
        torch.ops.rtdetr_ops.ms_deform_attn(
            torch.zeros(1, 4, 1, 8), [2, 2], None, *many, [1], False
        )


@compiled_only
@pytest.mark.parametrize(
    ("place", "argument"),
    [
        (2, torch.tensor([[2, 3], [2, 2]]).int()),
        (2, torch.tensor([[2, 3]])),
        (2, torch.tensor([2, 3, 2, 2])),
        (3, torch.zeros(2, 3, 4)),
        (3, torch.zeros(2, 3, 3, 4)),
        (3, torch.zeros(2, 3, 1, 3)),
        (3, torch.zeros(1, 3, 1, 4)),
        (3, torch.zeros(2, 2, 1, 4)),
        (3, torch.zeros(2, 3, 1, 4).int()),
        (9, torch.ones(2, 10)),
        (9, torch.ones(2, 9, dtype=torch.bool)),
        (9, torch.ones(20, dtype=torch.bool)),
    ],
)
def test_fused_operator_refuses(place: int, argument: Tensor) -> None:
    valid = [*fused().values()]
    arguments = [valid[0], FLAT, None, *valid[2:], False, 0.5, torch.ones(2, 10, dtype=torch.bool)]
    torch.ops.rtdetr_ops.ms_deform_attn_fused(*arguments)
    with pytest.raises(RuntimeError, match=r"^(levels|reference|value_mask): expected "):
        torch.ops.rtdetr_ops.ms_deform_attn_fused(*replaced(arguments, place, argument))


@compiled_only
@pytest.mark.parametrize("shape", [(2, 3, 7), (2, 3, 2, 4), (1, 3, 8), (48,), ()], ids=str)
def test_operator_refuses_grad_output(shape: tuple[int, ...]) -> None:
    tensors = (torch.zeros(PAIRS), torch.zeros(SCALARS))
    valid = (torch.zeros(VALUE), FLAT, None, *tensors, [2, 1], False, False, True, True, True)
    message = r"^grad_output: expected shape \[2, 3, 8\], got "
    with pytest.raises(RuntimeError, match=message):
        torch.ops.rtdetr_ops.ms_deform_attn_backward(torch.zeros(shape), *valid)


sizes = st.tuples(st.integers(1, 6), st.integers(1, 6))


@st.composite
def shapes(draw: st.DrawFn) -> Workload:
    levels = draw(st.lists(sizes, min_size=1, max_size=4))
    points = draw(st.lists(st.integers(0, 5), min_size=len(levels), max_size=len(levels)))
    return Workload(
        "random",
        draw(st.integers(0, 3)),
        draw(st.integers(0, 9)),
        draw(st.integers(1, 3)),
        tuple(levels),
        tuple(points),
        draw(st.integers(1, 20)),
        draw(st.sampled_from(["bilinear", "discrete"])),
    )


forms = st.none() | st.builds(
    Fused, coordinates=st.sampled_from([2, 4]), per_level=st.booleans(), masked=st.booleans()
)
KERNELS = [target for target in targets() if target.backend != "reference"]


@hypothesis.settings(max_examples=100)
@hypothesis.given(
    shape=shapes(), form=forms, seed=st.integers(0, 1000), dtype=st.sampled_from([F32, F64])
)
@pytest.mark.skipif(not KERNELS, reason=str(_extension.MISSING))
def test_random_shapes(shape: Workload, form: Fused | None, seed: int, dtype: torch.dtype) -> None:
    case = Case(shape, Storage(dtype), form, seed=seed)
    for kernel in KERNELS:
        assert_matches_reference(kernel, case)


coordinates = st.floats(width=32) | st.floats(-2, 2, width=32)


@hypothesis.settings(max_examples=200)
@hypothesis.given(
    points=st.lists(st.tuples(coordinates, coordinates), min_size=1, max_size=4),
    mode=st.sampled_from(["bilinear", "discrete"]),
)
def test_random_locations_stay_inside(points: list[tuple[float, float]], mode: str) -> None:
    # Every pixel is 1: a point weighs at most 1, and nothing beyond the level is read.
    count = len(points)
    call = make_call(Case(Workload("points", 1, count, 1, ((3, 4),), (1,), 2, mode)))
    call = call.with_tensors(
        value=torch.ones(1, 12, 1, 2),
        locations=torch.tensor(points, dtype=F32).view(1, count, 1, 1, 2),
        weights=torch.ones(1, count, 1, 1),
    )
    for target in targets():
        results = target.run(call)
        for name, tensor in results.items():
            assert tensor.isfinite().all(), name
        for point, weight in zip(points, results["output"][0, :, 0].tolist(), strict=True):
            if not all(map(math.isfinite, point)):
                assert weight == 0
            elif mode == "discrete":
                assert weight == 1
            else:
                assert -1e-6 <= weight <= 1 + 1e-6


def refusal(value: list[int], pairs: list[int], scalars: list[int], **options: Any) -> str | None:
    """The message of a documented exception, None where the call runs; another exception fails the test."""
    try:
        out = ms_deform_attn(
            torch.zeros(value),
            locations=torch.zeros(pairs),
            weights=torch.zeros(scalars),
            **options,
        )
    except (TypeError, ValueError) as error:
        return str(error)
    assert out.shape == (value[0], pairs[1], value[2] * value[3])
    return None


axes = st.lists(st.integers(0, 4), max_size=6)
axes_of_4 = st.lists(st.integers(0, 3), min_size=4, max_size=4)


@hypothesis.settings(max_examples=300)
@hypothesis.given(
    value=axes | axes_of_4,
    pairs=axes | axes_of_4.map(lambda shape: [*shape, 2]),
    scalars=axes | axes_of_4,
    levels=st.lists(sizes, max_size=3),
    points=st.none() | st.lists(st.integers(-1, 4), max_size=3),
)
def test_random_arguments_run_or_are_refused_by_name(
    value: list[int],
    pairs: list[int],
    scalars: list[int],
    levels: list[tuple[int, int]],
    points: list[int] | None,
) -> None:
    message = refusal(value, pairs, scalars, levels=levels, points=points)
    assert message is None or re.match("(value|levels|locations|weights|points): ", message)
