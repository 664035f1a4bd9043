# SPDX-License-Identifier: Apache-2.0
"""What the kernels must reach on an NVIDIA H200, judged line by line from a result file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from core.records import Record, Run

__all__ = ["TARGETS", "Judgment", "judge"]

OURS, CLASSIC = "rtdetr_ops cuda", "torch-ms-deform-attn"
TRITON, OTHER_TRITON = "rtdetr_ops triton", "msda-triton"
ENCODER, DECODER = "encoder_800x1333", "decoder_b1"
GRAPH = "fused forward, graph"


@dataclass(frozen=True)
class Judgment:
    """One line of the table.

    Args:
        target: what is asked for.
        value: the number reached, None where something it needs was not measured.
        bound: the number asked for.
        at_most: whether it is an upper bound.
        met: whether it was reached, None where there is no number.
        unit: of both numbers.
    """

    target: str
    value: float | None
    bound: float
    at_most: bool
    met: bool | None
    unit: str


@dataclass(frozen=True)
class Target:
    """A number that a run yields and its bound."""

    text: str
    find: Callable[[Run], float | None]
    bound: float
    at_most: bool = False
    unit: str = "x"


def judge(run: Run) -> list[Judgment]:
    """Every target on one run."""
    return [_judge(target, run) for target in TARGETS]


def _judge(target: Target, run: Run) -> Judgment:
    value = target.find(run)
    met = None
    if value is not None:
        met = value <= target.bound if target.at_most else value >= target.bound
    return Judgment(target.text, value, target.bound, target.at_most, met, target.unit)


def _record(run: Run, suite: str, case: str, contender: str) -> Record | None:
    key = (suite, case, contender)
    return next((r for r in run.records if (r.suite, r.case, r.contender) == key), None)


def _ratio(slow: tuple[str, str, str], fast: tuple[str, str, str]) -> Callable[[Run], float | None]:
    """Median of one entry over that of another."""

    def find(run: Run) -> float | None:
        top, bottom = _record(run, *slow), _record(run, *fast)
        return top.median_s / bottom.median_s if top and bottom else None

    return find


def _over_gather_floor(run: Run) -> float | None:
    """Time of the bfloat16 encoder over the time its corners need at the measured rate of 64-byte vectors."""
    ours = _record(run, "forward", f"{ENCODER} bfloat16 ring", OURS)
    rate = (run.gpu_check or {}).get("ceilings", {}).get("gather_64B_22MB")
    if ours is None or rate is None:
        return None
    return ours.median_s * rate / ours.details["gather_bytes"]


def _microseconds(suite: str, case: str) -> Callable[[Run], float | None]:
    def find(run: Run) -> float | None:
        ours = _record(run, suite, case, OURS)
        return ours.median_s * 1e6 if ours else None

    return find


_CLASSIC_ENCODER = ("forward", f"{ENCODER} float32 ring", CLASSIC)


def _decoder_targets(dtype: str) -> tuple[Target, ...]:
    case = f"{DECODER} {dtype} ring"
    return (
        Target(
            f"fused decoder, batch 1, {dtype}: time on the device",
            _microseconds(GRAPH, case),
            6,
            at_most=True,
            unit=" µs",
        ),
        Target(
            f"fused decoder, batch 1, {dtype}: faster than softmax + locations + classic op",
            _ratio((GRAPH, case, CLASSIC), (GRAPH, case, OURS)),
            3,
        ),
    )


def _triton_target(suite: str) -> Target:
    case = f"{ENCODER} float32 ring"
    return Target(
        f"Triton, encoder {suite}, float32: faster than msda-triton",
        _ratio((suite, case, OTHER_TRITON), (suite, case, TRITON)),
        1.5,
    )


def _triton_over_cuda(dtype: str) -> Target:
    case = f"{ENCODER} {dtype} ring"
    return Target(
        f"Triton, encoder forward, {dtype}: speed, the CUDA kernel's being 1",
        _ratio(("forward", case, OURS), ("forward", case, TRITON)),
        0.8,
    )


TARGETS = (
    Target(
        "encoder forward, bfloat16: over the floor of gathers from the L2 cache",
        _over_gather_floor,
        1.5,
        at_most=True,
    ),
    Target(
        "encoder forward, bfloat16: faster than the classic op in float32",
        _ratio(_CLASSIC_ENCODER, ("forward", f"{ENCODER} bfloat16 ring", OURS)),
        3,
    ),
    Target(
        "encoder forward, float32: faster than the classic op in float32",
        _ratio(_CLASSIC_ENCODER, ("forward", f"{ENCODER} float32 ring", OURS)),
        1.7,
    ),
    *_decoder_targets("float32"),
    *_decoder_targets("bfloat16"),
    Target(
        "encoder forward+backward, float32: faster than the classic op in float32",
        _ratio(
            ("forward+backward", f"{ENCODER} float32 ring", CLASSIC),
            ("forward+backward", f"{ENCODER} float32 ring", OURS),
        ),
        3,
    ),
    Target(
        "encoder backward, float32: deterministic over atomic",
        _ratio(
            ("backward, deterministic", f"{ENCODER} float32 ring", OURS),
            ("backward", f"{ENCODER} float32 ring", OURS),
        ),
        2,
        at_most=True,
    ),
    *(_triton_over_cuda(dtype) for dtype in ("float32", "bfloat16")),
    *(_triton_target(suite) for suite in ("forward", "forward+backward")),
)
"""The classic op is the CUDA kernel of Deformable DETR, as torch-ms-deform-attn packages it."""
