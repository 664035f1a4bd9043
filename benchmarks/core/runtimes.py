# SPDX-License-Identifier: Apache-2.0
"""The detector of transformers as an ONNX file, and the runtimes that execute it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor, nn

from core.detections import Outputs
from core.devices import Device

__all__ = ["export_onnx", "onnxruntime_cpu", "openvino_cpu"]

PRECISIONS = {torch.float32: "f32", torch.bfloat16: "bf16"}
"""OpenVINO's names."""


class _LogitsAndBoxes(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> Outputs:
        outputs = self.model(pixel_values)
        return outputs.logits, outputs.pred_boxes


def export_onnx(model: nn.Module, path: Path) -> Path:
    """Write ``model``, for one image of 640x640, to ``path``, and return that."""
    names: dict[str, Any] = {"input_names": ["pixel_values"], "output_names": ["logits", "boxes"]}
    image = torch.rand(1, 3, 640, 640)
    # Of the two exporters this one takes the checks in their code.
    torch.onnx.export(
        _LogitsAndBoxes(model), (image,), path, dynamo=False, opset_version=17, **names
    )
    return path


def onnxruntime_cpu(
    path: Path, images: Tensor, dtype: torch.dtype, device: Device
) -> Callable[[], Outputs]:
    """By onnxruntime, with as many threads as torch has."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run() -> Outputs:
        logits, boxes = session.run(None, {"pixel_values": images.numpy()})
        return torch.from_numpy(logits), torch.from_numpy(boxes)

    return run


def openvino_cpu(
    path: Path, images: Tensor, dtype: torch.dtype, device: Device
) -> Callable[[], Outputs]:
    """By OpenVINO, with as many threads as torch has; bfloat16 where the processor has it."""
    import openvino

    options = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": PRECISIONS[dtype],
        "PERFORMANCE_HINT": "LATENCY",
    }
    network = openvino.Core().compile_model(path, "CPU", options)

    def run() -> Outputs:
        outputs = network(images.numpy())
        logits, boxes = (torch.from_numpy(numpy.array(outputs[i])) for i in range(2))
        return logits, boxes

    return run
