# SPDX-License-Identifier: Apache-2.0
"""What a run needs of torch's global state; afterwards it is as before."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["torch_state_of_a_run"]


@contextmanager
def torch_state_of_a_run(device: torch.device, deterministic: bool) -> Iterator[None]:
    """Gradients are computed, whatever is around the call; generators and determinism are put back.

    Args:
        device: of the run.
        deterministic: the same bits from each run on a GPU too.
    """
    gpus = [device] if device.type == "cuda" else []
    with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(gpus):
        is_before = torch.are_deterministic_algorithms_enabled()
        warns_only = torch.is_deterministic_algorithms_warn_only_enabled()
        if deterministic:
            # cuBLAS reads it when it starts.
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.use_deterministic_algorithms(True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(is_before, warn_only=warns_only)
