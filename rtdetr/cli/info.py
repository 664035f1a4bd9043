# SPDX-License-Identifier: Apache-2.0
"""``rtdetr info``: what a model is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .arguments import AsJson, Model
from .console import say, say_json, table

if TYPE_CHECKING:
    from ..model import RTDetrV2ForObjectDetection
    from ..processing.image_processor import RTDetrImageProcessor

NAME = "info"


def command(model: Model, as_json: AsJson = False) -> None:
    """Describe a model: size, sampling, input, classes, and how its weights fitted.

    Of a published model only the configuration is needed: nothing is downloaded.
    """
    description = _describe(model)
    if as_json:
        say_json(description)
        return
    names, ids = description.pop("names"), description.pop("category_ids")
    classes = names if ids is None else [f"{n} ({i})" for n, i in zip(names, ids, strict=False)]
    preview = ", ".join(classes[:6]) + (f", ... ({len(classes)})" if len(classes) > 6 else "")
    rows = [
        [key.replace("_", " "), _text(value)]
        for key, value in description.items()
        if value is not None
    ]
    heading = "classes" if ids is None else "classes (ids)"
    for line in table([*rows, [heading, preview]]):
        say(line)


def _describe(source: str) -> dict[str, Any]:
    import torch

    from ..config import RTDetrV2Config
    from ..config.presets import Preset
    from ..hub import HubOptions
    from ..inference.loading import load_detector, read_processor
    from ..model import RTDetrV2ForObjectDetection
    from ..weights.locate import locate

    place = locate(source, HubOptions())
    preset = place if isinstance(place, Preset) else None
    if preset is not None:
        with torch.device("meta"):
            model = RTDetrV2ForObjectDetection(RTDetrV2Config.from_preset(preset))
        processor, weights = read_processor(preset), preset.hub or preset.url or "none published"
    else:
        detector = load_detector(source)
        model, processor, weights = detector.model, detector.processor, source
    published = {}
    if preset is not None and preset.is_published:
        published = {"ap": preset.ap, "ap50": preset.ap50}
    report = model.load_report
    return {
        "model": preset.name if preset is not None else source,
        "weights": weights,
        **published,
        **_architecture(model),
        "input": _input(processor),
        "normalize": processor.do_normalize,
        "load_report": None if report is None else str(report),
        "names": list(model.config.id2label.values()),
        "category_ids": model.config.category_ids,
    }


def _architecture(model: RTDetrV2ForObjectDetection) -> dict[str, Any]:
    config = model.config
    backbone = config.backbone_config
    parameters = {id(one): one for one in model.parameters()}.values()
    return {
        "parameters": sum(one.numel() for one in parameters),
        "trainable": sum(one.numel() for one in parameters if one.requires_grad),
        "dtype": str(model.dtype).removeprefix("torch."),
        "backbone": f"{type(backbone).__name__.removesuffix('Config')} channels {list(backbone.channels)}",
        "encoder_width": config.encoder_hidden_dim,
        "decoder_layers": config.last_layer + 1,
        "queries": config.num_queries,
        "points": list(config.points_per_level),
        "sampling": "discrete" if config.decoder_method == "discrete" else "bilinear",
    }


def _input(processor: RTDetrImageProcessor) -> dict[str, int] | str:
    """The size of the input; in words where it depends on the image."""
    size = processor.input_size
    return processor.size_text if size is None else {"height": size[0], "width": size[1]}


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {entry}" for key, entry in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value)
