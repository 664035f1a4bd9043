# SPDX-License-Identifier: Apache-2.0
"""From weights to a model: find, read, name, fill."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..config import RTDetrV2Config
from ..errors import ModelError
from ..hub import HubOptions
from .locate import WeightFiles, locate, weight_files
from .names import to_module_names
from .read import Contents, read_files
from .recognize import check_family, recognise
from .report import LoadReport, Mismatch, shortened

if TYPE_CHECKING:
    from ..model.pretrained import Pretrained

__all__ = ["load_pretrained"]

logger = logging.getLogger(__name__)

HEADS = ("model.decoder.class_embed.", "model.decoder.bbox_embed.")
SECOND_NAMES = ("class_embed.", "bbox_embed.")
COMPUTED = ("num_batches_tracked", "n_points_scale")
"""What the model has by itself; older files lack it."""


def load_pretrained(
    cls: type[Pretrained],
    source: Any,
    *,
    config: RTDetrV2Config | str | None,
    labels: dict[str, Any],
    ignore_mismatched_sizes: bool,
    dtype: torch.dtype | None,
    **hub: Any,
) -> Any:
    """See :meth:`rtdetr.model.pretrained.Pretrained.from_pretrained`."""
    options = HubOptions(**hub)
    located = weight_files(locate(source, options), str(source), options)
    contents = read_files(located.files)
    state, unknown = to_module_names(contents.state)
    check_family(located.title, state, unknown, contents.holds)
    chosen = _choose_config(config, located, contents, state)
    changes = {name: value for name, value in labels.items() if value is not None}
    model = cls(chosen.replace(**changes))
    report = _fill(model, located.title, state, unknown, ignore_mismatched_sizes)
    if not report.is_complete:
        logger.warning("%s", report)
    model.load_report = report
    return model.to(dtype=dtype).eval()


def _choose_config(
    given: RTDetrV2Config | str | None,
    located: WeightFiles,
    contents: Contents,
    state: Mapping[str, Tensor],
) -> RTDetrV2Config:
    """What the caller gives, else what came with the weights, else what they look like."""
    if isinstance(given, str):
        return RTDetrV2Config.from_preset(given)
    if given is not None:
        return given
    if located.preset is not None:
        return RTDetrV2Config.from_preset(located.preset)
    if located.config is not None:
        return RTDetrV2Config.from_dict(json.loads(located.config.read_text(encoding="utf-8")))
    if contents.config is not None:
        return RTDetrV2Config.from_dict(contents.config)
    found = recognise(state)
    if "dsp" in located.title.lower():
        logger.warning(
            "%s: taken to sample whole pixels (discrete), by its name; config= decides otherwise",
            located.title,
        )
        return found.replace(decoder_method="discrete")
    return found


def _fill(
    model: Pretrained,
    title: str,
    state: dict[str, Tensor],
    unknown: list[str],
    allow_anew: bool,
) -> LoadReport:
    """Copy ``state`` into the model, in place."""
    loaded, missing, mismatched = [], [], []
    for name, own in _targets(model).items():
        given = state.pop(name, None)
        if given is None:
            if not name.endswith(COMPUTED):
                missing.append(name)
        elif given.shape != own.shape:
            mismatched.append(Mismatch(name, tuple(given.shape), tuple(own.shape)))
        else:
            if name.endswith("n_points_scale"):
                _check_points(title, given, own)
            own.copy_(given)
            loaded.append(name)
    report = LoadReport(
        source=title,
        loaded=tuple(loaded),
        reinitialised=(*missing, *(mismatch.name for mismatch in mismatched)),
        missing=tuple(missing),
        unexpected=(*unknown, *_unexpected(model, state)),
        mismatched=tuple(mismatched),
    )
    if not allow_anew:
        _refuse_gaps(report)
    return report


def _targets(model: Pretrained) -> dict[str, Tensor]:
    """The model's tensors, once each, under the names they have in a detector."""
    names = model.state_dict()
    if not any(name.startswith("model.") for name in names):
        return {f"model.{name}": tensor for name, tensor in names.items()}
    return {name: tensor for name, tensor in names.items() if not name.startswith(SECOND_NAMES)}


def _unexpected(model: Pretrained, left: Mapping[str, Tensor]) -> list[str]:
    """What the model has no place for, but for counters, and for heads where it ends before them."""
    has_heads = hasattr(model, "class_embed")
    return [
        name
        for name in left
        if not name.endswith(COMPUTED) and (has_heads or not name.startswith(HEADS))
    ]


def _check_points(title: str, given: Tensor, own: Tensor) -> None:
    """Lists of points that differ can have one sum, so shapes do not tell them apart."""
    if not torch.allclose(given.float(), own.float(), atol=1e-2):
        counts = [[round(1 / value) for value in scale.tolist()] for scale in (own, given)]
        raise ModelError(
            f"{title}: decoder_n_points: expected the counts behind {counts[0]}, got {counts[1]} in the file"
        )


def _refuse_gaps(report: LoadReport) -> None:
    """A model must not be part random without a word."""
    anew = (
        "Pass ignore_mismatched_sizes=True to draw these anew, or the config= they were made with."
    )
    if report.mismatched:
        shapes = shortened(report.mismatched, 2)
        raise ModelError(
            f"{report.source}: {len(report.mismatched)} weights have another shape: {shapes}. {anew}"
        )
    if report.missing:
        raise ModelError(
            f"{report.source}: {len(report.missing)} weights are missing: {shortened(report.missing)}. {anew}"
        )
