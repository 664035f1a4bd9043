# SPDX-License-Identifier: Apache-2.0
"""The model that a run starts from: any weights, with heads for the classes of the data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ..config.presets import Preset
from ..errors import ModelError, UsageError
from ..hub import HubOptions
from ..inference.loading import read_config, read_processor
from ..model import RTDetrV2ForObjectDetection
from ..processing.image_processor import RTDetrImageProcessor
from ..weights import LoadReport
from ..weights.load import load_adapted
from ..weights.locate import locate

__all__ = ["Start", "load_for_training"]


class Start(NamedTuple):
    """A model in training mode on the CPU, float32, how its images are prepared, and what became of each weight."""

    model: RTDetrV2ForObjectDetection
    processor: RTDetrImageProcessor
    report: LoadReport


def load_for_training(
    source: str | Path,
    names: Sequence[str],
    *,
    category_ids: Sequence[int] | None = None,
    queries: int | None = None,
    pretrained: bool = True,
    changes: Mapping[str, Any] | None = None,
    seed: int = 0,
    options: HubOptions | None = None,
) -> Start:
    """A model to train on a data set of the classes ``names``.

    Classes that the source has too, by name, keep their weights in all heads and in the label embedding of denoising.

    Args:
        source: a preset, folder, repository on the hub or checkpoint, ours or the original's, whose averaged weights
            are taken. A preset that nobody has published has none, and all are drawn.
        names: K class names, each once.
        category_ids: K ids of the classes in the user's files; the model keeps them for its predictions.
        queries: the most detections of an image; None for as many as the source has.
        pretrained: False takes the configuration of ``source`` alone, and draws all weights.
        changes: other fields of the configuration to take instead.
        seed: what is drawn is a function of it.
        options: of downloads.

    Raises:
        ModelError: there is no such model, it is of another family, or weights do not fit.
        UsageError: ``names`` are none or not distinct, or another argument has a wrong value.
    """
    _check_names(names)
    options = options or HubOptions()
    place = locate(source, options)
    fields = {**(changes or {}), "id2label": dict(enumerate(names)), "category_ids": category_ids}
    if queries is not None:
        fields["num_queries"] = queries
    is_unpublished = isinstance(place, Preset) and not place.is_published
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            if pretrained and not is_unpublished:
                model, report = load_adapted(
                    RTDetrV2ForObjectDetection, source, changes=fields, options=options
                )
            else:
                model = RTDetrV2ForObjectDetection(read_config(place).replace(**fields))
                report = _drawn(model, str(source), seed)
        except ModelError:
            raise
        except ValueError as error:
            raise UsageError(str(error)) from error
    model.load_report = report
    return Start(model.train(), read_processor(place), report)


def _check_names(names: Sequence[str]) -> None:
    is_list = isinstance(names, Sequence) and not isinstance(names, str)
    if not (is_list and names and len(set(names)) == len(names)):
        raise UsageError(f"names: expected a list of class names, each once, got {names!r:.80}")


def _drawn(model: RTDetrV2ForObjectDetection, source: str, seed: int) -> LoadReport:
    sentence = f"all weights are drawn with seed {seed}, {model.config.num_labels} classes"
    return LoadReport(source=source, reinitialized=tuple(model.state_dict()), adapted=(sentence,))
