# SPDX-License-Identifier: Apache-2.0
"""Surfaces that look like codes or print and are none: stripes, grids, bricks, keys, cloth, leaves.

A pattern is a function of the random numbers and of a plane (u, v), [h, w] each, whose unit is one repetition; it gives
weights [h, w] in 0..1 between two colors.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = ["PATTERNS", "draw_pattern", "smooth_noise"]

Plane = npt.NDArray[np.float32]
REPETITIONS = (4.0, 50.0)
"""Over the longer side; drawn evenly on a logarithmic scale."""


def draw_pattern(rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """An RGB image of (width, height) ``size``."""
    u, v = _plane(rng, size)
    pattern = PATTERNS[int(rng.integers(len(PATTERNS)))]
    weights = pattern(rng, u, v).astype(np.float32)
    weights *= rng.uniform(0.85, 1) + 0.15 * smooth_noise(rng, size, int(rng.integers(4, 40)))
    weights += rng.normal(0, rng.uniform(0.0, 0.12), weights.shape).astype(np.float32)
    first, second = rng.uniform(0, 255, (2, 3)).astype(np.float32)
    if rng.random() < 0.5:  # as codes are: dark and light
        first, second = first * 0.3, 255 - (255 - second) * 0.3
    pixels = first + weights[..., None] * (second - first)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def smooth_noise(rng: np.random.Generator, size: tuple[int, int], cells: int) -> Plane:
    """0..1, [h, w]: noise of so many cells a side, enlarged."""
    coarse = Image.fromarray(rng.integers(0, 256, (cells, cells), dtype=np.uint8))
    enlarged = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC), np.float32)
    noise: Plane = enlarged / np.float32(255)
    return noise


def _plane(rng: np.random.Generator, size: tuple[int, int]) -> tuple[Plane, Plane]:
    """Turned, at times tilted and uneven."""
    width, height = size
    low, high = np.log(REPETITIONS)
    unit = max(size) / np.exp(rng.uniform(low, high))
    y, x = np.mgrid[:height, :width].astype(np.float32)
    angle = rng.choice((0.0, np.pi / 2, rng.uniform(0, np.pi))) + rng.normal(0, 0.05)
    cos, sin = np.float32(np.cos(angle) / unit), np.float32(np.sin(angle) / unit)
    u, v = cos * x - sin * y, sin * x + cos * y
    if rng.random() < 0.4:
        depth = (1 + rng.uniform(0, 0.8) * (y / height)).astype(np.float32)
        u, v = u * depth, v * depth
    if rng.random() < 0.4:
        u = u + rng.uniform(0.1, 1) * smooth_noise(rng, size, int(rng.integers(2, 6)))
    return u, v


def _step(values: Plane, share: float) -> Plane:
    """1 in that share of each repetition, with soft edges."""
    edges: Plane = ((values % 1 - share) * -12 + 0.5).clip(0, 1)
    return edges


def _hash(u: Plane, v: Plane, rng: np.random.Generator) -> Plane:
    """A random number in 0..1 for each cell of the plane."""
    table = rng.random((64, 64)).astype(np.float32)
    cells: Plane = table[np.floor(v).astype(np.int64) % 64, np.floor(u).astype(np.int64) % 64]
    return cells


def _stripes(rng: np.random.Generator, u: Plane, v: Plane) -> Plane:
    return _step(u, rng.uniform(0.2, 0.8))


def _uneven_stripes(rng: np.random.Generator, u: Plane, v: Plane) -> Plane:
    """As wide as those of a barcode, but over all of the image: a fence, a shelf, blinds."""
    return _hash(u, np.zeros_like(v), rng)


def _grid(rng: np.random.Generator, u: Plane, v: Plane) -> Plane:
    share = rng.uniform(0.05, 0.4)
    lines: Plane = np.maximum(_step(u, share), _step(v, share))
    return lines


def _brick(rng: np.random.Generator, u: Plane, v: Plane) -> Plane:
    row = np.floor(v)
    across = u / np.float32(rng.uniform(2, 3)) + np.float32(0.5) * (row % 2)
    mortar = np.maximum(_step(across, 0.05), _step(v, 0.12))
    shade: Plane = np.maximum(mortar, np.float32(0.4) * _hash(across, v, rng))
    return shade


def _tiles(rng: np.random.Generator, u: Plane, v: Plane) -> Plane:
    shade: Plane = np.maximum(_grid(rng, u, v), np.float32(0.6) * _hash(u, v, rng))
    return shade


def _mosaic(rng: np.random.Generator, u: Plane, v: Plane) -> Plane:
    """Black and white cells, without what makes them a code."""
    cells: Plane = (_hash(u, v, rng) < rng.uniform(0.3, 0.7)).astype(np.float32)
    return cells


def _checks(rng: np.random.Generator, u: Plane, v: Plane) -> Plane:
    cells: Plane = (np.floor(u) + np.floor(v)) % 2
    return cells


def _fence(rng: np.random.Generator, u: Plane, v: Plane) -> Plane:
    share = rng.uniform(0.08, 0.3)
    wires: Plane = np.maximum(_step(u + v, share), _step(u - v, share))
    return wires


def _keyboard(rng: np.random.Generator, u: Plane, v: Plane) -> Plane:
    across = u + np.float32(0.37) * np.floor(v)
    x, y = np.abs(across % 1 - 0.5), np.abs(v % 1 - 0.5)
    key = ((0.42 - np.maximum(x, y)) * 12).clip(0, 1)
    mark = ((0.1 - np.maximum(x * rng.uniform(1, 3), y)) * 12).clip(0, 1) * _hash(across, v, rng)
    keys: Plane = np.abs(key - mark)
    return keys


def _cloth(rng: np.random.Generator, u: Plane, v: Plane) -> Plane:
    over = (np.floor(u) + np.floor(v * 2)) % 2
    threads: Plane = np.where(over > 0, np.abs(np.sin(u * 9)), np.abs(np.sin(v * 9)))
    return threads


def _leaves(rng: np.random.Generator, u: Plane, v: Plane) -> Plane:
    size = (u.shape[1], u.shape[0])
    total = np.zeros(u.shape, np.float32)
    for octave in range(4):
        cells = int(rng.integers(4, 9)) * 2**octave
        total += smooth_noise(rng, size, cells) * np.float32(0.6**octave)
    low, high = float(total.min()), float(total.max())
    shade: Plane = ((total - low) / (high - low) * rng.uniform(1, 2.5)) % 1
    return shade


def _dots(rng: np.random.Generator, u: Plane, v: Plane) -> Plane:
    distance = (u % 1 - 0.5) ** 2 + (v % 1 - 0.5) ** 2
    dots: Plane = ((rng.uniform(0.02, 0.16) - distance) * 40).clip(0, 1)
    return dots


PATTERNS: tuple[Callable[[np.random.Generator, Plane, Plane], Plane], ...] = (
    _stripes,
    _uneven_stripes,
    _grid,
    _brick,
    _tiles,
    _mosaic,
    _checks,
    _fence,
    _keyboard,
    _cloth,
    _leaves,
    _dots,
)
