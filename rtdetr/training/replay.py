# SPDX-License-Identifier: Apache-2.0
"""Where the numbers of a failed step stop being finite: the batch once more, in float32, image by image."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..config import RTDetrV2Config
from ..errors import RTDetrError
from ..model import RTDetrV2ForObjectDetection

__all__ = ["Replay", "replay"]


@dataclass(frozen=True)
class Replay:
    """What a second run of a batch found.

    Args:
        first: the first tensor with a NaN or an infinity, in words; None where all are finite.
        images: file names of the images for which there is one.
        amp: in what the step was computed.
    """

    first: str | None
    images: tuple[str, ...]
    amp: str

    def lines(self) -> list[str]:
        """In sentences."""
        if self.first is None:
            advice = (
                "train with --amp off, or at a lower --lr"
                if self.amp != "off"
                else "the gradient grew from step to step: train at a lower --lr"
            )
            return [
                f"all numbers are finite in float32; the step was computed in {self.amp}: {advice}"
            ]
        return [f"first not finite: {self.first}", *(f"image: {name}" for name in self.images)]


def replay(path: str | Path) -> Replay:
    """Run a batch that :mod:`rtdetr.training.failures` has written once more.

    Raises:
        RTDetrError: the file is damaged or of another kind.
    """
    content = _read(Path(path))
    model = RTDetrV2ForObjectDetection(RTDetrV2Config.from_dict(json.loads(content["config"])))
    model.load_state_dict(content["model"])
    model.train()
    pixels, labels, names = (content[name] for name in ("pixel_values", "labels", "names"))
    first = _first_failure(model, pixels, labels)
    images = [
        name
        for index, name in enumerate(names)
        if first is not None
        and _first_failure(model, pixels[index : index + 1], labels[index : index + 1])
    ]
    return Replay(first, tuple(images), content["amp"])


def _read(path: Path) -> dict[str, Any]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise RTDetrError(f"{path}: not a batch of a failed step ({error})") from error
    expected = {"config", "model", "pixel_values", "labels", "names", "amp"}
    if not (isinstance(content, dict) and expected <= set(content)):
        raise RTDetrError(f"{path}: not a batch of a failed step; expected {sorted(expected)}")
    return content


def _first_failure(
    model: RTDetrV2ForObjectDetection, pixels: Tensor, labels: list[dict[str, Tensor]]
) -> str | None:
    """The first tensor that is not finite: a weight, the pixels, what a module returns, a loss, or a gradient."""
    for name, parameter in model.named_parameters():
        if not parameter.isfinite().all():
            return f"the weight {name}"
    if pixels.is_floating_point() and not pixels.isfinite().all():
        return "the pixels"
    pixels = pixels if pixels.is_floating_point() else pixels.float() / 255
    generators = [torch.Generator().manual_seed(int(label["noise_seed"])) for label in labels]
    model.zero_grad(set_to_none=True)
    with _watching(model) as failures:
        outputs = model(pixels, labels=labels, generators=generators, return_dict=True)
    if failures:
        return f"the output of {failures[0]}"
    for name, term in outputs.loss_dict.items():
        if not term.isfinite():
            return f"the loss term {name}"
    outputs.loss.backward()
    # Backward, the last layer comes first.
    for name, parameter in reversed(list(model.named_parameters())):
        if parameter.grad is not None and not parameter.grad.isfinite().all():
            return f"the gradient of {name}"
    return None


@contextmanager
def _watching(model: nn.Module) -> Iterator[list[str]]:
    """Names of modules with outputs that are not finite, in the order in which they ran."""
    failures: list[str] = []

    def hook(name: str) -> Any:
        def look(_: nn.Module, __: Any, output: Any) -> None:
            if not all(tensor.isfinite().all() for tensor in _tensors(output)):
                failures.append(name)

        return look

    handles = [module.register_forward_hook(hook(name)) for name, module in model.named_modules()]
    try:
        yield failures
    finally:
        for handle in handles:
            handle.remove()


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)
