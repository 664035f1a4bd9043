# SPDX-License-Identifier: Apache-2.0
"""RT-DETRv2 end to end: this detector against transformers, onnxruntime and OpenVINO, on the same weights and image.

All take turns in one run. The ONNX file that the runtimes execute is exported from the model of transformers.
"""

from __future__ import annotations

import ctypes
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy
import torch
from core.detections import Detector, Outputs, as_detector, check_detections
from core.devices import Device
from core.records import Record, summarize
from core.timing import take_turns
from torch import Tensor, nn

from rtdetr import RTDetrV2ForObjectDetection
from rtdetr.memory import M_MMAP_THRESHOLD, M_TOP_PAD, M_TRIM_THRESHOLD, keep_freed_memory
from rtdetr_ops.testing.models import make_rt_detr_v2

__all__ = ["measure_detectors"]

CASE = "RT-DETRv2 R18 640x640"
KEPT = ", memory kept"
"""Contenders that run after ``rtdetr.keep_freed_memory()``."""

LARGEST_DYNAMIC = 32 * 2**20
"""Where glibc's own adjustment of its threshold ends, in bytes; it trims at twice that."""


def measure_detectors(device: Device, quick: bool, threads: int) -> list[Record]:
    """One record for each way to run the detector that is installed here."""
    with tempfile.TemporaryDirectory() as folder:
        detectors = _detectors(Path(folder), quick, threads)
        image = torch.rand((1, 3, 640, 640), generator=torch.Generator().manual_seed(0))
        truth = detectors["transformers eager"](image)
        lost = {
            name: check_detections(name, truth, run(image), exact="bfloat16" not in name)
            for name, run in detectors.items()
        }
        seconds = take_turns(
            device,
            {name: _bound(run, image) for name, run in detectors.items()},
            rounds=1 if quick else 15,
            warmup=0 if quick else 2,
            around={name: _memory_kept for name in detectors if name.endswith(KEPT)},
        )
        records = summarize("detector", CASE, seconds)
        for record in records:
            record.details["max_difference"] = lost[record.row]
        return records


def _detectors(folder: Path, quick: bool, threads: int) -> dict[str, Detector]:
    theirs = make_rt_detr_v2()
    theirs.save_pretrained(folder / "model")

    def ours() -> RTDetrV2ForObjectDetection:
        return RTDetrV2ForObjectDetection.from_pretrained(folder / "model")

    fast, fast_bfloat16 = ours().optimize(), ours().optimize(dtype=torch.bfloat16)
    found: dict[str, Detector] = {
        f"rtdetr optimized{KEPT}": as_detector(fast),
        f"rtdetr optimized bfloat16{KEPT}": as_detector(fast_bfloat16),
        "rtdetr optimized": as_detector(fast),
        "rtdetr optimized bfloat16": as_detector(fast_bfloat16),
        "rtdetr eager": as_detector(ours()),
        "transformers eager": as_detector(theirs),
    }
    if not quick:
        found["rtdetr optimized, compiled"] = as_detector(torch.compile(ours().optimize()))
        found["transformers compiled"] = as_detector(torch.compile(theirs))
        # From a model of its own: tracing leaves something behind that changes later results.
        found |= _runtimes(make_rt_detr_v2(), folder / "model.onnx", threads)
    return found


def _runtimes(model: nn.Module, path: Path, threads: int) -> dict[str, Detector]:
    """Those installed of onnxruntime and OpenVINO (in float32, and in bfloat16 where the processor has it)."""
    _export(model, path)
    found: dict[str, Detector] = {}
    if find_spec("onnxruntime"):
        found["onnxruntime"] = _onnxruntime(path, threads)
    if find_spec("openvino"):
        found["OpenVINO"] = _openvino(path, threads, "f32")
        found["OpenVINO bfloat16"] = _openvino(path, threads, "bf16")
    return found


@contextmanager
def _memory_kept() -> Iterator[None]:
    """As the ``rtdetr`` command runs; afterwards again what glibc does by itself in a process with large blocks."""
    if not keep_freed_memory():
        yield
        return
    yield
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(M_MMAP_THRESHOLD, LARGEST_DYNAMIC)
    mallopt(M_TRIM_THRESHOLD, 2 * LARGEST_DYNAMIC)
    mallopt(M_TOP_PAD, 0)


class _Pair(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> Outputs:
        found = self.model(pixel_values)
        return found.logits, found.pred_boxes


def _export(model: nn.Module, path: Path) -> None:
    names: dict[str, Any] = {"input_names": ["pixel_values"], "output_names": ["logits", "boxes"]}
    # Of the two exporters this one takes the checks in their code.
    torch.onnx.export(
        _Pair(model), (torch.rand(1, 3, 640, 640),), path, dynamo=False, opset_version=17, **names
    )


def _onnxruntime(path: Path, threads: int) -> Detector:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(image: Tensor) -> Outputs:
        logits, boxes = session.run(None, {"pixel_values": image.numpy()})
        return torch.from_numpy(logits), torch.from_numpy(boxes)

    return run


def _openvino(path: Path, threads: int, precision: str) -> Detector:
    import openvino

    options = {
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": precision,
        "PERFORMANCE_HINT": "LATENCY",
    }
    compiled = openvino.Core().compile_model(path, "CPU", options)

    def run(image: Tensor) -> Outputs:
        found = compiled(image.numpy())
        logits, boxes = (torch.from_numpy(numpy.array(found[i])) for i in range(2))
        return logits, boxes

    return run


def _bound(run: Detector, image: Tensor) -> Callable[[], object]:
    return lambda: run(image)
