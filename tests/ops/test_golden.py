# SPDX-License-Identifier: Apache-2.0
"""Every backend gives what the original RT-DETRv2 (commit 068dfde, PyTorch, float64) gives on stored inputs."""

from __future__ import annotations

from pathlib import Path

import numpy
import pytest
import torch
from torch import Tensor

from rtdetr_ops import ms_deform_attn
from rtdetr_ops.testing.inputs import Call
from rtdetr_ops.testing.tester import Target

GOLDEN = Path(__file__).parents[1] / "golden" / "ms_deform_attn.npz"
CASES = ("bilinear_444", "bilinear_363", "bilinear_124_rect", "discrete_444", "discrete_363")


def load(case: str) -> dict[str, Tensor]:
    with numpy.load(GOLDEN) as archive:
        return {
            name.removeprefix(f"{case}/"): torch.from_numpy(archive[name])
            for name in archive.files
            if name.startswith(f"{case}/")
        }


def test_no_case_is_left_out() -> None:
    with numpy.load(GOLDEN) as archive:
        assert {name.split("/")[0] for name in archive.files} == set(CASES)


@pytest.mark.parametrize("case", CASES)
def test_agrees_with_the_original(target: Target, case: str) -> None:
    stored = load(case)
    call = Call(
        ms_deform_attn,
        {name: stored[name] for name in ("value", "locations", "weights")},
        {
            "levels": stored["levels"].long(),
            "points": stored["points"].tolist(),
            "mode": case.split("_")[0],
        },
        stored["grad_output"],
    )
    results = target.run(call)
    names = ["output", "grad_value", "grad_weights"]
    if "grad_locations" in stored:
        names.append("grad_locations")
    for name in names:
        torch.testing.assert_close(results[name], stored[name], rtol=1e-12, atol=1e-12)
