# SPDX-License-Identifier: Apache-2.0
"""RT-DETRv2, an object detector, on fused deformable attention."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .config import HGNetV2Config, ResNetConfig, RTDetrResNetConfig, RTDetrV2Config
    from .config.presets import PRESETS, find_preset
    from .detector import RTDETR
    from .errors import DataError, MissingExtraError, ModelError, RTDetrError, UsageError
    from .images.io import Unreadable
    from .memory import keep_freed_memory
    from .model import RTDetrV2ForObjectDetection, RTDetrV2Model
    from .model.optimize import optimize
    from .processing.image_processor import RTDetrImageProcessor
    from .results.detections import Detection, Detections
    from .results.drawing import Style
    from .training.callbacks import Callback
    from .training.trainer import Trainer, TrainResult
    from .weights import LoadReport, save_checkpoint, save_original, to_original_state_dict

    __version__: str

__all__ = [
    "PRESETS",
    "RTDETR",
    "Callback",
    "DataError",
    "Detection",
    "Detections",
    "HGNetV2Config",
    "LoadReport",
    "MissingExtraError",
    "ModelError",
    "RTDetrError",
    "RTDetrImageProcessor",
    "RTDetrResNetConfig",
    "RTDetrV2Config",
    "RTDetrV2ForObjectDetection",
    "RTDetrV2Model",
    "ResNetConfig",
    "Style",
    "TrainResult",
    "Trainer",
    "Unreadable",
    "UsageError",
    "__version__",
    "find_preset",
    "keep_freed_memory",
    "optimize",
    "save_checkpoint",
    "save_original",
    "to_original_state_dict",
]

# A name costs what it needs, and only when it is asked for: `import rtdetr` does not import torch.
_MODULES = {
    ".config": ("HGNetV2Config", "RTDetrResNetConfig", "RTDetrV2Config", "ResNetConfig"),
    ".config.presets": ("PRESETS", "find_preset"),
    ".detector": ("RTDETR",),
    ".errors": ("DataError", "MissingExtraError", "ModelError", "RTDetrError", "UsageError"),
    ".images.io": ("Unreadable",),
    ".memory": ("keep_freed_memory",),
    ".model": ("RTDetrV2ForObjectDetection", "RTDetrV2Model"),
    ".model.optimize": ("optimize",),
    ".processing.image_processor": ("RTDetrImageProcessor",),
    ".results.detections": ("Detection", "Detections"),
    ".results.drawing": ("Style",),
    ".training.callbacks": ("Callback",),
    ".training.trainer": ("TrainResult", "Trainer"),
    ".weights": ("LoadReport", "save_checkpoint", "save_original", "to_original_state_dict"),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}


if not TYPE_CHECKING:  # to a type checker, a name that is not imported above is an error

    def __getattr__(name: str) -> object:
        if name == "__version__":
            from importlib.metadata import version

            return version("rtdetr-ops")
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(_HOMES[name], __name__), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return __all__
