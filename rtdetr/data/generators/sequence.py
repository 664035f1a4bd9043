# SPDX-License-Identifier: Apache-2.0
"""Scenes that are drawn when they are asked for: a data set without files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict, overload

import numpy as np
import numpy.typing as npt
from PIL import Image

from ...errors import UsageError
from ..sequences import ImagesOnDemand
from .pool import map_in_processes
from .scene import SceneMaker, draw_scene

__all__ = ["SceneSequence", "Target"]


class Target(TypedDict):
    """What is in a scene."""

    boxes: npt.NDArray[np.int64]  # [n, 4] xyxy in pixels
    class_labels: npt.NDArray[np.int64]  # [n]
    size: tuple[int, int]  # (height, width)


class SceneSequence(ImagesOnDemand):
    """Pairs (image, target), as ``data=`` of a trainer takes them; the same scenes that ``write_data_set`` writes.

    Training asks for all targets before it begins: each scene is drawn once for its boxes, and again when its turn
    comes. Whoever trains several times is faster with files.

    Args:
        maker: draws the scenes.
        length: of the sequence, at least 1.
        seed: of every random number.
        is_val: whether the scenes are for validation.
        workers: processes that draw for the targets; 0 draws in this one.

    Raises:
        UsageError: if ``length`` is not positive.
    """

    def __init__(
        self,
        maker: SceneMaker,
        length: int,
        seed: int = 0,
        *,
        is_val: bool = False,
        workers: int = 0,
    ) -> None:
        if length < 1:
            raise UsageError(f"length: expected at least 1, got {length}")
        self._maker = maker
        self._length = length
        self._seed = seed
        self._is_val = is_val
        self._workers = workers
        self._targets: list[Target] = []

    @property
    def names(self) -> tuple[str, ...]:
        """Of the classes."""
        return self._maker.names

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> tuple[Image.Image, Target]: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[tuple[Image.Image, Target]]: ...
    def __getitem__(
        self, index: int | slice
    ) -> tuple[Image.Image, Target] | Sequence[tuple[Image.Image, Target]]:
        """Draws the scene."""
        if isinstance(index, slice):
            return [self[place] for place in range(self._length)[index]]
        place = range(self._length)[index]
        scene = draw_scene(self._maker, self._seed, place, is_val=self._is_val)
        size = (scene.image.height, scene.image.width)
        return scene.image, Target(boxes=scene.boxes, class_labels=scene.classes, size=size)

    def target(self, index: int) -> Target:
        """What is in scene ``index``; the first call draws all scenes."""
        if not self._targets:
            numbers = range(self._length)
            self._targets = list(map_in_processes(self._draw_target, numbers, self._workers))
        return self._targets[index]

    def __getstate__(self) -> dict[str, object]:
        """Without the targets, which a worker does not need."""
        return {**self.__dict__, "_targets": []}

    def _draw_target(self, index: int) -> Target:
        return self[index][1]
