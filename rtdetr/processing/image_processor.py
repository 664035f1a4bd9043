# SPDX-License-Identifier: Apache-2.0
"""Images to the tensors a model takes, with annotations where there are any."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from ..checking import explains_frozen, hints_at_fields
from ..devices import find_device
from ..errors import DataError, ModelError, UsageError, did_you_mean
from ..files import atomic_write
from ..hub import PREPROCESSOR, HubOptions, Settings, model_files, read_json_object, read_settings
from ..keywords import LOADING, SAVING, understands
from . import targets
from .batch_feature import BatchFeature
from .fields import CHECKS, TensorKind
from .inputs import InputImage, Pixels, load_images
from .keywords import drop_constants, takes_constants
from .postprocess import post_process
from .sizes import SizeLike, describe_size, resized_size

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# These have no default but None.
_NULLABLE = ("pad_size", "return_tensors")

# Words of transformers' ``from_pretrained`` that choose among implementations; here is one.
_LOADING_WORDS = frozenset({"trust_remote_code", "use_fast"})


@explains_frozen("processor = processor.replaced({field}=...)")
@takes_constants
@hints_at_fields
@dataclass(frozen=True)
class RTDetrImageProcessor:
    """Resizes, scales and batches images; carries COCO annotations along; reads detections out of outputs.

    The fields are the keys of ``preprocessor_config.json``, and each can be overridden in a call:
    ``processor(images, size=480, return_tensors="pt")``. An image is resized as 8-bit pixels by Pillow, the way the
    published models were trained, then multiplied by ``rescale_factor``.

    Args:
        do_resize: whether to resize to ``size``.
        size: a whole number (square), (height, width), or a dict with height and width, shortest_edge and longest_edge,
            or max_height and max_width.
        resample: a filter of Pillow, as its number; 2 is bilinear with antialiasing.
        do_rescale: whether to multiply pixels 0..255 by ``rescale_factor``.
        rescale_factor: 1/255 by default.
        do_normalize: whether to subtract ``image_mean`` and divide by ``image_std``.
        image_mean: one number per channel: three, or four for arrays of four channels, which then keep them.
        image_std: one number per channel, as many as ``image_mean``.
        do_pad: whether to pad at the bottom and right with zeros; adds ``pixel_mask``.
        pad_size: to what size, height and width; None is the largest of the batch.
        do_convert_annotations: whether boxes become cxcywh in fractions of the image.
        format: "coco_detection", the only one.
        return_tensors: what a call returns that does not say.

    None for a field is its default. What transformers' processors take besides (``do_convert_rgb``, ``data_format``,
    ``do_center_crop``, ``disable_grouping`` ...) is taken as long as it asks for what is done here anyway.

    Raises:
        UsageError: if a field has a value outside of these.
    """

    do_resize: bool = True
    size: SizeLike = field(default_factory=lambda: {"height": 640, "width": 640})
    resample: int = int(Image.Resampling.BILINEAR)
    do_rescale: bool = True
    rescale_factor: float = 1 / 255
    do_normalize: bool = False
    image_mean: Sequence[float] = IMAGENET_MEAN
    image_std: Sequence[float] = IMAGENET_STD
    do_pad: bool = False
    pad_size: SizeLike | None = None
    do_convert_annotations: bool = True
    format: str = "coco_detection"
    return_tensors: TensorKind | None = None

    model_input_names = ("pixel_values", "pixel_mask")

    def __post_init__(self) -> None:
        for entry in dataclasses.fields(self):
            value = getattr(self, entry.name)
            if value is None and entry.name not in _NULLABLE:
                value = getattr(_defaults(), entry.name)
            object.__setattr__(self, entry.name, CHECKS[entry.name](entry.name, value))
        if len(self.image_mean) != len(self.image_std):
            raise UsageError(
                f"image_std: expected {len(self.image_mean)} numbers, as image_mean has, got {list(self.image_std)}"
            )

    def __call__(self, images: Any, *args: Any, **kwargs: Any) -> BatchFeature:
        """The same as ``preprocess``."""
        return self.preprocess(images, *args, **kwargs)

    def preprocess(
        self,
        images: Any,
        annotations: Any = None,
        return_segmentation_masks: bool | None = None,
        masks_path: str | Path | None = None,
        *,
        return_tensors: TensorKind | None = None,
        input_data_format: str | None = None,
        device: str | int | torch.device | None = None,
        **overrides: Any,
    ) -> BatchFeature:
        """Images, and annotations if any, as the model takes them.

        Args:
            images: one image or a list of them: PIL image, path, URL, array or tensor (integers 0..255 or floats 0..1;
                channels first or last), or a batch [N,...] of arrays. Gray and RGBA become RGB. A path is turned as
                its EXIF orientation says; a PIL image is taken as it is, since you know its size. Floats may have any
                finite value where nothing is resized or rescaled.
            annotations: one dict per image, ``{"image_id": int, "annotations": [{"bbox": [x,y,w,h] in pixels,
                "category_id": int, "area", "iscrowd", "keypoints"}]}``. The category id is the class index.
            return_segmentation_masks: False or None; this detector has no masks.
            masks_path: None, likewise.
            return_tensors: "pt", "np", or None for the field of that name, by default lists of arrays, which may differ
                in size.
            input_data_format: "channels_first" or "channels_last" for arrays and tensors; by default what fits, and
                first where both fit.
            device: where tensors go; images are prepared on the CPU in any case.
            **overrides: any field of this class, for this call; None leaves it as it is, and ``pad_size=None`` pads to
                the largest of the batch.

        Returns:
            ``pixel_values`` float32 [B,3,H,W], or 4 channels as ``image_mean`` has;
            ``pixel_mask`` int64 [B,H,W], 1 on the image, with ``do_pad``;
            ``labels`` with annotations: per image size, orig_size (height, width), image_id, class_labels int64 [N],
            boxes float32 [N,4], area, iscrowd.

        Raises:
            DataError: if an image or annotation cannot be read, or sizes differ and tensors were asked for.
            UsageError: if an override has a wrong value.
            TypeError: for an unknown override.
        """
        if return_segmentation_masks or masks_path is not None:
            raise UsageError(
                "return_segmentation_masks, masks_path: this detector finds boxes and has no masks"
            )
        settings = self.replaced(return_tensors=return_tensors, **drop_constants(overrides))
        kind = settings.return_tensors
        if device is not None and kind != "pt":
            raise UsageError(f'device: expected return_tensors="pt" with it, got {kind!r}')
        inputs = load_images(images, input_data_format, len(settings.image_mean))
        per_image = _annotation_list(annotations, len(inputs))
        samples = [settings._preprocess_one(*pair) for pair in zip(inputs, per_image, strict=True)]
        batch: dict[str, Any] = {}
        if settings.do_pad:
            samples, batch["pixel_mask"] = settings._pad(samples)
        batch["pixel_values"] = [pixels for pixels, _ in samples]
        _check_sizes(batch["pixel_values"], kind)
        features = BatchFeature({key: _stacked(value, kind) for key, value in batch.items()})
        if annotations is not None:
            features["labels"] = [
                _labels(target, kind) for _, target in samples if target is not None
            ]
        return features if device is None else features.to(find_device(device))

    def replaced(self, **overrides: Any) -> RTDetrImageProcessor:
        """A copy with these fields; None leaves one as it is, and an unknown name is a TypeError with a suggestion."""
        known = [entry.name for entry in dataclasses.fields(self)]
        for name in overrides:
            if name not in known:
                raise TypeError(
                    f"RTDetrImageProcessor has no option {name!r}.{did_you_mean(name, known)} "
                    f"Options: {', '.join(known)}"
                )
        fields = {
            name: value
            for name, value in overrides.items()
            if value is not None or name == "pad_size"
        }
        return dataclasses.replace(self, **fields) if fields else self

    def content_size(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) that an image of ``image_size`` has in the network's input, without the padding."""
        return resized_size(image_size, self.size) if self.do_resize else image_size  # type: ignore[arg-type]

    @property
    def input_size(self) -> tuple[int, int] | None:
        """(height, width) of the network's input; None where it depends on the image."""
        size = (
            self.pad_size if self.do_pad and self.pad_size else self.size if self.do_resize else {}
        )
        assert isinstance(size, Mapping)
        return (size["height"], size["width"]) if "height" in size else None

    @property
    def size_text(self) -> str:
        """The size of the network's input in words: ``640x480`` (width x height), ``at most 640x480``, ..."""
        if self.input_size is not None:
            return "{1}x{0}".format(*self.input_size)
        assert isinstance(self.size, Mapping)
        return describe_size(self.size) if self.do_resize else "size of the image"

    def with_input_size(self, height: int, width: int) -> RTDetrImageProcessor:
        """A copy whose input has this size. Where images keep their aspect they are fitted into it and padded."""
        sides = {"height": height, "width": width}
        if self.do_resize and isinstance(self.size, Mapping) and "height" in self.size:
            return self.replaced(size=sides, pad_size=sides)
        fit = {"max_height": height, "max_width": width}
        return self.replaced(do_resize=True, size=fit, do_pad=True, pad_size=sides)

    def _preprocess_one(
        self, image: InputImage, annotation: Mapping[str, Any] | None
    ) -> tuple[Pixels, targets.Target | None]:
        old = image.size
        target = targets.coco_target(annotation, old) if annotation is not None else None
        new = self.content_size(old)
        pixels = image.pixels(new, self.resample, self.rescale_factor if self.do_rescale else None)
        if self.do_normalize:
            mean = np.asarray(self.image_mean, dtype=np.float32)[:, None, None]
            pixels = (pixels - mean) / np.asarray(self.image_std, dtype=np.float32)[:, None, None]
        if target is not None and self.do_resize:
            target = targets.resized(target, old, new)
        if target is not None and self.do_convert_annotations:
            target = targets.normalized(target, new)
        return pixels, target

    def _pad(
        self, samples: list[tuple[Pixels, targets.Target | None]]
    ) -> tuple[list[tuple[Pixels, targets.Target | None]], list[npt.NDArray[np.int64]]]:
        height = max(pixels.shape[1] for pixels, _ in samples)
        width = max(pixels.shape[2] for pixels, _ in samples)
        if isinstance(self.pad_size, Mapping):
            if self.pad_size["height"] < height or self.pad_size["width"] < width:
                raise UsageError(
                    f"pad_size: {self.pad_size} is smaller than an image of the batch, {height}x{width} after resizing"
                )
            height, width = self.pad_size["height"], self.pad_size["width"]
        images, masks = [], []
        for pixels, target in samples:
            old, new = (pixels.shape[1], pixels.shape[2]), (height, width)
            mask = np.zeros(new, dtype=np.int64)
            mask[: old[0], : old[1]] = 1
            masks.append(mask)
            if old != new:
                pixels = np.pad(pixels, ((0, 0), (0, new[0] - old[0]), (0, new[1] - old[1])))
                if target is not None:
                    fractions = self.do_convert_annotations
                    target = targets.padded(target, old, new, fractions=fractions)
            images.append((pixels, target))
        return images, masks

    def post_process_object_detection(
        self,
        outputs: Any,
        threshold: float = 0.5,
        target_sizes: torch.Tensor | Sequence[Sequence[float]] | None = None,
        use_focal_loss: bool = True,
    ) -> list[dict[str, torch.Tensor]]:
        """Scores, labels and boxes of each image, best first, without suppression: the model needs none.

        Args:
            outputs: has ``logits`` [B,Q,K] and ``pred_boxes`` [B,Q,4], cxcywh in fractions of the image.
            threshold: a detection stays if its score is greater.
            target_sizes: (height, width) of each image, pixels; None leaves boxes in fractions.
            use_focal_loss: sigmoid scores, where one query may name several classes. False takes a softmax whose last
                class means "nothing"; RT-DETR was not trained that way.

        Returns:
            per image ``{"scores": [N], "labels": int64 [N], "boxes": [N,4] xyxy}``. Boxes are not clipped.

        Raises:
            UsageError: if ``target_sizes`` has another length than the batch, or ``threshold`` is no number.
        """
        return post_process(
            outputs.logits, outputs.pred_boxes, threshold, target_sizes, use_focal_loss
        )

    def to_dict(self) -> dict[str, Any]:
        """The fields that are not None, JSON types only, with the key by which other libraries know the class."""
        fields = {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in dataclasses.asdict(self).items()
            if value is not None
        }
        return fields | {"image_processor_type": "RTDetrImageProcessor"}

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any], **overrides: Any) -> RTDetrImageProcessor:
        """From the contents of ``preprocessor_config.json``; keys of other libraries' bookkeeping are passed over.

        Raises:
            ModelError: if a field has a wrong value, or asks for a step this class does not have.
            UsageError: if an override has a wrong value.
        """
        return cls._from_settings(settings, PREPROCESSOR).replaced(**drop_constants(overrides))

    @classmethod
    @understands(LOADING)
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
        **overrides: Any,
    ) -> RTDetrImageProcessor:
        """From a directory (or its ``preprocessor_config.json``), a checkpoint of ours, or a repository on the hub.

        Args:
            source: where the file is.
            revision: branch, tag or commit on the hub.
            cache_dir: where downloads are kept.
            token: of the hub.
            local_files_only: do not use the network.
            **overrides: any field of this class. ``use_fast`` is taken and has no effect.

        Raises:
            ModelError: if there is no such file, a field in it has a wrong value, or the hub cannot be reached.
        """
        fields = {name: value for name, value in overrides.items() if name not in _LOADING_WORDS}
        options = HubOptions(
            revision=revision, cache_dir=cache_dir, token=token, local_files_only=local_files_only
        )
        files = model_files(source, options)
        settings = None if files is None else read_settings(files, PREPROCESSOR)
        if settings is None:
            raise ModelError(
                f"{source}: no {PREPROCESSOR} there. Use RTDetrImageProcessor() for the defaults."
            )
        return cls.from_settings(settings, **fields)

    @classmethod
    def from_settings(cls, settings: Settings, **overrides: Any) -> RTDetrImageProcessor:
        """From what :func:`rtdetr.hub.read_settings` returns; errors name its origin."""
        processor = cls._from_settings(settings.values, settings.origin)
        return processor.replaced(**drop_constants(overrides))

    @classmethod
    def from_json_file(cls, path: str | Path) -> RTDetrImageProcessor:
        """The same as ``from_file``, under the name that transformers has for it."""
        return cls.from_file(path)

    @classmethod
    def from_file(cls, path: str | Path, **overrides: Any) -> RTDetrImageProcessor:
        """From one JSON file.

        Raises:
            ModelError: it holds no JSON, a field has a wrong value, or it asks for a step this class does not have.
            UsageError: if an override has a wrong value.
        """
        settings = Settings(read_json_object(Path(path)), str(path))
        return cls.from_settings(settings, **overrides)

    @classmethod
    def _from_settings(cls, settings: Any, place: str) -> RTDetrImageProcessor:
        if not isinstance(settings, Mapping):
            raise ModelError(f"{place}: expected an object with fields, got {settings!r:.80}")
        known = {entry.name for entry in dataclasses.fields(cls)}
        try:
            words = drop_constants(settings)
            return cls(**{key: value for key, value in words.items() if key in known})
        except UsageError as error:
            raise ModelError(f"{place}: {error}") from error

    def to_json_string(self) -> str:
        """``to_dict`` as the text of a file."""
        return json.dumps(self.to_dict(), indent=2, sort_keys=True, allow_nan=False) + "\n"

    def to_json_file(self, path: str | Path) -> None:
        """Write ``to_json_string``; the file is replaced whole."""
        with atomic_write(path) as temporary:
            temporary.write_text(self.to_json_string(), encoding="utf-8")

    @understands(SAVING)
    def save_pretrained(self, directory: str | Path) -> list[str]:
        """Write ``preprocessor_config.json`` into ``directory``, created if needed; a list with the file's path."""
        path = Path(directory) / PREPROCESSOR
        self.to_json_file(path)
        return [str(path)]


@functools.cache
def _defaults() -> RTDetrImageProcessor:
    return RTDetrImageProcessor()


def _annotation_list(annotations: Any, count: int) -> list[Mapping[str, Any] | None]:
    if annotations is None:
        return [None] * count
    per_image = [annotations] if isinstance(annotations, Mapping) else annotations
    if not isinstance(per_image, Sequence):
        raise DataError(f"annotations: expected a list, one per image, got {annotations!r:.80}")
    if len(per_image) != count:
        raise DataError(
            f"annotations: expected one per image, got {len(per_image)} for {count} images"
        )
    return list(per_image)


def _check_sizes(images: list[Pixels], return_tensors: TensorKind | None) -> None:
    sizes = sorted({pixels.shape[1:] for pixels in images})
    if return_tensors is not None and len(sizes) > 1:
        raise DataError(
            f"images: sizes differ after resizing ({sizes[0][0]}x{sizes[0][1]}, {sizes[1][0]}x{sizes[1][1]}); pass "
            "do_pad=True, a size with height and width, or return_tensors=None"
        )


def _stacked(arrays: list[npt.NDArray[Any]], kind: TensorKind | None) -> Any:
    if kind is None:
        return arrays
    stacked = np.stack(arrays)
    return torch.from_numpy(stacked) if kind == "pt" else stacked


def _labels(target: targets.Target, kind: TensorKind | None) -> BatchFeature:
    if kind != "pt":
        return BatchFeature(target)
    return BatchFeature({key: torch.from_numpy(value) for key, value in target.items()})
