# SPDX-License-Identifier: Apache-2.0
"""Memory that is not there is an error of torch's type and words, wherever in a call it is missing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from exhaust_memory import CHANNELS, HEADS, POINTS, QUERIES, SIDE, STEP

from rtdetr_ops import _extension
from rtdetr_ops.ms_deform_attn.operators import Operators

pytestmark = pytest.mark.skipif(_extension.MISSING is not None, reason=str(_extension.MISSING))

EMULATED = "emulated" in str(_extension.build_info().get("cuda"))
limited_memory = pytest.mark.skipif(
    sys.platform != "linux" or EMULATED or "asan" in os.environ.get("LD_PRELOAD", ""),
    reason="needs Linux and a library that lives in little address space",
)

TORCH_SAYS = re.compile(r"DefaultCPUAllocator: can't allocate memory: you tried to allocate (\d+)")

# Bytes of what a call asks for, in order where one follows another.
VALUE = 4 * SIDE * SIDE * HEADS * CHANNELS
REFERENCE = 4 * QUERIES * 4
SCORES = 4 * QUERIES * HEADS * POINTS
OUTPUT = 4 * QUERIES * HEADS * CHANNELS
SHARES = 8 * QUERIES * HEADS * 4
SIZES = {
    "forward_of_copies": {VALUE, REFERENCE, 2 * SCORES, SCORES, OUTPUT},
    "backward": {VALUE, REFERENCE, 2 * SCORES, SCORES, OUTPUT, SHARES},
    "gradient_of_another_dtype": {OUTPUT, SCORES},
    "scratch": set(),
}


@limited_memory
@pytest.mark.parametrize(
    ("call", "threads"),
    [
        ("forward_of_copies", 1),
        ("backward", 2),
        ("gradient_of_another_dtype", 1),
        ("scratch", 1),  # of the calling thread
        ("scratch", 2),
    ],
)
def test_every_allocation(call: str, threads: int) -> None:
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("exhaust_memory.py"), call, str(threads)],
        # Large blocks are mapped and unmapped one by one.
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**20), "OMP_WAIT_POLICY": "PASSIVE"},
        check=True,
        capture_output=True,
        text=True,
    )
    errors = json.loads(done.stdout)
    assert len(errors) >= 3
    sizes = set()
    for kind, text in errors:
        match = TORCH_SAYS.search(text)
        assert (kind, match is not None) == ("RuntimeError", True), text
        sizes.add(int(match[1]))
    assert sizes >= SIZES[call]
    assert max(sizes) >= STEP


@pytest.mark.parametrize("entry", ["run", "run_fused", "gradients", "gradients_fused"])
def test_on_a_gpu_it_has_a_type(entry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "CUDA out of memory. Tried to allocate 8 bytes on cuda:0."

    def refuse(*_: Any) -> Any:
        raise RuntimeError(text)

    monkeypatch.setattr(Operators, "_operator", lambda *_: refuse)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (0, 0))
    count = 4 if "fused" in entry else 3
    tensors = [torch.zeros(1)] * count
    geometry: tuple[Any, ...] = ([1], "bilinear", *((0.5, None) if "fused" in entry else ()))
    levels = ((1, 1),)
    arguments = (
        (tensors[0], tensors, levels, *geometry, (True,) * count)
        if "gradients" in entry
        else (tensors[0], levels, *tensors[1:], *geometry)
    )
    with pytest.raises(torch.OutOfMemoryError, match=re.escape(text)):
        getattr(Operators("ms_deform_attn"), entry)(*arguments)
