# SPDX-License-Identifier: Apache-2.0
"""Everything here needs a CUDA device; with RTDETR_OPS_TEST_DEVICE=cpu, what can rehearses on the CPU."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "ops")]  # on_gpu.py; the cases and tests of tests/ops

from on_gpu import DEVICE, GpuTarget, gpu_targets  # noqa: E402  # on the path since the line above


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what lies in this folder, and skip it where there is no device."""
    absent = DEVICE == "cuda" and not torch.cuda.is_available()
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.gpu)
            if absent:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(params=gpu_targets(), ids=lambda target: target.name)
def kernel(request: pytest.FixtureRequest) -> GpuTarget:
    """Every row with kernels for the device."""
    return request.param


@pytest.fixture
def target(kernel: GpuTarget) -> GpuTarget:
    """As ``kernel``: tests/ops compares the definition itself."""
    return kernel


@pytest.fixture
def cuda() -> str:
    """The device, for a test that has nothing to rehearse on a CPU."""
    if DEVICE != "cuda":
        pytest.skip("a CPU has no streams, no graphs and no second device")
    return DEVICE


@pytest.fixture
def default_device() -> Iterator[None]:
    """Tensors made inside the test lie on the device."""
    with torch.device(DEVICE):
        yield
