# SPDX-License-Identifier: Apache-2.0
"""Weights of a trained detector for other classes or another number of queries: what both have in common is kept."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from ..config import RTDetrV2Config
from .report import shortened

__all__ = ["Adapted", "adapt"]

Rows = Mapping[int, int]
"""New row of a table -> old row."""

DECODER_HEAD = re.compile(r"model\.decoder\.class_embed\.\d+\.(weight|bias)")
ENCODER_HEAD = re.compile(r"model\.enc_score_head\.(weight|bias)")
LABEL_EMBEDDING = "model.denoising_class_embed.weight"
QUERIES = "model.weight_embedding.weight"


@dataclass(frozen=True)
class Adapted:
    """Weights by name, and what was done to them, in sentences."""

    state: dict[str, Tensor]
    sentences: tuple[str, ...]


def adapt(
    state: Mapping[str, Tensor],
    fresh: Mapping[str, Tensor],
    old: RTDetrV2Config,
    new: RTDetrV2Config,
) -> Adapted:
    """The weights of a model of configuration ``old`` as one of ``new`` takes them.

    Args:
        state: under the names of our modules.
        fresh: of a new model; rows without a counterpart are taken from it, and a label embedding that is missing.
        old: of ``state``.
        new: of ``fresh``.
    """
    rows = _class_rows(old, new)
    queries = {row: row for row in range(min(old.num_queries, new.num_queries))}
    adapted = dict(state)
    sentences = [_describe_classes(rows, old, new)]
    for name, own in fresh.items():
        tensor = state.get(name)
        if name == LABEL_EMBEDDING:
            if tensor is None:
                adapted[name] = own
                sentences.append("label embedding: not in the file, reinitialized")
            else:
                # The last row is of no class.
                padding = {new.num_labels: old.num_labels}
                adapted[name] = _move(tensor, own, {**rows, **padding}, old.num_labels + 1)
        elif tensor is not None and _is_class_head(name, old):
            adapted[name] = _move(tensor, own, rows, old.num_labels)
        elif tensor is not None and name == QUERIES:
            adapted[name] = _move(tensor, own, queries, old.num_queries)
    if old.num_queries != new.num_queries:
        sentences.append(f"queries: {old.num_queries} -> {new.num_queries}")
    return Adapted(adapted, tuple(sentences))


def _is_class_head(name: str, config: RTDetrV2Config) -> bool:
    is_agnostic = config.query_select_method == "agnostic"
    in_encoder = not is_agnostic and ENCODER_HEAD.fullmatch(name) is not None
    return in_encoder or DECODER_HEAD.fullmatch(name) is not None


def _move(tensor: Tensor, fresh: Tensor, rows: Rows, count: int) -> Tensor:
    """``fresh`` with rows of ``tensor``; a tensor that has not ``count`` rows, or other ones, is left for an error."""
    if len(tensor) != count or tensor.shape[1:] != fresh.shape[1:]:
        return tensor
    moved = fresh.to(tensor.dtype, copy=True)
    moved[list(rows)] = tensor[list(rows.values())]
    return moved


def _class_rows(old: RTDetrV2Config, new: RTDetrV2Config) -> dict[int, int]:
    """New class -> the old class of that name; by their order where the old ones have no names and are as many."""
    if _is_unnamed(old) and old.num_labels == new.num_labels:
        return {row: row for row in range(new.num_labels)}
    names = {name: row for row, name in old.id2label.items() if row < old.num_labels}
    alike = {_normalized(name): row for name, row in reversed(names.items())}
    rows = {
        row: names.get(name, alike.get(_normalized(name)))
        for row, name in new.id2label.items()
        if row < new.num_labels
    }
    return {row: match for row, match in rows.items() if match is not None}


def _normalized(name: str) -> str:
    """``traffic_light`` and ``Traffic light`` are one class."""
    return " ".join(re.split(r"[\s_-]+", name.casefold()))


def _is_unnamed(config: RTDetrV2Config) -> bool:
    return all(name == f"LABEL_{row}" for row, name in config.id2label.items())


def _describe_classes(rows: Rows, old: RTDetrV2Config, new: RTDetrV2Config) -> str:
    count = new.num_labels
    if not rows:
        return f"class heads: reinitialized, {old.num_labels} -> {count} classes"
    names = [new.id2label.get(row, f"class {row}") for row in range(count)]
    if len(rows) < count:
        kept = shortened([names[row] for row in rows], 6)
        drawn = [name for row, name in enumerate(names) if row not in rows]
        verb = "is" if len(drawn) == 1 else "are"
        return (
            f"class heads: {len(rows)} of {count} classes keep their weights ({kept}), {len(drawn)} {verb} new "
            f"({shortened(drawn, 6)})"
        )
    why = ", by their order: the file does not name them" if _is_unnamed(old) else ""
    return f"class heads: all {count} classes keep their weights{why}"
