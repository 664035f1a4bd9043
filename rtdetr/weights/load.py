# SPDX-License-Identifier: Apache-2.0
"""From weights to a model: find, read, name, fill."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ..config import RTDetrV2Config
from ..config.presets import Preset
from ..errors import ModelError
from ..hub import HubOptions
from .adapt import adapt
from .locate import WeightFiles, locate, weight_files
from .names import has_heads, to_module_names, unwrap
from .read import CheckpointContents, read_files
from .recognize import check_family, recognize
from .report import LoadReport, Mismatch, shortened

__all__ = ["load_adapted", "load_pretrained"]

M = TypeVar("M", bound=nn.Module)

logger = logging.getLogger(__name__)

HEADS = ("model.decoder.class_embed.", "model.decoder.bbox_embed.")
COMPUTED = ("num_batches_tracked", "n_points_scale")
"""What the model has by itself; older files lack it."""
STATISTICS = ("running_mean", "running_var", "n_points_scale")


def load_pretrained(
    build: Callable[[RTDetrV2Config], M],
    source: str | Path,
    *,
    config: RTDetrV2Config | str | Path | None,
    changes: Mapping[str, Any],
    ignore_mismatched_sizes: bool,
    dtype: torch.dtype | None,
    options: HubOptions,
) -> tuple[M, LoadReport]:
    """A module with the weights of ``source``, in evaluation mode, and what became of each weight.

    Args:
        build: makes the module from its configuration; its parameters have the names of our models.
        source: see :func:`rtdetr.weights.locate.locate`.
        config: the configuration, or a preset, directory or hub name that has it, instead of the one that comes with
            the weights.
        changes: fields of the configuration to take instead.
        ignore_mismatched_sizes: leave weights of another shape freshly drawn.
        dtype: of the module; None for that of the weights.
        options: of downloads.

    Raises:
        ModelError: see :meth:`rtdetr.RTDetrV2ForObjectDetection.from_pretrained`.
    """
    weights = _read(source, options)
    chosen = _choose_config(_read_config(config, options), changes, weights)
    _warn_of_gaps(weights.title, chosen)
    module = build(chosen)
    if dtype is None:
        dtype = _dtype_of(weights.state)
    report = _fill(module, weights, ignore_mismatched_sizes)
    if not report.is_complete:
        logger.warning("%s", report)
    return module.to(dtype=dtype).eval(), report


def load_adapted(
    build: Callable[[RTDetrV2Config], M],
    source: str | Path,
    *,
    changes: Mapping[str, Any],
    options: HubOptions,
) -> tuple[M, LoadReport]:
    """A module with the weights of ``source`` for other classes and queries, float32, and what became of each weight.

    What the classes of both have in common is kept; see :mod:`rtdetr.weights.adapt`. The rest is as ``build`` draws it,
    and so is a label embedding that the file lacks.

    Args:
        build: see :func:`load_pretrained`.
        source: likewise.
        changes: fields of the configuration to take instead of those of ``source``.
        options: of downloads.

    Raises:
        ModelError: as ``load_pretrained``; weights of another shape that have nothing to do with classes or queries.
    """
    weights = _read(source, options)
    old = _choose_config(None, {}, weights)
    new = old.replace(**changes)
    module = build(new).float()
    adapted = adapt(weights.state, module.state_dict(), old, new)
    state = {name: tensor.float() for name, tensor in adapted.state.items()}
    report = _fill(module, replace(weights, state=state), ignore_mismatched_sizes=False)
    return module, replace(report, adapted=adapted.sentences)


@dataclass(frozen=True)
class _Weights:
    """What was read of a model, under the names of our modules."""

    files: WeightFiles
    contents: CheckpointContents
    state: dict[str, Tensor]
    unknown: list[str]

    @property
    def title(self) -> str:
        return self.files.title


def _read(source: str | Path, options: HubOptions) -> _Weights:
    files = weight_files(locate(source, options), str(source), options)
    contents = read_files(files.files)
    state, unknown = to_module_names(unwrap(contents.state))
    check_family(files.title, state, unknown, contents.holds)
    return _Weights(files, contents, state, unknown)


def _read_config(
    config: RTDetrV2Config | str | Path | None, options: HubOptions
) -> RTDetrV2Config | None:
    if config is None or isinstance(config, RTDetrV2Config):
        return config
    place = locate(config, options.without_revision())
    if isinstance(place, Preset):
        return RTDetrV2Config.from_preset(place)
    return RTDetrV2Config.from_files(place)


def _choose_config(
    config: RTDetrV2Config | None,
    changes: Mapping[str, Any],
    weights: _Weights,
) -> RTDetrV2Config:
    """What the caller passes, else what came with the weights, else what they look like."""
    files, contents = weights.files, weights.contents
    if config is not None:
        return config.replace(**changes) if changes else config
    if files.preset is not None:
        return RTDetrV2Config.from_preset(files.preset).replace(**changes)
    if files.config is not None:
        return RTDetrV2Config.from_json_file(files.config, **changes)
    with _naming(files.title):
        if contents.config is not None:
            return RTDetrV2Config.from_dict(contents.config, **changes)
        recognized = recognize(weights.state)
        if "dsp" in files.title.lower():
            logger.warning(
                "%s: taken to sample whole pixels (discrete), by its name; config= decides otherwise",
                files.title,
            )
            recognized = recognized.replace(decoder_method="discrete")
        return recognized.replace(**changes)


@contextmanager
def _naming(title: str) -> Iterator[None]:
    """Let an error of a configuration say which file it came from."""
    try:
        yield
    except ValueError as error:
        raise ModelError(f"{title}: {error}") from error


def _warn_of_gaps(title: str, config: RTDetrV2Config) -> None:
    ids, count = sorted(config.id2label), config.num_labels
    if ids != list(range(count)):
        logger.warning(
            "%s: id2label names %d classes by the ids %d..%d, and the model counts them 0..%d: ids without a name are "
            'called "class N". id2label= decides otherwise',
            *(title, count, ids[0], ids[-1], count - 1),
        )


def _fill(model: nn.Module, weights: _Weights, ignore_mismatched_sizes: bool) -> LoadReport:
    """Copy the weights into the model, in place."""
    title, state = weights.title, dict(weights.state)
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
        unexpected=(*weights.unknown, *_unexpected(model, state)),
        mismatched=tuple(mismatched),
    )
    if not ignore_mismatched_sizes:
        _refuse_gaps(report)
    return report


def _dtype_of(state: Mapping[str, Tensor]) -> torch.dtype:
    """Of the weights; statistics may be wider."""
    weights = (tensor for name, tensor in state.items() if not name.endswith(STATISTICS))
    return next((tensor.dtype for tensor in weights if tensor.is_floating_point()), torch.float32)


def _targets(model: nn.Module) -> dict[str, Tensor]:
    """The model's tensors, under the names they have in a detector."""
    state = model.state_dict()
    if not has_heads(model):
        return {f"model.{name}": tensor for name, tensor in state.items()}
    return state


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
        counts = [
            ", ".join(f"{1 / value:.0f}" if value else "inf" for value in scale.flatten().tolist())
            for scale in (own, tensor)
        ]
        raise ModelError(
            f"{title}: decoder_n_points: expected the counts behind [{counts[0]}], got [{counts[1]}] in the file"
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
