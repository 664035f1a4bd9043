# SPDX-License-Identifier: Apache-2.0
"""How something flat is seen in an image: turned, tilted, bent, at a distance.

Points are (x, y) in pixels, continuous: the first pixel goes from 0 to 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = ["View", "Warp"]

Points = npt.NDArray[np.float64]
Box = tuple[int, int, int, int]
STRIP = 4
"""Columns of a bent sheet that are moved together, along a line."""
EDGE_POINTS = 17
"""Of each side of a sheet, between which a bent one is taken for straight."""


@dataclass(frozen=True)
class View:
    """From where a sheet is seen.

    Args:
        center: (x, y) of the image, where the middle of the sheet is.
        scale: pixels of the image for one of the sheet, in its middle.
        roll: radians, clockwise.
        tilt: radians, of the sheet out of the plane of the image.
        axis: radians, the direction in the plane that the sheet is tilted about.
        distance: of the camera, in longer sides of the sheet; at least 1.
        wave: height and length in pixels of the sheet, and phase in radians, of the wave that it is bent by; a height
            of 0 is flat.
    """

    center: tuple[float, float]
    scale: float = 1.0
    roll: float = 0.0
    tilt: float = 0.0
    axis: float = 0.0
    distance: float = 4.0
    wave: tuple[float, float, float] = (0.0, 1.0, 0.0)


class Warp:
    """Between the pixels of a sheet and those of an image.

    Args:
        size: (width, height) of the sheet.
        view: from where it is seen.
    """

    def __init__(self, size: tuple[int, int], view: View) -> None:
        width, height = size
        to_middle = np.array([[1, 0, -width / 2], [0, 1, -height / 2], [0, 0, 1]])
        along, across = _turn(view.axis), _turn(-view.axis)
        depth = np.sin(view.tilt) / (view.distance * max(size))
        tilted = np.array([[1, 0, 0], [0, np.cos(view.tilt), 0], [0, depth, 1]])
        place = np.array(
            [[view.scale, 0, view.center[0]], [0, view.scale, view.center[1]], [0, 0, 1]]
        )
        self._matrix = place @ _turn(view.roll) @ along @ tilted @ across @ to_middle
        self._inverse = np.linalg.inv(self._matrix)
        self._size = size
        self._wave = view.wave

    def forward(self, points: Points) -> Points:
        """Points [p, 2] of the sheet in the image."""
        return _project(self._matrix, points + self._rise(points))

    def backward(self, points: Points) -> Points:
        """Points [p, 2] of the image on the sheet."""
        flat = _project(self._inverse, points)
        return flat - self._rise(flat)

    def bounds(self, size: tuple[int, int]) -> Box:
        """The part of an image of (width, height) ``size`` that the sheet is in; empty where it is beyond."""
        corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * self._size
        edge = np.concatenate(
            [
                np.linspace(first, second, EDGE_POINTS)
                for first, second in zip(corners, np.roll(corners, -1, axis=0), strict=True)
            ]
        )
        points = self.forward(edge)
        low = np.floor(points.min(0)).clip(0, size).astype(int).tolist()
        high = np.ceil(points.max(0)).clip(0, size).astype(int).tolist()
        return (low[0], low[1], high[0], high[1])

    def paint(self, sheet: Image.Image, box: Box, resample: Image.Resampling) -> Image.Image:
        """What is seen of the sheet in a part of the image; 0 where it is not."""
        left, top, right, bottom = box
        shifted = self._inverse @ np.array([[1, 0, left], [0, 1, top], [0, 0, 1]])
        if self._wave[0] != 0:
            sheet, above = self._bend(sheet, resample)
            shifted = np.array([[1, 0, 0], [0, 1, above], [0, 0, 1]]) @ shifted
        numbers = (shifted / shifted[2, 2]).ravel()[:8].tolist()
        size = (right - left, bottom - top)
        return sheet.transform(size, Image.Transform.PERSPECTIVE, numbers, resample)

    def _rise(self, points: Points) -> Points:
        """Along the height of the sheet, by the place in its width, which bending leaves alone."""
        height, length, phase = self._wave
        rise = height * np.sin(2 * np.pi * points[:, 0] / length + phase)
        return np.stack([np.zeros_like(rise), rise], axis=1)

    def _bend(self, sheet: Image.Image, resample: Image.Resampling) -> tuple[Image.Image, int]:
        """The sheet with its columns moved, and how many rows were added above it for that."""
        width, height = sheet.size
        room = int(np.ceil(self._wave[0]))
        edges = [*range(0, width, STRIP), width]
        rises = self._rise(np.array([[x, 0] for x in edges], np.float64))[:, 1].tolist()
        strips = [
            (
                (left, 0, right, height + 2 * room),
                (
                    *(left, -room - rise, left, height + room - rise),
                    *(right, height + room - next_rise, right, -room - next_rise),
                ),
            )
            for (left, rise), (right, next_rise) in pairwise(zip(edges, rises, strict=True))
        ]
        size = (width, height + 2 * room)
        return sheet.transform(size, Image.Transform.MESH, strips, resample), room


def _turn(angle: float) -> Points:
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])


def _project(matrix: Points, points: Points) -> Points:
    mapped = points @ matrix[:, :2].T + matrix[:, 2]
    flat: Points = mapped[:, :2] / mapped[:, 2:]
    return flat
