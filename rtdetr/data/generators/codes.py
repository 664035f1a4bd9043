# SPDX-License-Identifier: Apache-2.0
"""QR codes, barcodes and lines of print, as they lie before a camera."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from ...errors import MissingExtraError
from .fonts import find_families
from .ground import crop_photo, draw_computed
from .optics import photograph
from .patterns import draw_pattern
from .photos import find_images, hold_out, load_cut_out, load_photo, package_photos
from .scene import Scene
from .sheets import TEXT, Sheet, color_sheet, draw_sheet
from .warp import View, Warp

__all__ = ["Codes"]

SIDE = 320
"""An image has about as many pixels as a square of that side."""
EMPTY_SHARE = 0.1
CLOSE_UP_SHARE = 0.3
SHAPES = (1.0, 4 / 3, 4 / 3, 4 / 3, 3 / 4, 3 / 4, 16 / 9, 9 / 16, 2.2, 3.2)
"""Width by height; since a network sees squares, wide images teach it codes that are squeezed."""
MORE_SHEETS = (0, 0, 0, 1, 1, 2, 3, 4)
TRIALS = 3
FIRST_TRIALS = 40
"""For the first label, since an image that is not to be empty has one."""
LEAST_VISIBLE = 0.4
"""Of an object that runs out of the frame: where less of one would be left, its label is put somewhere else."""
MOST_HIDDEN = 0.03
"""Of an object, by any label put there later."""
MOST_ON_OTHERS = 0.3
"""Of a label: nobody sticks one into the middle of a code."""
POINTS = 400
"""Of an object, whose share within the frame is taken for its own."""
LEAST_PIXELS = 12
"""Of an object."""
PHOTO_SHARE, PATTERN_SHARE, PLAIN_SHARE = 0.55, 0.2, 0.15
"""Of the grounds; the others are gradients, checks and clouds."""
DISTRACTORS = (0, 0, 1, 1, 2, 3)
TEXT_ROLL, ANY_ROLL = math.radians(15), 0.02
LEVEL, QUARTERS = 0.55, (0, 0, 0, 0, 0.5, 1, 1.5)
"""Share of codes that are held almost straight, as people do, or turned by a quarter or two."""
TILTED, USUAL_TILT, MOST_TILT = 0.6, math.radians(20), math.radians(55)
LEAST_SPREAD = 0.35
"""Of the frame, that the middle of a large label lies in."""
CURVED = 0.1


@dataclass
class Frame:
    """An image under way: which object each pixel shows.

    Args:
        image: RGB, painted on.
        owner: [h, w], 1 + the number of an object, or 0.
        classes: of the objects.
        shown: pixels of each when it was put there.
    """

    image: Image.Image
    owner: npt.NDArray[np.int64]
    classes: list[int] = field(default_factory=list)
    shown: list[int] = field(default_factory=list)

    def place(self, rng: np.random.Generator, sheet: Sheet, warp: Warp) -> bool:
        """Put a sheet on top, unless it would lie on an object or too little of it could be seen."""
        box = warp.bounds(self.image.size)
        left, top, right, bottom = box
        if right <= left or bottom <= top:
            return False
        # 0 is beyond the sheet, 1 its paper.
        index = np.asarray(
            warp.paint(Image.fromarray(sheet.index + 1), box, Image.Resampling.NEAREST)
        )
        shown = np.bincount(index.ravel(), minlength=len(sheet.classes) + 2)[2:]
        part = self.owner[top:bottom, left:right]
        on_others = np.bincount(part[index > 0], minlength=len(self.classes) + 1)[1:]
        most = np.minimum(np.asarray(self.shown) * MOST_HIDDEN, (index > 0).sum() * MOST_ON_OTHERS)
        is_hiding = any(on_others > most)
        if is_hiding or not _can_be_told(sheet, warp, self.image.size, shown):
            return False
        colored = color_sheet(rng, sheet, self.image.crop(box))
        layer = warp.paint(colored, box, Image.Resampling.BICUBIC)
        part[np.asarray(layer.getchannel("A")) >= 128] = 0
        is_object = index > 1
        part[is_object] = index[is_object].astype(np.int64) - 1 + len(self.classes)
        self.classes += sheet.classes
        self.shown += shown.tolist()
        self.image.paste(layer, (left, top), layer)
        return True

    def boxes(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The hull [n, 4] of what is visible of each object, and its class [n]."""
        boxes, classes = [], []
        for number, label in enumerate(self.classes, 1):
            mask = self.owner == number
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            if len(rows):
                boxes.append([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
                classes.append(label)
        return np.asarray(boxes, np.int64).reshape(-1, 4), np.asarray(classes, np.int64)


def _can_be_told(
    sheet: Sheet, warp: Warp, size: tuple[int, int], shown: npt.NDArray[np.int64]
) -> bool:
    """Whether enough of each object, of which ``shown`` pixels are seen, lies within the frame, or nothing of it."""
    for number, pixels in enumerate(shown.tolist(), 1):
        rows, columns = np.nonzero(sheet.index == number)
        step = max(1, len(rows) // POINTS)
        points = np.stack([columns, rows], axis=1)[::step].astype(np.float64) + 0.5
        x, y = warp.forward(points).T
        inside = (x >= 0) & (x < size[0]) & (y >= 0) & (y < size[1])
        if pixels and (pixels < LEAST_PIXELS or inside.mean() < LEAST_VISIBLE):
            return False
    return bool(shown.any())


class Codes:
    """Three classes: a line of print, a QR code, and a barcode with the digits at its bars.

    Args:
        backgrounds: a folder of photos without print or codes; None takes those that installed packages bring.
        distractors: a folder of images with an alpha channel, which are put behind the objects; None puts none there.
        fonts: a folder of fonts; None takes those of the system and of matplotlib.

    Raises:
        MissingExtraError: if segno or python-barcode is not installed.
        UsageError: if a folder has none of what it is for, or the machine has no font.
    """

    names: tuple[str, ...] = ("text", "qr code", "barcode")

    def __init__(
        self,
        backgrounds: Path | None = None,
        distractors: Path | None = None,
        fonts: Path | None = None,
    ) -> None:
        _require_encoders()
        photos = (
            package_photos() if backgrounds is None else find_images("backgrounds", backgrounds)
        )
        self._photos = hold_out(photos)
        self._distractors = hold_out(find_images("distractors", distractors) if distractors else ())
        self._families = find_families(None if fonts is None else [fonts])

    def draw(self, rng: np.random.Generator, *, is_val: bool) -> Scene:
        """See :class:`~rtdetr.data.generators.scene.SceneMaker`."""
        shape = SHAPES[int(rng.integers(len(SHAPES)))]
        size = (round(SIDE * math.sqrt(shape)), round(SIDE / math.sqrt(shape)))
        image = self._draw_ground(rng, size, is_val)
        frame = Frame(image, np.zeros((size[1], size[0]), np.int64))
        self._add_distractors(rng, image, is_val)
        if rng.random() >= EMPTY_SHARE:
            self._add_sheet(rng, frame, is_val, FIRST_TRIALS, rng.random() < CLOSE_UP_SHARE)
            for _ in range(MORE_SHEETS[int(rng.integers(len(MORE_SHEETS)))]):
                self._add_sheet(rng, frame, is_val, TRIALS)
        boxes, classes = frame.boxes()
        return Scene(photograph(rng, frame.image), boxes, classes)

    def _draw_ground(
        self, rng: np.random.Generator, size: tuple[int, int], is_val: bool
    ) -> Image.Image:
        kind = rng.random()
        photos = self._photos[is_val]
        if photos and kind < PHOTO_SHARE:
            return crop_photo(rng, size, load_photo(photos[int(rng.integers(len(photos)))]))
        if kind < PHOTO_SHARE + PATTERN_SHARE:
            return draw_pattern(rng, size)
        if kind < PHOTO_SHARE + PATTERN_SHARE + PLAIN_SHARE:
            level = int(rng.choice((rng.uniform(0, 255), rng.uniform(170, 255))))
            return Image.new("RGB", size, (level, level, level))
        return draw_computed(rng, size)

    def _add_distractors(self, rng: np.random.Generator, image: Image.Image, is_val: bool) -> None:
        paths = self._distractors[is_val]
        for _ in range(DISTRACTORS[int(rng.integers(len(DISTRACTORS)))] if paths else 0):
            cut_out = load_cut_out(paths[int(rng.integers(len(paths)))])
            longest = int(rng.uniform(0.1, 0.7) * SIDE)
            factor = longest / max(cut_out.size)
            small = cut_out.resize([max(1, int(extent * factor)) for extent in cut_out.size])
            turned = small.rotate(float(rng.normal(0, 25)), Image.Resampling.BILINEAR, expand=True)
            left, top = (
                int(rng.uniform(-own / 2, whole - own / 2))
                for own, whole in zip(turned.size, image.size, strict=True)
            )
            image.paste(turned, (left, top), turned)

    def _add_sheet(
        self,
        rng: np.random.Generator,
        frame: Frame,
        is_val: bool,
        trials: int,
        is_close_up: bool = False,
    ) -> None:
        """One label, which is not made anew where it does not fit, or large ones would be rare."""
        families = self._families[is_val]
        fonts = families[int(rng.integers(len(families)))]
        sheet = draw_sheet(rng, SIDE, fonts, is_close_up=is_close_up)
        for _ in range(trials):
            if frame.place(rng, sheet, Warp(sheet.size, _draw_view(rng, sheet, frame.image.size))):
                return


def _require_encoders() -> None:
    """Raises MissingExtraError if a package that encodes is not installed."""
    try:
        import barcode  # noqa: F401
        import segno  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            "Making codes", "segno and python-barcode", '"rtdetr-ops[demo]"'
        ) from error


def _draw_center(
    rng: np.random.Generator, size: tuple[int, int], longest: float
) -> tuple[float, float]:
    """Anywhere; what is large is nearer the middle, so that enough of it is seen."""
    spread = max(LEAST_SPREAD, 1 - longest / SIDE) * rng.choice((1, 1, 0.4))
    x, y = (extent * (0.5 + spread * rng.uniform(-0.5, 0.5)) for extent in size)
    return x, y


def _draw_view(rng: np.random.Generator, sheet: Sheet, size: tuple[int, int]) -> View:
    """From where a sheet is seen in an image of ``size``."""
    is_print = all(label == TEXT for label in sheet.classes)
    if is_print:
        roll = rng.uniform(-TEXT_ROLL, TEXT_ROLL)
    else:
        roll = rng.normal(0, TEXT_ROLL / 2) + rng.choice(QUARTERS) * math.pi
    if rng.random() < ANY_ROLL or not (is_print or rng.random() < LEVEL):
        roll = rng.uniform(0, 2 * math.pi)
    tilt = min(abs(rng.normal(0, USUAL_TILT)), MOST_TILT) if rng.random() < TILTED else 0.0
    wave = (0.0, 1.0, 0.0)
    if rng.random() < CURVED:
        width = sheet.size[0]
        rise = rng.uniform(0.02, 0.08) * width
        wave = (rise, width * rng.uniform(0.7, 3), rng.uniform(0, 2 * math.pi))
    return View(
        _draw_center(rng, size, sheet.longest),
        sheet.scale,
        roll,
        tilt,
        rng.uniform(0, 2 * math.pi),
        rng.uniform(1.5, 6),
        wave,
    )
