# SPDX-License-Identifier: Apache-2.0
"""The CPU and a GPU to measure on, and a CPU that stands in for a GPU in a dry run, behind one interface."""

from __future__ import annotations

import shutil
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

__all__ = ["CpuDevice", "CpuStandIn", "CudaDevice", "Device", "Limits", "find_device"]

T = TypeVar("T")
Function = Callable[[], object]


@dataclass(frozen=True)
class Limits:
    """How long one measurement may take.

    Args:
        seconds: to aim at, warm-up not counted.
        fewest: repetitions, however long they take.
        most: repetitions, however short they are.
    """

    seconds: float
    fewest: int
    most: int

    def repetitions(self, each: float) -> int:
        """How many of ``each`` seconds fit."""
        return max(self.fewest, min(self.most, int(self.seconds / max(each, 1e-9))))


class Device(ABC):
    """Where contenders run and how a run is timed."""

    type: str
    """As torch names it."""
    compiler: str
    """The backend of ``torch.compile`` that makes sense there."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What a result file says about it, beside what it says about the machine."""

    @abstractmethod
    def synchronize(self) -> None:
        """Wait for everything, and raise what went wrong."""

    @abstractmethod
    def free_memory(self) -> None:
        """Give back what the allocator keeps."""

    @abstractmethod
    def capture(self, function: Callable[[], T], calls: int = 1) -> Callable[[], T]:
        """``calls`` calls in a row as one launch, which returns what the last of them returned."""

    @abstractmethod
    def time_launch(self, function: Function, limits: Limits) -> list[float]:
        """Seconds on the device of each launch, with cold caches."""

    @abstractmethod
    def time_graph(self, function: Function, calls: int, limits: Limits) -> list[float]:
        """Seconds on the device of one of ``calls`` captured calls in a row, with warm caches."""

    def time_host(self, function: Function, calls: int, limits: Limits) -> list[float]:
        """Seconds per call as the host sees them, ``calls`` of them in a row."""
        self.seconds(function, calls)  # a warm-up
        count = limits.repetitions(self.seconds(function, calls) * calls)
        return [self.seconds(function, calls) for _ in range(count)]

    def seconds(self, function: Function, calls: int = 1) -> float:
        """Seconds per call on the host's clock: from the first of ``calls`` until the device is done with all."""
        start = time.perf_counter()
        for _ in range(calls):
            function()
        self.synchronize()
        return (time.perf_counter() - start) / calls


class CpuDevice(Device):
    """The processor; its result file says what it is anyway."""

    type = "cpu"
    compiler = "inductor"

    def describe(self) -> dict[str, Any]:
        """Nothing more."""
        return {}

    def synchronize(self) -> None:
        """Nothing runs behind the host's back."""

    def free_memory(self) -> None:
        """Nothing is kept."""

    def capture(self, function: Callable[[], T], calls: int = 1) -> Callable[[], T]:
        """There are no graphs: the calls are made one by one."""

        def replay() -> T:
            for _ in range(calls - 1):
                function()
            return function()

        return replay

    def time_launch(self, function: Function, limits: Limits) -> list[float]:
        """Seconds of each call."""
        return self.time_host(function, 1, limits)

    def time_graph(self, function: Function, calls: int, limits: Limits) -> list[float]:
        """Seconds of one of ``calls`` calls in a row."""
        replay = self.capture(function, calls)
        return [seconds / calls for seconds in self.time_host(replay, 1, limits)]


class CpuStandIn(CpuDevice):
    """Goes through the motions of a GPU; its numbers mean nothing."""

    compiler = "eager"

    def describe(self) -> dict[str, Any]:
        """Says that there is no GPU."""
        return {"gpu": "no GPU", "capability": "9.0", "cuda": torch.version.cuda}


class CudaDevice(Device):
    """The current CUDA device."""

    type = "cuda"
    compiler = "inductor"

    FLUSH_BYTES = 2**28  # several times the second-level cache of any GPU
    CYCLES_PER_SECOND = 2e9  # about the highest clock there is; waiting longer does no harm

    def __init__(self) -> None:
        self._flush_buffer = torch.empty(self.FLUSH_BYTES, dtype=torch.int8, device=self.type)

    def describe(self) -> dict[str, Any]:
        """Name, capability, sizes, versions, and the clocks and limits as the driver reports them."""
        properties = torch.cuda.get_device_properties(0)
        return {
            "gpu": properties.name,
            "gpu_count": torch.cuda.device_count(),
            "capability": f"{properties.major}.{properties.minor}",
            "multiprocessors": properties.multi_processor_count,
            "gpu_memory_gib": round(properties.total_memory / 2**30, 1),
            "l2_mib": round(properties.L2_cache_size / 2**20, 1),
            "cuda": torch.version.cuda,
            **_ask_driver("driver_version", "clocks.max.sm", "clocks.max.mem", "power.limit"),
        }

    def synchronize(self) -> None:
        """Wait for everything, and raise what went wrong."""
        torch.cuda.synchronize()

    def free_memory(self) -> None:
        """Give back what the allocator keeps."""
        torch.cuda.empty_cache()

    def capture(self, function: Callable[[], T], calls: int = 1) -> Callable[[], T]:
        """A CUDA graph; whatever it returns is overwritten by the next replay."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):  # what is done lazily on first calls must not be captured
                function()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(calls - 1):
                function()
            outputs = function()

        def replay() -> T:
            graph.replay()
            return outputs

        return replay

    def time_launch(self, function: Function, limits: Limits) -> list[float]:
        """Seconds between two events around each launch, the second-level cache flushed before.

        A delay kernel goes ahead of every launch for as long as the host takes to enqueue it, so that
        the device does not wait for the host between the events.
        """
        function()
        self.synchronize()
        start = time.perf_counter()
        function()
        enqueue = time.perf_counter() - start
        self.synchronize()
        each = time.perf_counter() - start

        def prepare() -> None:
            self._flush_buffer.zero_()
            torch.cuda._sleep(int(1.5 * enqueue * self.CYCLES_PER_SECOND))

        return self._between_events(function, limits.repetitions(each + 2 * enqueue), prepare)

    def time_graph(self, function: Function, calls: int, limits: Limits) -> list[float]:
        """Seconds of one of ``calls`` calls in a row replayed from one graph, caches warm."""
        replay = self.capture(function, calls)
        count = limits.repetitions(self.seconds(replay))
        return [seconds / calls for seconds in self._between_events(replay, count)]

    def _between_events(
        self, function: Function, count: int, prepare: Function = lambda: None
    ) -> list[float]:
        pairs = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(count)]
        for before, after in pairs:
            prepare()
            before.record()
            function()
            after.record()
        self.synchronize()
        return [before.elapsed_time(after) / 1e3 for before, after in pairs]


def find_device(dry_run: bool) -> Device:
    """The GPU, or its stand-in.

    Raises:
        SystemExit: there is no GPU and this is no dry run.
    """
    if dry_run:
        torch.set_num_threads(1)  # the tensors are tiny
        return CpuStandIn()
    if not torch.cuda.is_available():
        raise SystemExit("expected a CUDA device, found none; --dry-run goes without one")
    return CudaDevice()


def _ask_driver(*fields: str) -> dict[str, str]:
    """What nvidia-smi says of the first GPU; nothing where it is not installed."""
    if shutil.which("nvidia-smi") is None:
        return {}
    query = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader", "--id=0"]
    answer = subprocess.run(query, check=True, stdout=subprocess.PIPE, text=True).stdout
    return dict(zip(fields, answer.strip().split(", "), strict=True))
