# SPDX-License-Identifier: Apache-2.0
"""The search for block sizes in tests/ops, with the clock of the GPU."""

from __future__ import annotations

import pytest
from on_gpu import GpuTarget, gpu_targets
from test_triton_tuning import clock, test_gradients_are_those_of_one_run

__all__ = ["clock", "searching", "test_gradients_are_those_of_one_run"]


@pytest.fixture
def searching() -> GpuTarget:
    for target in gpu_targets():
        if target.name == "triton":
            return target
    pytest.skip("Triton does not run here")
