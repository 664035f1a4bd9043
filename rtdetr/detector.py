# SPDX-License-Identifier: Apache-2.0
"""A detector in one object: a model, what prepares its input, and what reads its output."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from .checking import hints_at_keywords
from .config import RTDetrV2Config
from .devices import describe_device, find_device, find_dtype
from .errors import DataError, RTDetrError
from .hub import HubOptions
from .images.convert import Color
from .images.names import is_video
from .images.sources import Picture, Unreadable, is_many, load_picture, pictures
from .inference.loading import load_detector
from .inference.options import Options, Size, check_imgsz
from .model import RTDetrV2ForObjectDetection
from .processing.image_processor import RTDetrImageProcessor
from .results.detections import Detections, class_indices

T = TypeVar("T")


class RTDETR:
    """An object detector: ``RTDETR("rtdetrv2_r18vd")("street.jpg")``.

    Args:
        source: a published model (``rtdetr models`` lists them), a directory or hub repository "owner/name" in
            Hugging Face form, or a checkpoint: a ``.safetensors`` file or an original ``.pth``.
        device: "auto", "cpu", "cuda", "cuda:1", 1, or "mps".
        dtype: "auto", "float32", "float16" or "bfloat16", of the model; its boxes are float32 in any case. "auto" is
            float16 on CUDA, else float32.
        config: a configuration, or a published model, directory or hub repository that has it, for a checkpoint that
            does not come with its own.
        weights: other weights for the model that ``source`` names: a path or hub repository. None leaves them random,
            for trying out code without a download; such a detector says so and finds nothing of use.
        processor: how pictures are prepared; by default as ``source`` says, else 640x640.
        revision: branch, tag or commit of ``source`` on the hub.
        cache_dir: where downloads are kept.
        token: of the hub.
        local_files_only: do not use the network.

    Raises:
        ModelError: if there is no such model, it cannot be downloaded, or a checkpoint does not fit.
        UsageError: for an unknown device or dtype.
        RTDetrError: if this machine does not have the device.
    """

    model: RTDetrV2ForObjectDetection
    processor: RTDetrImageProcessor
    device: torch.device
    dtype: torch.dtype
    title: str  # what it was made from
    is_random: bool  # whether its weights are random, and its detections therefore meaningless

    @hints_at_keywords
    def __init__(
        self,
        source: str | Path = "rtdetrv2_r18vd",
        *,
        device: str | int | torch.device = "auto",
        dtype: str | torch.dtype = "auto",
        config: RTDetrV2Config | str | Path | None = None,
        weights: str | Path | None = "auto",
        processor: RTDetrImageProcessor | None = None,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
    ) -> None:
        self.device = find_device(device)
        self.dtype = find_dtype(dtype, self.device)
        options = HubOptions(
            revision=revision, cache_dir=cache_dir, token=token, local_files_only=local_files_only
        )
        loaded = load_detector(source, config=config, weights=weights, options=options)
        self.model = loaded.model.eval().to(self.device, self.dtype)
        self.processor = processor or loaded.processor
        self.title, self.is_random = loaded.title, loaded.is_random
        self._fast: RTDetrV2ForObjectDetection | None = None

    @classmethod
    def random(cls, preset: str = "rtdetrv2_r18vd", *, seed: int = 0, **options: Any) -> RTDETR:
        """A detector with random weights that depend on ``seed`` alone; for trying out code without a download."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(preset, weights=None, **options)

    @classmethod
    def from_pretrained(cls, source: str | Path, **options: Any) -> RTDETR:
        """The same as ``RTDETR(source, ...)``."""
        return cls(source, **options)

    @property
    def names(self) -> dict[int, str]:
        """Class names by index."""
        return dict(self.model.config.id2label)

    @property
    def imgsz(self) -> tuple[int, int]:
        """(height, width) pictures are resized to, unless a call says otherwise."""
        size = self.processor.size
        assert isinstance(size, dict)
        return (size["height"], size["width"]) if "height" in size else (640, 640)

    def __repr__(self) -> str:
        dtype = str(self.dtype).removeprefix("torch.")
        weights = ", random weights: detections mean nothing" if self.is_random else ""
        return f"RTDETR({self.title}, {len(self.names)} classes, {self.device} {dtype}{weights})"

    @property
    def description(self) -> str:
        """One line: model, classes, input size, device and precision."""
        height, width = self.imgsz
        dtype = str(self.dtype).removeprefix("torch.")
        weights = "  RANDOM WEIGHTS: detections mean nothing" if self.is_random else ""
        return (
            f"model {self.title}  {len(self.names)} classes  {width}x{height}  "
            f"{describe_device(self.device)} {dtype}{weights}"
        )

    @hints_at_keywords
    def __call__(
        self,
        source: Any,
        *,
        threshold: float = 0.5,
        batch: int = 1,
        classes: Sequence[str | int] | None = None,
        imgsz: Size | None = None,
        color: Color = "rgb",
        recursive: bool = False,
        vid_stride: int = 1,
    ) -> Any:
        """The objects in one picture, in many, or in a video.

        Args:
            source: a picture (path, URL, PIL picture, array [H,W,3], tensor [3,H,W]); many (a folder, a glob, a list or
                tuple of pictures, an array or tensor with a batch dimension); or a video file. Arrays and tensors are
                RGB, uint8 or floating 0..1; EXIF orientation is honoured.
            threshold: detections with a greater score are kept.
            batch: pictures per run of the model.
            classes: names or indices of the classes wanted; None for all.
            imgsz: run at this size, a multiple of 32: one number, or (height, width).
            color: "bgr" for arrays and tensors in OpenCV's order.
            recursive: look into the folders of a folder.
            vid_stride: every how many frames of a video to take.

        Returns:
            One ``Detections`` for one picture, whatever its form; a list for many; an iterator for a video, which is
            read as you go.

        Raises:
            DataError: if a picture cannot be read; ``stream`` goes on past it.
            UsageError: if an option has a wrong value.
        """
        options = Options(threshold, batch, classes, imgsz)
        if not is_video(source) and not is_many(source):
            return self._detect([load_picture(source, color=color)], options)[0]
        found = _readable(
            self.stream(
                source,
                threshold=threshold,
                batch=batch,
                classes=classes,
                imgsz=imgsz,
                color=color,
                recursive=recursive,
                vid_stride=vid_stride,
            )
        )
        return found if is_video(source) else list(found)

    @hints_at_keywords
    def stream(
        self,
        source: Any,
        *,
        threshold: float = 0.5,
        batch: int = 1,
        classes: Sequence[str | int] | None = None,
        imgsz: Size | None = None,
        color: Color = "rgb",
        recursive: bool = False,
        vid_stride: int = 1,
        limit: int | None = None,
    ) -> Iterator[Detections | Unreadable]:
        """As calling the detector, for any number of pictures or a video, one result after the other.

        A picture that cannot be read is in its place as ``Unreadable(name, error)``, and the next one follows.
        ``limit`` stops after so many.
        """
        options = Options(threshold, batch, classes, imgsz)
        if classes is not None:
            class_indices(
                classes, self.names
            )  # a wrong name comes out now, not with the first result
        if is_video(source):
            from .images.video import read_video

            items: Iterable[Picture | Unreadable] = read_video(source, stride=vid_stride)
        else:
            items = pictures(source, color=color, recursive=recursive)
        return self._run(islice(items, limit), options)

    def _run(
        self, items: Iterable[Picture | Unreadable], options: Options
    ) -> Iterator[Detections | Unreadable]:
        for group in _batched(items, options.batch):
            readable = [item for item in group if isinstance(item, Picture)]
            found = iter(self._detect(readable, options))
            for item in group:
                yield next(found) if isinstance(item, Picture) else item

    def _detect(self, group: Sequence[Picture], options: Options) -> list[Detections]:
        if not group:
            return []
        wanted = None if options.classes is None else class_indices(options.classes, self.names)
        sizes = [(one.image.height, one.image.width) for one in group]
        outputs = self.forward(self.prepare([one.image for one in group], options.imgsz))
        results = self.processor.post_process_object_detection(outputs, options.threshold, sizes)
        made = []
        for picture, size, result in zip(group, sizes, results, strict=True):
            arrays = {name: value.cpu().numpy() for name, value in result.items()}
            keep = slice(None) if wanted is None else np.isin(arrays["labels"], wanted)
            made.append(
                Detections(
                    xyxy=_clipped(arrays["boxes"][keep], size),
                    scores=arrays["scores"][keep],
                    labels=arrays["labels"][keep],
                    names=self.names,
                    image_size=size,
                    source=picture.name,
                    image=picture.image,
                )
            )
        return made

    def prepare(self, images: Sequence[Image.Image], imgsz: Size | None = None) -> torch.Tensor:
        """Pictures as the model's input, float32 [B,3,H,W] on its device."""
        options = {} if imgsz is None else {"size": check_imgsz(imgsz)}
        batch = self.processor(list(images), return_tensors="pt", **options)
        pixels: torch.Tensor = batch.pixel_values.to(self.device)
        return pixels

    @torch.inference_mode()
    def forward(self, pixel_values: torch.Tensor) -> RawOutputs:
        """Run the model on its input [B,3,H,W], in its dtype and on its device.

        Returns:
            ``logits`` float32 [B,Q,K] and ``pred_boxes`` float32 [B,Q,4], cxcywh in fractions of the picture.

        Raises:
            RTDetrError: if the device's memory does not suffice.
        """
        try:
            outputs = (self._fast or self.model)(pixel_values.to(self.device, self.dtype))
        except torch.OutOfMemoryError as error:
            batch, _, height, width = pixel_values.shape
            raise RTDetrError(
                f"{self.device}: out of memory at {width}x{height}, batch {batch}. Try a smaller batch or imgsz."
            ) from error
        return RawOutputs(outputs.logits.float(), outputs.pred_boxes.float())

    def to(
        self,
        device: str | int | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
    ) -> RTDETR:
        """Move to a device, or change the dtype; returns itself."""
        if isinstance(device, torch.dtype):
            device, dtype = None, device
        if device is not None:
            self.device = find_device(device)
            self.model.to(self.device)
        if dtype is not None:
            self.dtype = find_dtype(dtype, self.device)
            self.model.to(self.dtype)
        return self.optimize() if self.is_optimized else self

    def optimize(self) -> RTDETR:
        """Run a copy of ``model`` from now on that is rewritten for inference (``rtdetr.optimize``); returns itself.

        Results change within rounding. ``model`` stays as it is, and is what ``save_pretrained`` writes; after changing
        its weights, call this again.
        """
        from .model.optimize import optimize

        self._fast = optimize(self.model)
        return self

    @property
    def is_optimized(self) -> bool:
        return self._fast is not None

    def save_pretrained(self, directory: str | Path) -> Path:
        """Write configuration, weights (in their dtype) and preprocessing into ``directory``, in Hugging Face form."""
        self.model.save_pretrained(directory, processor=self.processor)
        return Path(directory)


@dataclass(frozen=True)
class RawOutputs:
    """What the model says, before it is read as detections."""

    logits: torch.Tensor
    pred_boxes: torch.Tensor


def _clipped(boxes: npt.NDArray[np.float32], size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Boxes cut at the border of a picture (height, width): the model may point a little beyond it."""
    height, width = size
    return boxes.clip(0, np.asarray([width, height, width, height], dtype=np.float32))


def _batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while group := list(islice(iterator, size)):
        yield group


def _readable(found: Iterator[Detections | Unreadable]) -> Iterator[Detections]:
    for one in found:
        if isinstance(one, Unreadable):
            raise DataError(
                f"{one.error} (RTDETR.stream goes on past such a picture)"
            ) from one.error
        yield one
