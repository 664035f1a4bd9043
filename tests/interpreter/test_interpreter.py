# SPDX-License-Identifier: Apache-2.0
"""The fast interpreter gives the bits of the slow one, and both round bfloat16 as torch does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("triton")

TESTS = Path(__file__).resolve().parents[1]
OPERATIONS = ("add", "sub", "mul", "and_", "or_", "lt", "le", "gt", "ge", "eq", "ne")
GROUPS = (*OPERATIONS, "pointer", "float32", "bfloat16", "kernel")
"""First words of the probe's cases."""

Probe = dict[str, Any]


def start_probe(mode: str, file: Path) -> subprocess.Popen[bytes]:
    """Both modes change Triton for the whole process."""
    command = (sys.executable, "-m", "interpreter.probe", mode, str(file))
    env = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(TESTS.parent)}
    return subprocess.Popen(command, cwd=TESTS, env=env, stderr=subprocess.PIPE)


@pytest.fixture(scope="module")
def probes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Probe]:
    folder = tmp_path_factory.mktemp("probe")
    processes = {mode: start_probe(mode, folder / mode) for mode in ("repaired", "fast")}
    for process in processes.values():
        _, errors = process.communicate()
        assert process.returncode == 0, errors.decode()
    return {mode: json.loads((folder / mode).read_text()) for mode in processes}


@pytest.mark.parametrize("group", GROUPS)
def test_fast_gives_the_types_and_bits_of_slow(probes: dict[str, Probe], group: str) -> None:
    slow, fast = (
        {case: result for case, result in probe["results"].items() if case.split()[0] == group}
        for probe in probes.values()
    )
    assert slow
    assert slow.keys() == fast.keys()
    assert [case for case in slow if slow[case] != fast[case]] == []


def test_every_case_is_of_a_group(probes: dict[str, Probe]) -> None:
    assert {case.split()[0] for case in probes["fast"]["results"]} == set(GROUPS)


def test_fast_works_nothing_out_twice(probes: dict[str, Probe]) -> None:
    """Fifty turns of a loop: were a replaced function no longer called, the counts would stay."""
    assert all(count > 50 for count in probes["repaired"]["counts"].values())
    assert all(count <= 3 for count in probes["fast"]["counts"].values())


def numbers_and_nans(tensor: torch.Tensor) -> list[str]:
    parts = tensor.nan_to_num(nan=1.0).view(torch.uint8), tensor.isnan().view(torch.uint8)
    return [part.numpy().tobytes().hex() for part in parts]


@pytest.mark.parametrize("mode", ["repaired", "fast"])
def test_every_bfloat16_is_read_exactly(probes: dict[str, Probe], mode: str) -> None:
    patterns = torch.arange(2**16).to(torch.int16).view(torch.bfloat16)
    expected = numbers_and_nans(patterns.float())
    assert probes[mode]["results"]["bfloat16 to float32"] == expected


@pytest.mark.parametrize("mode", ["repaired", "fast"])
@pytest.mark.parametrize("tail", [0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], ids=hex)
def test_float32_is_rounded_to_the_nearest_bfloat16(
    probes: dict[str, Probe], tail: int, mode: str
) -> None:
    """Every upper half of a float32, with a lower half at and around the tie."""
    wide = ((torch.arange(2**16) << 16).to(torch.int32) | tail).view(torch.float32)
    expected = numbers_and_nans(wide.bfloat16())
    assert probes[mode]["results"][f"float32 to bfloat16 {tail:#x}"] == expected
