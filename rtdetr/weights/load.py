# SPDX-License-Identifier: Apache-2.0
"""From weights to a model: find, read, name, fill."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ..config import RTDetrV2Config
from ..errors import ModelError
from ..hub import HubOptions
from .locate import WeightFiles, locate, weight_files
from .names import SECOND_NAMES, has_heads, to_module_names
from .read import CheckpointContents, read_files
from .recognize import check_family, recognize
from .report import LoadReport, Mismatch, shortened

__all__ = ["load_pretrained"]

M = TypeVar("M", bound=nn.Module)

logger = logging.getLogger(__name__)

HEADS = ("model.decoder.class_embed.", "model.decoder.bbox_embed.")
COMPUTED = ("num_batches_tracked", "n_points_scale")
"""What the model has by itself; older files lack it."""


def load_pretrained(
    build: Callable[[RTDetrV2Config], M],
    source: str | Path,
    *,
    config: RTDetrV2Config | str | None,
    labels: dict[str, Any],
    ignore_mismatched_sizes: bool,
    dtype: torch.dtype | None,
    options: HubOptions,
) -> tuple[M, LoadReport]:
    """A module with the weights of ``source``, in evaluation mode, and what became of each weight.

    Args:
        build: makes the module from its configuration; its parameters have the names of our models.
        source: see :func:`rtdetr.weights.locate.locate`.
        config: the configuration, or the name of a preset, instead of the one that comes with the weights.
        labels: ``num_labels``, ``id2label`` and ``label2id``; None takes those of the configuration.
        ignore_mismatched_sizes: leave weights of another shape freshly drawn.
        dtype: of the module; None for float32.
        options: of downloads.

    Raises:
        ModelError: see :meth:`rtdetr.RTDetrV2ForObjectDetection.from_pretrained`.
    """
    files = weight_files(locate(source, options), str(source), options)
    contents = read_files(files.files)
    state, unknown = to_module_names(contents.state)
    check_family(files.title, state, unknown, contents.holds)
    changes = {name: value for name, value in labels.items() if value is not None}
    module = build(_choose_config(config, files, contents, state).replace(**changes))
    report = _fill(module, files.title, state, unknown, ignore_mismatched_sizes)
    if not report.is_complete:
        logger.warning("%s", report)
    return module.to(dtype=dtype).eval(), report


def _choose_config(
    config: RTDetrV2Config | str | None,
    files: WeightFiles,
    contents: CheckpointContents,
    state: Mapping[str, Tensor],
) -> RTDetrV2Config:
    """What the caller passes, else what came with the weights, else what they look like."""
    if isinstance(config, str):
        return RTDetrV2Config.from_preset(config)
    if config is not None:
        return config
    if files.preset is not None:
        return RTDetrV2Config.from_preset(files.preset)
    if files.config is not None:
        return RTDetrV2Config.from_dict(json.loads(files.config.read_text(encoding="utf-8")))
    if contents.config is not None:
        return RTDetrV2Config.from_dict(contents.config)
    recognized = recognize(state)
    if "dsp" in files.title.lower():
        logger.warning(
            "%s: taken to sample whole pixels (discrete), by its name; config= decides otherwise",
            files.title,
        )
        return recognized.replace(decoder_method="discrete")
    return recognized


def _fill(
    model: nn.Module,
    title: str,
    state: dict[str, Tensor],
    unknown: list[str],
    ignore_mismatched_sizes: bool,
) -> LoadReport:
    """Copy ``state`` into the model, in place."""
    loaded, missing, mismatched = [], [], []
    for name, own in _targets(model).items():
        tensor = state.pop(name, None)
        if tensor is None:
            if not name.endswith(COMPUTED):
                missing.append(name)
        elif tensor.shape != own.shape:
            mismatched.append(Mismatch(name, tuple(tensor.shape), tuple(own.shape)))
        else:
            if name.endswith("n_points_scale"):
                _check_points(title, tensor, own)
            own.copy_(tensor)
            loaded.append(name)
    report = LoadReport(
        source=title,
        loaded=tuple(loaded),
        reinitialized=(*missing, *(mismatch.name for mismatch in mismatched)),
        missing=tuple(missing),
        unexpected=(*unknown, *_unexpected(model, state)),
        mismatched=tuple(mismatched),
    )
    if not ignore_mismatched_sizes:
        _refuse_gaps(report)
    return report


def _targets(model: nn.Module) -> dict[str, Tensor]:
    """The model's tensors, once each, under the names they have in a detector."""
    state = model.state_dict()
    if not has_heads(model):
        return {f"model.{name}": tensor for name, tensor in state.items()}
    return {name: tensor for name, tensor in state.items() if not name.startswith(SECOND_NAMES)}


def _unexpected(model: nn.Module, rest: Mapping[str, Tensor]) -> list[str]:
    """What the model has no place for, but for counters, and for heads where it ends before them."""
    return [
        name
        for name in rest
        if not name.endswith(COMPUTED) and (has_heads(model) or not name.startswith(HEADS))
    ]


def _check_points(title: str, tensor: Tensor, own: Tensor) -> None:
    """Lists of points that differ can have one sum, so shapes do not tell them apart."""
    if not torch.allclose(tensor.float(), own.float(), atol=1e-2):
        counts = [[round(1 / value) for value in scale.tolist()] for scale in (own, tensor)]
        raise ModelError(
            f"{title}: decoder_n_points: expected the counts behind {counts[0]}, got {counts[1]} in the file"
        )


def _refuse_gaps(report: LoadReport) -> None:
    """No model is random in part unless the caller allows it."""
    hint = (
        "Pass ignore_mismatched_sizes=True to draw these anew, or the config= they were made with."
    )
    if report.mismatched:
        shapes = shortened(report.mismatched, 2)
        raise ModelError(
            f"{report.source}: {len(report.mismatched)} weights have another shape: {shapes}. {hint}"
        )
    if report.missing:
        raise ModelError(
            f"{report.source}: {len(report.missing)} weights are missing: {shortened(report.missing)}. {hint}"
        )
