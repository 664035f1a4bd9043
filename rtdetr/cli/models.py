# SPDX-License-Identifier: Apache-2.0
"""``rtdetr models``: the models that have a name."""

from __future__ import annotations

from typing import Any

from ..config.presets import ALIASES, PRESETS, Preset
from .arguments import AsJson
from .console import say, say_json, table

NAME = "models"


def command(as_json: AsJson = False) -> None:
    """List the models that have a name: average precision on COCO, size, and where the weights are."""
    rows = [_row(preset) for preset in PRESETS.values()]
    if as_json:
        say_json(rows)
        return
    head = ["name", "short", "AP", "AP50", "params", "sampling", "weights"]
    for line in table([head, *(_cells(row) for row in rows)], right=(2, 3, 4)):
        say(line)
    say(
        "\nAP on COCO val2017 at 640x640, as published. Try: rtdetr predict photo.jpg --model rtdetrv2-s"
        "\nA model without AP starts from random weights: rtdetr train DATA --model tiny"
    )


def _cells(row: dict[str, Any]) -> list[str]:
    file = row["url"].rsplit("/", 1)[-1] if row["url"] else "none published"
    average = ["" if row[key] is None else f"{row[key]:.1f}" for key in ("ap", "ap50")]
    params = f"{row['params_millions']}M"
    return [row["name"], row["alias"] or "", *average, params, row["sampling"], row["hub"] or file]


def _row(preset: Preset) -> dict[str, Any]:
    short = {target: alias for alias, target in ALIASES.items()}
    return {
        "name": preset.name,
        "alias": short.get(preset.name),
        "ap": preset.ap,
        "ap50": preset.ap50,
        "params_millions": preset.params,
        "sampling": "discrete" if preset.fields.get("decoder_method") == "discrete" else "bilinear",
        "hub": preset.hub,
        "url": preset.url,
    }
