# SPDX-License-Identifier: Apache-2.0
"""RT-DETRv2, an object detector, on fused deformable attention."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

# A name costs what it needs, and only when it is asked for: `import rtdetr` does not import torch.
_HOMES = {
    "Detection": ".results.detections",
    "Detections": ".results.detections",
    "HGNetV2Config": ".config",
    "LoadReport": ".weights",
    "PRESETS": ".config.presets",
    "RTDETR": ".detector",
    "RTDetrImageProcessor": ".processing.image_processor",
    "RTDetrV2Config": ".config",
    "RTDetrV2ForObjectDetection": ".model",
    "RTDetrV2Model": ".model",
    "ResNetConfig": ".config",
    "find_preset": ".config.presets",
    "keep_freed_memory": ".memory",
    "optimize": ".model.optimize",
    "save_original": ".weights",
    "to_original_state_dict": ".weights",
}

__all__ = sorted([*_HOMES, "__version__"])


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("rtdetr-ops")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(_HOMES[name], __name__), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return __all__
