# SPDX-License-Identifier: Apache-2.0
"""RT-DETRv2 end to end on a CPU: this detector against transformers, onnxruntime and OpenVINO, taking turns."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from core.detections import check_detections
from core.detectors import (
    CONTENDERS,
    DetectorContender,
    Models,
    case_name,
    compiled,
    make_images,
)
from core.devices import Device
from core.memory import memory_kept
from core.records import DETECTOR, Record, summarize
from core.runtimes import onnxruntime_cpu, openvino_cpu
from core.timing import take_turns

__all__ = ["measure_detectors"]

SIDE = 640
"""Of the square image, in pixels."""

CPU_CONTENDERS = (
    DetectorContender("rtdetr optimized, memory kept", Models.optimized, around=memory_kept),
    DetectorContender(
        "rtdetr optimized bfloat16, memory kept",
        *(Models.optimized, torch.bfloat16),
        around=memory_kept,
    ),
    *CONTENDERS,
    DetectorContender("rtdetr optimized, compiled", Models.optimized, mode=compiled, slow=True),
    DetectorContender("transformers compiled", Models.theirs, mode=compiled, slow=True),
    DetectorContender(
        "onnxruntime", Models.onnx, mode=onnxruntime_cpu, slow=True, module="onnxruntime"
    ),
    DetectorContender("OpenVINO", Models.onnx, mode=openvino_cpu, slow=True, module="openvino"),
    DetectorContender(
        "OpenVINO bfloat16",
        *(Models.onnx, torch.bfloat16, openvino_cpu),
        slow=True,
        module="openvino",
    ),
)


def measure_detectors(device: Device, quick: bool) -> list[Record]:
    """One record for each way to run the detector that is installed here; the slow ones not when ``quick``."""
    contenders = [c for c in CPU_CONTENDERS if c.is_installed and not (quick and c.slow)]
    images = make_images(1, SIDE, device)
    with tempfile.TemporaryDirectory() as folder:
        models = Models(Path(folder), device)
        calls = {c.name: c.bind(models, images, device) for c in contenders}
        truth = models.detect(images)
        differences = {
            c.name: check_detections(c.name, truth, calls[c.name](), c.exact) for c in contenders
        }
        seconds = take_turns(
            device,
            calls,
            rounds=1 if quick else 15,
            warmup=0 if quick else 2,
            around={c.name: c.around for c in contenders},
        )
    records = summarize(DETECTOR, case_name(SIDE), seconds)
    for record in records:
        record.details["max_difference"] = differences[record.contender]
    return records
