# SPDX-License-Identifier: Apache-2.0
"""Ways to run one RT-DETRv2: this detector and that of transformers, with the same weights, on the same images.

``suites/detector.py`` adds what only a CPU can do, ``gpu/detector_plan.py`` what only a GPU can.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.detections import Outputs, as_detector
from core.devices import Device
from core.runtimes import export_onnx
from rtdetr import RTDetrV2ForObjectDetection
from rtdetr_ops.testing.models import make_rt_detr_v2

__all__ = [
    "CONTENDERS",
    "DetectorContender",
    "Mode",
    "Models",
    "case_name",
    "compiled",
    "eager",
    "make_images",
    "replayed",
]

Mode = Callable[[Any, Tensor, torch.dtype, Device], Callable[[], Outputs]]
"""(model, images [B, 3, H, W] in float32, dtype to compute in, device) -> the call that is timed."""


class Models:
    """The same weights in every form, each built at its first use.

    Args:
        folder: for checkpoint and ONNX file.
        device: where the models lie.
    """

    def __init__(self, folder: Path, device: Device) -> None:
        self._folder, self._device = folder, device.type

    @cache  # noqa: B019  # a few small models may stay as long as the process
    def theirs(self, dtype: torch.dtype) -> Any:
        """That of transformers."""
        return make_rt_detr_v2().to(device=self._device, dtype=dtype)

    @cache  # noqa: B019
    def ours(self, dtype: torch.dtype) -> RTDetrV2ForObjectDetection:
        """That of this package, read from the checkpoint of theirs."""
        make_rt_detr_v2().save_pretrained(self._folder / "model")
        model = RTDetrV2ForObjectDetection.from_pretrained(self._folder / "model")
        return model.to(device=self._device, dtype=dtype)

    @cache  # noqa: B019
    def optimized(self, dtype: torch.dtype) -> RTDetrV2ForObjectDetection:
        """Ours, rewritten for inference."""
        return self.ours(torch.float32).optimize(dtype=dtype)

    def onnx(self, dtype: torch.dtype) -> Path:
        """An ONNX file of theirs, in float32 for every ``dtype``: its runtimes convert it."""
        path = self._folder / "model.onnx"
        # From a model of its own: tracing leaves something behind that changes later results.
        return path if path.exists() else export_onnx(make_rt_detr_v2(), path)

    def detect(self, images: Tensor) -> Outputs:
        """What every contender must detect: what theirs does in float32."""
        return as_detector(self.theirs(torch.float32))(images)


def eager(model: Any, images: Tensor, dtype: torch.dtype, device: Device) -> Callable[[], Outputs]:
    """As its user calls it."""
    return partial(as_detector(model), images.to(dtype))


def compiled(
    model: Any, images: Tensor, dtype: torch.dtype, device: Device
) -> Callable[[], Outputs]:
    """By ``torch.compile``."""
    return eager(torch.compile(model, backend=device.compiler), images, dtype, device)


def replayed(
    model: Any, images: Tensor, dtype: torch.dtype, device: Device
) -> Callable[[], Outputs]:
    """From a CUDA graph; each call copies the images into the graph's own."""
    images = images.to(dtype)
    buffer = images.clone()
    replay = device.capture(partial(as_detector(model), buffer))

    def run() -> Outputs:
        buffer.copy_(images)
        return replay()

    return run


@dataclass(frozen=True)
class DetectorContender:
    """One way to run the detector.

    Args:
        name: as reports print it.
        model: which of the models.
        dtype: it computes in.
        mode: how it is run.
        slow: whether it takes a minute to start.
        module: that must be importable, None for nothing beyond what the benchmarks need.
        around: what its calls happen in, untimed.
    """

    name: str
    model: Callable[[Models, torch.dtype], Any]
    dtype: torch.dtype = torch.float32
    mode: Mode = eager
    slow: bool = False
    module: str | None = None
    around: Callable[[], AbstractContextManager[None]] = nullcontext

    @property
    def is_installed(self) -> bool:
        """Whether ``module`` is."""
        return self.module is None or find_spec(self.module) is not None

    @property
    def exact(self) -> bool:
        """Whether it must find every detection again."""
        return self.dtype == torch.float32

    def bind(self, models: Models, images: Tensor, device: Device) -> Callable[[], Outputs]:
        """The call that is timed, on float32 images [B, 3, H, W]."""
        return self.mode(self.model(models, self.dtype), images, self.dtype, device)


CONTENDERS = (
    DetectorContender("rtdetr optimized", Models.optimized),
    DetectorContender("rtdetr optimized bfloat16", Models.optimized, torch.bfloat16),
    DetectorContender("rtdetr eager", Models.ours),
    DetectorContender("transformers eager", Models.theirs),
)
"""Those that run anywhere."""


def case_name(side: int) -> str:
    """In result files."""
    return f"RT-DETRv2 R18 {side}x{side}"


def make_images(batch: int, side: int, device: Device) -> Tensor:
    """Seeded noise, [B, 3, side, side] in float32."""
    images = torch.rand((batch, 3, side, side), generator=torch.Generator().manual_seed(0))
    return images.to(device.type)
