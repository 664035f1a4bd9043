# SPDX-License-Identifier: Apache-2.0
"""The objects detected in one image."""

from __future__ import annotations

import json
import operator
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, SupportsIndex, cast, overload

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..checking import as_int, as_number, explains_frozen
from ..coco import COCO_IDS, is_coco
from ..errors import MissingExtraError, UsageError, did_you_mean
from ..files import atomic_write, home_path
from ..images.names import unicode_name
from .drawing import Style, draw

Box = tuple[float, float, float, float]

ClassWord = str | SupportsIndex
"""The name of a class, or its index: an int, or an integer of NumPy or torch."""


CategoryIds = Mapping[int, int] | Sequence[int] | Literal["index"]
"""Category ids by class index, or the index itself."""


@dataclass(frozen=True)
class Detection:
    """One object: its class name, class index, score 0..1, and box (left, top, right, bottom) in pixels."""

    name: str
    label: int
    score: float
    box: Box

    def __repr__(self) -> str:
        corners = ", ".join(f"{value:.0f}" for value in self.box)
        return f"Detection({self.name} {self.score:.2f} at [{corners}])"


@explains_frozen("dataclasses.replace(detections, {field}=...)")
@dataclass(frozen=True, eq=False)
class Detections:
    """The objects found in one image, best first: a sequence of ``Detection`` over plain arrays.

    ``detections[0]`` is a ``Detection``; a slice, a boolean mask or a list of indices gives ``Detections``.

    Args:
        xyxy: float32 [N,4], left, top, right, bottom in pixels of the image; finite.
        scores: float32 [N], 0..1; finite.
        labels: int64 [N], class indices.
        names: class names by index, a dict or a sequence.
        image_size: (height, width) of the image, pixels.
        source: where the image came from.
        image: the image itself, for ``plot`` and ``save``.
        time: of a frame, seconds after the first frame of its video.
        category_ids: of each class in the annotation files that the model was trained on, for ``to_coco``.

    Raises:
        UsageError: if the arrays do not have these shapes, or hold a NaN, an infinity or a label that is no integer.
    """

    xyxy: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    names: Mapping[int, str] | Sequence[str] = field(repr=False)
    image_size: tuple[int, int]
    source: str = "image"
    image: Image.Image | None = field(default=None, repr=False)
    time: float | None = None
    category_ids: Sequence[int] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        set_field = object.__setattr__
        set_field(self, "xyxy", _boxes(self.xyxy))
        set_field(self, "scores", _floats("scores", self.scores))
        set_field(self, "labels", _whole_numbers("labels", self.labels))
        set_field(self, "image_size", _image_size(self.image_size))
        set_field(self, "source", str(self.source))
        set_field(self, "names", _names(self.names))
        for name in ("scores", "labels"):
            shape = getattr(self, name).shape
            if shape != (len(self.xyxy),):
                raise UsageError(
                    f"{name}: expected {len(self.xyxy)} values, one per box, got shape {list(shape)}"
                )
        for name in ("xyxy", "scores"):
            if not np.isfinite(getattr(self, name)).all():
                raise UsageError(f"{name}: expected finite numbers, got NaN or infinity")

    @property
    def boxes(self) -> npt.NDArray[np.float32]:
        """The same as ``xyxy``."""
        return self.xyxy

    def __len__(self) -> int:
        return len(self.xyxy)

    def __iter__(self) -> Iterator[Detection]:
        return (self[index] for index in range(len(self)))

    @overload
    def __getitem__(self, index: int | np.integer[Any]) -> Detection: ...
    @overload
    def __getitem__(self, index: slice | Sequence[Any] | npt.NDArray[Any]) -> Detections: ...
    def __getitem__(self, index: Any) -> Detection | Detections:
        whole = as_int(index)
        if whole is not None:
            return self._detection(whole)
        if not isinstance(index, slice):
            index = np.asarray(index)
            if index.ndim == 0:
                raise UsageError(
                    f"index: expected an integer, a slice, a mask or a list, got {index}"
                )
            index = index.astype(np.int64) if index.size == 0 else index
        xyxy, scores, labels = self.xyxy[index], self.scores[index], self.labels[index]
        return replace(self, xyxy=xyxy, scores=scores, labels=labels)

    def _detection(self, index: int) -> Detection:
        left, top, right, bottom = (float(value) for value in self.xyxy[index])
        label = int(self.labels[index])
        return Detection(
            self.name_of(label), label, float(self.scores[index]), (left, top, right, bottom)
        )

    def name_of(self, label: SupportsIndex) -> str:
        """The name of a class index; "class 7" for one without a name."""
        assert isinstance(self.names, Mapping)
        number = operator.index(label)
        return self.names.get(number, f"class {number}")

    def above(self, score: float) -> Detections:
        """Those with a greater score."""
        least = as_number(score)
        if least is None:
            raise UsageError(f"score: expected a number, got {score!r}")
        return self[self.scores > least]

    def only(self, *classes: ClassWord | Sequence[ClassWord] | npt.NDArray[Any]) -> Detections:
        """Those of these classes, given by name or index: ``detections.only("person", "car")``.

        Raises:
            UsageError: if there is no such class, with the nearest name.
        """
        flat: list[Any] = []
        for entry in classes:
            is_one = isinstance(entry, str) or getattr(entry, "ndim", 1) == 0
            flat.extend(entry if isinstance(entry, Iterable) and not is_one else [entry])
        assert isinstance(self.names, Mapping)
        return self[np.isin(self.labels, class_indices(flat, self.names))]

    @property
    def counts(self) -> dict[str, int]:
        """How many of each class, most frequent first."""
        return dict(Counter(self.name_of(int(label)) for label in self.labels).most_common())

    @property
    def summary(self) -> str:
        """``4 person, 1 bus``, or ``nothing``."""
        return ", ".join(f"{count} {name}" for name, count in self.counts.items()) or "nothing"

    def __repr__(self) -> str:
        height, width = self.image_size
        return f"Detections({self.summary}; {self.source} {width}x{height})"

    def plot(self, style: Style | None = None) -> Image.Image:
        """A copy of the image with the boxes on it.

        Raises:
            UsageError: if these detections do not carry their image.
        """
        if self.image is None:
            raise UsageError(
                "plot: these detections carry no image; set it: dataclasses.replace(detections, image=image)"
            )
        texts = [f"{one.name} {one.score:.2f}" for one in self]
        return draw(self.image, self.xyxy, self.labels, texts, style)

    def save(self, path: str | Path, style: Style | None = None) -> Path:
        """Write the image with its boxes; the suffix names the format. Returns the path."""
        path = home_path(path)
        save_image(self.plot(style), path)
        return path

    def to_dict(self) -> dict[str, Any]:
        """``{"source", "height", "width", "objects": [{"name", "label", "score", "box"}]}``, JSON types only.

        The result of a frame also has its ``time``. Bytes of a file name that are no UTF-8 are spelled out.
        """
        objects = [
            {
                "name": one.name,
                "label": one.label,
                "score": _short(one.score, 5),
                "box": [_short(v, 3) for v in one.box],
            }
            for one in self
        ]
        height, width = self.image_size
        time = {} if self.time is None else {"time": _short(self.time, 6)}
        source = unicode_name(self.source)
        return {"source": source, **time, "height": height, "width": width, "objects": objects}

    def to_json(self, indent: int | None = None) -> str:
        """``to_dict`` as text."""
        return json.dumps(self.to_dict(), indent=indent, ensure_ascii=False, allow_nan=False)

    def to_coco(
        self, image_id: SupportsIndex | str, category_ids: CategoryIds | None = None
    ) -> list[dict[str, Any]]:
        """One COCO result per object: image_id, category_id, bbox [x, y, width, height] in pixels, score.

        Args:
            image_id: the id of this image in your annotation file.
            category_ids: the category id of each class index, a mapping or a sequence; "index" for the index itself. By
                default those of the detections; where they have none, COCO's own (1..90, with gaps) for its 80 class
                names, else the index.

        Raises:
            UsageError: for another ``image_id``, or a detected class without a category id.
        """
        number = image_id if isinstance(image_id, str) else as_int(image_id)
        if number is None:
            raise UsageError(f"image_id: expected an int or a string, got {image_id!r}")
        assert isinstance(self.names, Mapping)
        ids = self.category_ids if category_ids is None else category_ids
        ids = _category_ids(ids, self.labels, self.names)
        results = []
        for one in self:
            left, top, right, bottom = one.box
            bbox = [_short(value, 3) for value in (left, top, right - left, bottom - top)]
            results.append(
                {
                    "image_id": number,
                    "category_id": ids[one.label],
                    "bbox": bbox,
                    "score": _short(one.score, 5),
                }
            )
        return results

    def to_supervision(self) -> Any:
        """``supervision.Detections`` of the same objects, class names in ``data["class_name"]``.

        Raises:
            MissingExtraError: if supervision is not installed.
        """
        try:
            import supervision
        except ImportError as error:
            raise MissingExtraError("to_supervision", "supervision", "supervision") from error
        return supervision.Detections(
            xyxy=self.xyxy.copy(),
            confidence=self.scores.copy(),
            class_id=self.labels.astype(int),
            data={"class_name": np.asarray([one.name for one in self], dtype=str)},
        )


def class_indices(classes: Iterable[ClassWord], names: Mapping[int, str]) -> list[int]:
    """Class indices of names or indices; an index may be text, such as "0", where no class has that name.

    Raises:
        UsageError: for one that is not in ``names``, with the nearest name.
    """
    by_name = {name: index for index, name in names.items()}
    indices = []
    for entry in classes:
        index = by_name.get(entry) if isinstance(entry, str) else as_int(entry)
        if index is None and isinstance(entry, str) and entry.isdecimal():
            index = int(entry)
        if index is None or index not in names:
            hint = did_you_mean(entry, by_name) if isinstance(entry, str) else ""
            raise UsageError(
                f"classes: no class {entry!r} among the {len(names)} of this model.{hint}"
            )
        indices.append(index)
    return indices


def _category_ids(
    ids: CategoryIds | None, labels: npt.NDArray[np.int64], names: Mapping[int, str]
) -> dict[int, int]:
    """The category id of each class in ``labels``."""
    if ids is None:
        ids = COCO_IDS if is_coco(names) else "index"
    if isinstance(ids, str) and ids == "index":
        return {label: label for label in labels.tolist()}
    is_list = isinstance(ids, Sequence | np.ndarray) and getattr(ids, "ndim", 1) == 1
    if isinstance(ids, str) or not (isinstance(ids, Mapping) or is_list):
        raise UsageError(f'category_ids: expected a mapping, a sequence or "index", got {ids!r}')
    pairs = ids if isinstance(ids, Mapping) else dict(enumerate(ids))
    known = {as_int(label): as_int(number) for label, number in pairs.items()}
    missing = sorted({label for label in labels.tolist() if known.get(label) is None})
    if missing:
        raise UsageError(f"category_ids: no whole number for the class indices {missing}")
    return cast("dict[int, int]", known)


def _boxes(values: object) -> npt.NDArray[np.float32]:
    boxes = _floats("xyxy", values)
    if boxes.size and boxes.shape[-1:] != (4,):
        raise UsageError(f"xyxy: expected [N,4], got shape {list(boxes.shape)}")
    return boxes.reshape(-1, 4)


def _floats(argument: str, values: object) -> npt.NDArray[np.float32]:
    try:
        return np.asarray(values, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{argument}: expected an array of numbers, got {values!r:.80}") from error


def _names(names: object) -> Mapping[int, str]:
    is_list = isinstance(names, Sequence) and not isinstance(names, str)
    by_index = dict(enumerate(names)) if is_list else names  # type: ignore[arg-type]
    if not isinstance(by_index, Mapping) or not all(isinstance(x, str) for x in by_index.values()):
        raise UsageError(f"names: expected texts by index, or a list of them, got {names!r:.80}")
    return by_index


def _image_size(size: Any) -> tuple[int, int]:
    is_pair = isinstance(size, Sequence | np.ndarray) and getattr(size, "ndim", 1) == 1
    sides = [as_int(side) for side in size] if is_pair else []
    whole = [side for side in sides if side is not None]
    if len(sides) != 2 or len(whole) != 2:
        raise UsageError(f"image_size: expected (height, width), got {size!r}")
    return whole[0], whole[1]


def _whole_numbers(argument: str, values: object) -> npt.NDArray[np.int64]:
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise UsageError(f"{argument}: expected integers, got {values!r:.80}") from error
    is_number = np.issubdtype(array.dtype, np.integer) or np.issubdtype(array.dtype, np.floating)
    with np.errstate(invalid="ignore"):
        whole = array.astype(np.int64) if is_number else np.empty(0, np.int64)
    if not np.array_equal(whole, array):
        raise UsageError(f"{argument}: expected integers, got {values!r:.80}")
    return whole


def save_image(image: Image.Image, path: Path) -> None:
    """Write an image through a temporary file; the suffix names the format.

    Raises:
        UsageError: if Pillow knows no such format.
    """
    known = Image.registered_extensions()
    format_name = known.get(path.suffix.lower())
    if format_name not in Image.SAVE:
        raise UsageError(
            f"path: {path.name} has no suffix of an image format, such as .jpg or .png"
        )
    with atomic_write(path) as temporary:
        image.save(temporary, format=format_name, quality=95)


def _short(value: float, digits: int) -> float:
    """Enough digits for any use, without the tail that float32 has in decimal."""
    return round(float(value), digits)
