# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, torch
from rtdetr import RTDetrV2Config, RTDetrV2ForObjectDetection
from rtdetr.memory import keep_freed_memory
if {keeps}:
    assert keep_freed_memory()

model = RTDetrV2ForObjectDetection(RTDetrV2Config.from_preset("rtdetrv2_r18vd")).eval()
pixels = torch.rand(1, 3, 640, 640)
with torch.inference_mode():
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        model(pixels)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
def test_memory_is_not_cleared_again() -> None:
    # In processes of their own: the setting stays.
    faults = {
        keeps: int(
            subprocess.run(
                [sys.executable, "-c", PROGRAM.format(keeps=keeps)],
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        )
        for keeps in (True, False)
    }
    assert faults[True] < faults[False] / 4
