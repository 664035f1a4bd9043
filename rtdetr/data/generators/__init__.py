# SPDX-License-Identifier: Apache-2.0
"""Data sets that are made: each kind is a file that draws one scene, and a name in a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from ...errors import UsageError
from .codes import Codes
from .digits import Digits
from .scene import Scene, SceneMaker
from .sequence import SceneSequence
from .write import write_data_set

__all__ = [
    "GENERATORS",
    "Codes",
    "Digits",
    "Scene",
    "SceneMaker",
    "SceneSequence",
    "make_generator",
    "write_data_set",
]

GENERATORS: dict[str, Callable[..., SceneMaker]] = {"codes": Codes, "digits": Digits}
OPTIONS = {"codes": ("backgrounds", "distractors", "fonts"), "digits": ("smallest",)}
"""What a kind takes: folders that it draws from, or a size."""


def make_generator(kind: str, options: Mapping[str, Path | int]) -> SceneMaker:
    """The generator of that name.

    Raises:
        UsageError: if it takes no such option, or the option has a wrong value.
        MissingExtraError: if a package that it needs is not installed.
    """
    for name in options:
        if name not in OPTIONS[kind]:
            raise UsageError(f"{name}: expected with another kind of data set, got with {kind}")
    return GENERATORS[kind](**options)
