# SPDX-License-Identifier: Apache-2.0
"""The whole detector on a GPU: the same detections as on the CPU, compiled, and replayed from a CUDA graph."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).resolve().parents[1] / "rtdetr"))
sys.path.append(str(Path(__file__).resolve().parents[1] / "rtdetr" / "model"))

from on_gpu import DEVICE  # these two are on the path since the lines above
from test_optimize import CONFIGS, awake, example, farthest, rows

from rtdetr.devices import full_float32


@pytest.fixture(autouse=True)
def comparable() -> Iterator[None]:
    with full_float32():
        yield


@pytest.mark.parametrize("name", CONFIGS)
def test_finds_what_the_cpu_finds(name: str) -> None:
    expected = rows(awake(CONFIGS[name]()), example())
    model = awake(CONFIGS[name]()).to(DEVICE)
    assert farthest(expected, rows(model, example().to(DEVICE)).cpu()) < 1e-3
    assert farthest(expected, rows(model.optimize(), example().to(DEVICE)).cpu()) < 1e-3


def test_bfloat16_finds_nearly_the_same() -> None:
    model = awake(CONFIGS["basic"]()).to(DEVICE)
    pixels = example().to(DEVICE)
    expected, got = rows(model, pixels), rows(model.optimize(dtype=torch.bfloat16), pixels)
    nearest = torch.cdist(expected, got, p=float("inf")).amin(-1)
    assert nearest.median() < 0.03


def test_compiles_without_a_break() -> None:
    fast = awake(CONFIGS["basic"]()).to(DEVICE).optimize()
    pixels = example().to(DEVICE)
    assert farthest(rows(fast, pixels), rows(torch.compile(fast, fullgraph=True), pixels)) < 1e-4


def test_replays_from_a_cuda_graph(cuda: str) -> None:
    """Nothing waits for the device and nothing depends on numbers: the whole model is captured."""
    fast = awake(CONFIGS["basic"]()).to(cuda).optimize()
    pixels = torch.zeros(2, 3, 96, 64, device=cuda)
    with torch.inference_mode():
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            fast(pixels)  # warms up libraries and tables
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            found = fast(pixels)
        pixels.copy_(example())
        graph.replay()
        replayed = torch.cat([found.logits.sigmoid(), found.pred_boxes], -1)
    assert farthest(rows(fast, pixels), replayed) < 1e-5
