# SPDX-License-Identifier: Apache-2.0
"""Calls of the operator, drawn at random: sound ones against float64, odd ones against the definition."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rtdetr_ops.testing.inputs import LAYOUTS, Call, Case, Fused, Storage, make_call
from rtdetr_ops.testing.tester import assert_close_to_truth, targets
from rtdetr_ops.testing.workloads import Workload

from .forked import Case as SeedCase
from .outcomes import ANSWERED, Outcome, Verdict, attempt, judge

REFUSALS = (TypeError, ValueError, RuntimeError, NotImplementedError)
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
FREED = "(freed or resized)"
KERNELS = tuple(target for target in targets() if target.backend != "reference")


def prepare_valid(folder: Path) -> SeedCase:
    """Sound calls: result and every gradient of a random backend."""
    return _valid


def prepare_odd(folder: Path) -> SeedCase:
    """Calls with odd arguments: a backend does what the definition does, with an answer or with a sentence."""
    return _odd


def _valid(seed: int) -> Outcome:
    random = Random(seed)
    call = make_call(_draw_case(random))
    target = random.choice(KERNELS)
    return attempt(lambda: assert_close_to_truth(target, call, may_cancel=True), REFUSALS)


def _draw_case(random: Random) -> Case:
    fused = random.choice(
        (None, Fused(random.choice((2, 4)), *_bits(random, 2), random.choice((0.5, 1.0))))
    )
    storage = random.choice(
        (Storage(), Storage(random.choice(DTYPES)), Storage(*random.choices(DTYPES, k=4)))
    )
    layout = random.choice([name for name in LAYOUTS if _has_layout(name, fused)])
    return Case(_draw_workload(random), storage, fused, layout, random.randrange(2**31))


def _draw_workload(random: Random) -> Workload:
    levels = tuple((_side(random), _side(random)) for _ in range(random.randint(1, 5)))
    points = [random.choice((0, 1, 2, 3, 4, 4, 9)) for _ in levels]
    points[random.randrange(len(points))] += 1
    return Workload(
        "fuzz",
        batch=random.choice((1, 1, 2, 3)),
        queries=random.choice((1, 2, 5, 17, 64)),
        heads=random.choice((1, 2, 3, 8)),
        levels=levels,
        points=tuple(points),
        channels=random.choice((1, 3, 4, 8, 16, 17, 32, 33)),
        mode=random.choice(("bilinear", "discrete")),
    )


def _side(random: Random) -> int:
    return random.choice((1, 1, 2, 3, 5, 8, 13))


def _bits(random: Random, count: int) -> tuple[bool, ...]:
    return tuple(random.random() < 0.5 for _ in range(count))


def _has_layout(name: str, fused: Fused | None) -> bool:
    if name.startswith("reference"):
        return fused is not None
    return fused is not None and fused.masked if name.startswith("mask") else True


def _odd(seed: int) -> Outcome:
    random = Random(seed)
    torch.manual_seed(seed)
    call = make_call(replace(_draw_case(random), layout="contiguous"))
    arguments = {**call.tensors, **call.options}
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        name = random.choice(list(arguments))
        arguments[name] = _damage(name, arguments[name], random)
    target = random.choice(KERNELS)
    with target.selected():
        result = _call(call, arguments, target.backend)
    if isinstance(result, Exception) and FREED in str(result):
        return judge(
            result, REFUSALS
        )  # torch's own operators, the definition's, read what is not there
    expected = _call(call, arguments, "reference")
    return _judge(result, expected, _call(call, _absolute(arguments), "reference"))


def _call(call: Call, arguments: dict[str, Any], backend: str) -> Tensor | Exception:
    try:
        return call.entry(**arguments, backend=backend)
    except Exception as error:
        return error


def _absolute(arguments: dict[str, Any]) -> dict[str, Any]:
    """The call whose terms have the sizes of those of ``arguments`` and do not cancel each other."""
    return {
        name: argument.abs() if name in ("value", "weights") and _is_real(argument) else argument
        for name, argument in arguments.items()
    }


def _is_real(argument: Any) -> bool:
    is_dense = isinstance(argument, Tensor) and argument.layout == torch.strided
    return is_dense and argument.dtype in DTYPES and not _is_released(argument)


def _judge(
    result: Tensor | Exception, expected: Tensor | Exception, sizes: Tensor | Exception
) -> Outcome:
    if isinstance(result, Exception):
        outcome = judge(result, REFUSALS)
        if outcome.good and not isinstance(expected, Exception):
            return Outcome(Verdict.WRONG, f"the definition answers, the backend says: {result}")
        return outcome
    if isinstance(expected, Exception):
        if not judge(expected, REFUSALS).good:
            return ANSWERED  # the definition stands on operators of torch that do not know such tensors
        return Outcome(Verdict.WRONG, f"the backend answers, the definition says: {expected}")
    return _compare(result, expected, expected if isinstance(sizes, Exception) else sizes)


def _compare(result: Tensor, expected: Tensor, sizes: Tensor) -> Outcome:
    got, right = (
        (result.dtype, result.shape, result.device),
        (expected.dtype, expected.shape, expected.device),
    )
    if got != right:
        return Outcome(Verdict.WRONG, f"expected {right}, got {got}")
    if result.device.type == "meta":
        return ANSWERED
    # Where infinities meet, NaN or an infinity comes of it, as the order of the sum has it.
    both_overflow = ~result.isfinite() & ~expected.isfinite()
    step = _step(result.dtype)
    error, scale = (result.double() - expected.double()).abs(), sizes.double().abs()
    close = (error <= step * (1 + scale)) | (result == expected) | both_overflow
    differing = int((~close).sum())
    return Outcome(Verdict.WRONG, f"{differing} elements differ") if differing else ANSWERED


def _step(dtype: torch.dtype) -> float:
    """What sums of some tens of terms may differ by, each backend in an order of its own."""
    return max(1e-4, 64 * torch.finfo(dtype).eps) if dtype != torch.float64 else 1e-10


def _damage(name: str, argument: Any, random: Random) -> Any:
    if random.random() < 0.25:
        return random.choice(_JUNK)()
    tensor = isinstance(argument, Tensor)
    if tensor and _is_released(argument):
        return argument  # torch itself reads what is not there
    damage = random.choice(_TENSOR_DAMAGES if tensor else _OPTION_DAMAGES.get(name, _JUNK_ONLY))
    try:
        return damage(argument, random)
    except Exception:  # what is damaged already cannot take every further damage
        return argument


_JUNK: tuple[Callable[[], Any], ...] = (
    lambda: None,
    lambda: True,
    lambda: 0,
    lambda: -1,
    lambda: 2**63,
    lambda: 2.5,
    lambda: math.nan,
    lambda: "bilinear",
    lambda: "",
    lambda: b"x",
    list,
    tuple,
    dict,
    object,
    lambda: [1, "x"],
    lambda: np.ones((2, 2)),
    lambda: np.int64(2),
    lambda: torch.tensor(2),
    lambda: torch.empty(0),
    lambda: torch.ones(2, 2),
    lambda: torch.nn.Linear(1, 1),
)
_JUNK_ONLY = (lambda _, random: random.choice(_JUNK)(),)


def _axis(tensor: Tensor, random: Random) -> int:
    return random.randrange(max(tensor.dim(), 1))


def _set_odd(tensor: Tensor, random: Random) -> Tensor:
    """A few elements not finite or huge."""
    if not tensor.is_floating_point() or not tensor.numel():
        return tensor
    odd = tensor.clone()
    for _ in range(3):
        number = random.choice((math.nan, math.inf, -math.inf, 1e30, -1e30, 3e9, -3e9, 0.0))
        odd.view(-1)[random.randrange(odd.numel())] = number
    return odd


def _narrow(tensor: Tensor, random: Random) -> Tensor:
    axis = _axis(tensor, random)
    return (
        tensor.narrow(axis, 0, tensor.shape[axis] - 1)
        if tensor.dim() and tensor.shape[axis]
        else tensor
    )


def _transpose(tensor: Tensor, random: Random) -> Tensor:
    return (
        tensor.transpose(_axis(tensor, random), _axis(tensor, random)) if tensor.dim() else tensor
    )


def _empty(tensor: Tensor, random: Random) -> Tensor:
    axis = _axis(tensor, random)
    return tensor.narrow(axis, 0, 0) if tensor.dim() else tensor


def _longer(tensor: Tensor, random: Random) -> Tensor:
    return torch.cat([tensor, tensor], _axis(tensor, random)) if tensor.dim() else tensor


def _released(tensor: Tensor) -> Tensor:
    copy = tensor.clone()
    copy.untyped_storage().resize_(0)
    return copy


def _is_released(tensor: Tensor) -> bool:
    strided = tensor.layout == torch.strided
    return strided and tensor.numel() > 0 and tensor.untyped_storage().nbytes() == 0


_TENSOR_DAMAGES: tuple[Callable[[Tensor, Random], Any], ...] = (
    _set_odd,
    _set_odd,
    _set_odd,
    _narrow,
    _transpose,
    _empty,
    _longer,
    lambda tensor, random: tensor.to(random.choice(DTYPES)),
    lambda tensor, random: tensor.to(
        random.choice(
            (
                torch.int64,
                torch.int32,
                torch.uint8,
                torch.bool,
                torch.complex64,
                torch.float8_e4m3fn,
            )
        )
    ),
    lambda tensor, random: tensor.unsqueeze(_axis(tensor, random)),
    lambda tensor, _: tensor.flatten(),
    lambda tensor, _: tensor.to("meta"),
    lambda tensor, _: tensor.to_sparse(),
    lambda tensor, _: torch._neg_view(tensor) if tensor.is_floating_point() else tensor,
    lambda tensor, _: torch.complex(tensor.float(), tensor.float()).conj().imag,
    lambda tensor, _: tensor.detach().requires_grad_() if tensor.is_floating_point() else tensor,
    lambda tensor, _: torch.nn.Parameter(tensor, requires_grad=False),
    lambda tensor, _: tensor.numpy() if tensor.dtype != torch.bfloat16 else tensor.tolist(),
    lambda tensor, _: tensor.tolist(),
    lambda tensor, _: _released(tensor),
)


def _change_level(levels: Any, random: Random) -> Any:
    changed = [list(pair) for pair in levels] if isinstance(levels, tuple) else [[1, 1]]
    pair = random.choice(changed or [[1, 1]])
    odd = (0, -1, 2**40, 2**63, 1.0, True, "3", None, np.int64(3), math.nan)
    pair[random.randrange(2)] = random.choice(odd)
    return changed


def _change_points(points: Any, random: Random) -> Any:
    changed = list(points) if isinstance(points, tuple) else [1]
    changed[random.randrange(len(changed))] = random.choice(
        (0, -1, 1.0, True, 2**63, "2", None, np.int64(2))
    )
    return changed


_OPTION_DAMAGES: dict[str, tuple[Callable[[Any, Random], Any], ...]] = {
    "levels": (
        _change_level,
        _change_level,
        lambda levels, _: torch.tensor(levels),
        lambda levels, _: torch.tensor(levels, dtype=torch.int32),
        lambda levels, _: torch.tensor(levels, device="meta"),
        lambda levels, _: np.array(levels),
        lambda levels, _: levels[::-1],
        lambda levels, _: levels[1:],
        lambda levels, _: [*levels, (1, 1)],
        lambda levels, _: [side for pair in levels for side in pair],
    ),
    "points": (
        _change_points,
        _change_points,
        lambda points, _: points[::-1],
        lambda points, _: points[1:],
        lambda points, _: np.array(points),
        lambda points, _: torch.tensor(points),
        lambda points, _: max(points),
    ),
    "mode": (lambda mode, random: random.choice(("Bilinear", "nearest", "", None, 1, mode)),),
    "offset_scale": (
        lambda _, random: random.choice(
            (
                0,
                1,
                -1.5,
                math.nan,
                math.inf,
                1e30,
                True,
                "0.5",
                None,
                np.float32(0.5),
                torch.tensor(0.5),
            )
        ),
    ),
}
