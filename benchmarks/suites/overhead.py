# SPDX-License-Identifier: Apache-2.0
"""What the package costs beside its kernels: its import, and one call on next to no data."""

from __future__ import annotations

import subprocess
import sys

import torch
from core.devices import Device
from core.peers import CONTENDERS
from core.records import Record, summarize
from core.timed_cases import Case, bind
from core.timing import take_turns

from rtdetr_ops.testing.workloads import TINY

__all__ = ["measure_calls", "measure_import"]

_IMPORT = """
import time
import torch
start = time.perf_counter()
import {module}
print(time.perf_counter() - start)
"""


def measure_import(quick: bool) -> list[Record]:
    """Seconds that importing takes in a fresh process that has imported torch."""
    seconds = [_import_seconds("rtdetr_ops") for _ in range(3 if quick else 9)]
    return summarize("import", "import after torch", {"rtdetr_ops": seconds})


def measure_calls(device: Device, quick: bool) -> list[Record]:
    """Seconds of one forward call on a tiny workload, without a graph."""
    case = Case(TINY, torch.float32, "ring", device.type)
    functions = {
        contender.name: bind(case, contender).forward
        for contender in CONTENDERS
        if contender.why_not(case.workload, device.type) is None
    }
    seconds = take_turns(device, functions, rounds=5 if quick else 50, calls=100)
    return summarize("call", f"forward {TINY.name} {TINY}", seconds)


def _import_seconds(module: str) -> float:
    command = [sys.executable, "-c", _IMPORT.format(module=module)]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
