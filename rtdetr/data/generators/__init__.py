# SPDX-License-Identifier: Apache-2.0
"""Data sets that are made: each kind is a file that draws one scene, and a name in a table."""

from __future__ import annotations

from collections.abc import Callable

from .digits import Digits
from .scene import Scene, SceneMaker
from .write import write_data_set

__all__ = ["GENERATORS", "Scene", "SceneMaker", "write_data_set"]

GENERATORS: dict[str, Callable[[int | None], SceneMaker]] = {"digits": Digits}
"""From the height of the smallest objects in pixels, or None for the maker's own."""
