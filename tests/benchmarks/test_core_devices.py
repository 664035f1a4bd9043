# SPDX-License-Identifier: Apache-2.0
"""How a device times; CUDA without a GPU, as the calls it makes."""

from contextlib import nullcontext
from itertools import count
from unittest.mock import Mock

import pytest
import torch
from core.devices import CpuDevice, CpuStandIn, CudaDevice, Limits


@pytest.mark.parametrize(
    ("seconds", "repetitions"), [(0.5, 2), (0.01, 10), (0.0001, 20)], ids=["few", "fit", "most"]
)
def test_repetitions_fit_the_time(seconds, repetitions):
    assert Limits(0.1, 2, 20).repetitions(seconds) == repetitions


@pytest.fixture
def fake_cuda(monkeypatch):
    """What a CUDA device is asked for, in order; every launch takes a millisecond."""
    events = []

    class Event:
        def __init__(self, enable_timing):
            self.enable_timing = enable_timing

        def record(self):
            events.append("event")

        def elapsed_time(self, after):
            assert self.enable_timing
            assert after.enable_timing
            return 1.0

    class Graph:
        def replay(self):
            events.append("replay")

    monkeypatch.setattr(CudaDevice, "type", "cpu")
    monkeypatch.setattr(CudaDevice, "FLUSH_BYTES", 1)
    fakes = {
        "Event": Event,
        "CUDAGraph": Graph,
        "Stream": Mock,
        "current_stream": Mock(),
        "stream": nullcontext,
        "graph": nullcontext,
        "synchronize": lambda: events.append("synchronize"),
        "_sleep": lambda cycles: events.append("sleep"),
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    return events


def test_a_launch_is_timed_between_events_behind_a_delay(fake_cuda):
    seconds = CudaDevice().time_launch(lambda: fake_cuda.append("launch"), Limits(0, 2, 2))
    assert seconds == [1e-3, 1e-3]
    warm = ["launch", "synchronize", "launch", "synchronize"]
    assert fake_cuda == [*warm, *["sleep", "event", "launch", "event"] * 2, "synchronize"]


def test_a_graph_shares_its_time_among_its_calls(fake_cuda):
    seconds = CudaDevice().time_graph(lambda: fake_cuda.append("launch"), 5, Limits(0, 2, 2))
    assert seconds == [2e-4, 2e-4]
    warm = ["launch"] * (3 + 5) + ["replay", "synchronize"]
    assert fake_cuda == [*warm, *["event", "replay", "event"] * 2, "synchronize"]


@pytest.mark.parametrize("device", [CpuDevice, CpuStandIn, CudaDevice])
def test_captured_calls_return_what_the_last_of_them_returned(fake_cuda, device):
    numbers = count()
    replay = device().capture(lambda: next(numbers), calls=3)
    assert replay() == (5 if device is CudaDevice else 2)  # CUDA: after three calls to warm up
    assert next(numbers) == (6 if device is CudaDevice else 3)  # and its replay calls nothing


def test_the_clock_of_the_host_stops_when_the_device_is_done(fake_cuda):
    calls = CudaDevice().time_host(lambda: fake_cuda.append("call"), 2, Limits(0, 3, 3))
    assert len(calls) == 3
    assert fake_cuda == ["call", "call", "synchronize"] * (1 + 1 + 3)
