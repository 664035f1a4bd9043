# SPDX-License-Identifier: Apache-2.0
"""A detector in one object: a model, what prepares its input, and what reads its output."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy.typing as npt
import torch
from PIL import Image
from typing_extensions import Unpack

from .checking import hints_at_keywords, shows_options
from .config import RTDetrV2Config
from .data.load import DataSource
from .devices import describe_device, find_device, find_dtype
from .errors import DataError, UsageError
from .evaluation import Evaluation
from .evaluation.options import ValWords
from .evaluation.run import evaluate_detector
from .hub import HubOptions
from .images.io import Unreadable, load_image
from .images.sources import ImageSource, Source, find_sources, read_sources
from .inference.loading import load_detector
from .inference.options import (
    HINTS,
    SYNONYMS,
    ImageSize,
    PredictOptions,
    PredictWords,
    check_whole,
)
from .inference.predictor import Predictor, RawOutputs, run_network
from .model import RTDetrV2ForObjectDetection
from .model.optimize import optimize
from .processing.image_processor import RTDetrImageProcessor
from .results.detections import Detections, class_indices
from .training.trainer import Trainer, TrainResult
from .weights import save_checkpoint

__all__ = ["RTDETR"]


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
        names: one name for each class of the model, as a list or by index; by default as the weights say. An original
            ``.pth`` says nothing: its classes are those of COCO if they are 80, else LABEL_0, LABEL_1, ...
        processor: how images are prepared; by default as ``source`` says, else 640x640.
        revision: branch, tag or commit of ``source`` on the hub.
        cache_dir: where downloads are kept.
        token: of the hub.
        local_files_only: do not use the network.

    Raises:
        ModelError: if there is no such model, it cannot be downloaded, or a checkpoint does not fit.
        UsageError: for an unknown device or dtype, float16 on a CPU that computes it in software, or an argument of a
            wrong type.
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
        names: Sequence[str] | Mapping[int, str] | None = None,
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
        loaded = load_detector(
            source, config=config, weights=weights, processor=processor, options=options
        )
        if names is not None:
            _name_classes(loaded.model.config, names)
        self.model = loaded.model.eval().to(self.device, self.dtype)
        self.processor = loaded.processor
        self.title, self.is_random = loaded.title, loaded.is_random
        self._fast: RTDetrV2ForObjectDetection | None = None

    @classmethod
    def random(cls, preset: str = "rtdetrv2_r18vd", *, seed: int = 0, **options: Any) -> RTDETR:
        """A detector with random weights that depend on ``seed`` alone; for trying out code without a download."""
        number = check_whole("seed", seed, 0)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(number)
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
    def imgsz(self) -> tuple[int, int] | None:
        """(height, width) of the model's input, unless a call says otherwise; None where it depends on the image."""
        return self._predictor.input_size

    def __repr__(self) -> str:
        dtype = str(self.dtype).removeprefix("torch.")
        weights = ", random weights: detections mean nothing" if self.is_random else ""
        return f"RTDETR({self.title}, {len(self.names)} classes, {self.device} {dtype}{weights})"

    @property
    def description(self) -> str:
        """One line: model, classes, input size, device and precision."""
        dtype = str(self.dtype).removeprefix("torch.")
        size = "{1}x{0}".format(*self.imgsz) if self.imgsz else self.processor.size_text
        weights = "  RANDOM WEIGHTS: detections mean nothing" if self.is_random else ""
        return (
            f"model {self.title}  {len(self.names)} classes  {size}  "
            f"{describe_device(self.device)} {dtype}{weights}"
        )

    @overload
    def __call__(self, source: Image.Image, **options: Unpack[PredictWords]) -> Detections: ...
    @overload
    def __call__(
        self, source: list[Any] | tuple[Any, ...], **options: Unpack[PredictWords]
    ) -> list[Detections]: ...
    @overload
    def __call__(
        self,
        source: str | os.PathLike[str] | npt.NDArray[Any] | torch.Tensor,
        **options: Unpack[PredictWords],
    ) -> Detections | Any: ...
    @shows_options(PredictOptions, SYNONYMS, HINTS)
    def __call__(self, source: Any, **options: Unpack[PredictWords]) -> Any:
        """The objects in one image, in many, or in a video.

        Args:
            source: an image (path, URL, PIL image, array [H,W,3], tensor [3,H,W]); many (a folder, a glob, a list or
                tuple of images, an array or tensor with a batch dimension); or a video file. Arrays and tensors are
                RGB, uint8 or floating 0..1; EXIF orientation is honored.
            **options: ``threshold`` (or ``conf``), ``batch``, ``classes``, ``imgsz``, ``color``, ``recursive`` and
                ``vid_stride``; see :class:`~rtdetr.inference.options.PredictOptions`.

        Returns:
            One ``Detections`` for one image, whatever its form; a list for many; an iterator for a video, which is
            read as you go.

        Raises:
            DataError: if an image cannot be read; ``stream`` goes on past it.
            ModelError: if the model answers with a NaN or an infinity.
            UsageError: if an option has a wrong value.
            TypeError: for an unknown option, with the nearest known one.
        """
        checked = self._checked(options)
        sources = find_sources(source, recursive=checked.recursive)
        if not sources.is_single:
            return list(_readable(self._stream(sources.items, checked, None)))
        (single,) = sources.items
        if not isinstance(single, ImageSource):
            return _readable(self._stream(sources.items, checked, None))
        image = load_image(single.item, color=checked.color, name=single.name)
        return self._predictor.detect([image], checked)[0]

    @shows_options(PredictOptions, SYNONYMS, HINTS)
    def stream(
        self, source: Any, *, limit: int | None = None, **options: Unpack[PredictWords]
    ) -> Iterator[Detections | Unreadable]:
        """As calling the detector, for any number of images or a video, one result after the other.

        An image that cannot be read is in its place as ``Unreadable(name, error)``, and the next one follows.
        ``limit`` stops after so many that could be read.
        """
        checked = self._checked(options)
        if limit is not None:
            limit = check_whole("limit", limit, 0)
        sources = find_sources(source, recursive=checked.recursive)
        return self._stream(sources.items, checked, limit)

    def _checked(self, options: PredictWords) -> PredictOptions:
        """The options, with class names of this model: a wrong one is an error of the call, not of the first result."""
        checked = PredictOptions.of(options)
        if checked.classes is not None:
            class_indices(checked.classes, self.names)
        return checked

    def _stream(
        self, sources: Sequence[Source], options: PredictOptions, limit: int | None
    ) -> Iterator[Detections | Unreadable]:
        images = read_sources(
            sources, color=options.color, vid_stride=options.vid_stride, limit=limit
        )
        return self._predictor.run(images, options)

    @property
    def _predictor(self) -> Predictor:
        ids = self.model.config.category_ids
        return Predictor(self.forward, self.processor, self.names, ids)

    def prepare(
        self, images: Sequence[Image.Image], imgsz: ImageSize | None = None
    ) -> torch.Tensor:
        """Images as the model's input, float32 [B,3,H,W] on its device.

        Images that differ in size after preprocessing are padded with zeros at the bottom and right to the largest, and
        all of them to a multiple of 32.
        """
        return self._predictor.prepare(images, imgsz).to(self.device)

    @torch.inference_mode()
    def forward(self, pixel_values: torch.Tensor) -> RawOutputs:
        """Run the model on its input [B,3,H,W], in its dtype and on its device.

        Returns:
            ``logits`` float32 [B,Q,K] and ``pred_boxes`` float32 [B,Q,4], cxcywh in fractions of the image.

        Raises:
            RTDetrError: if the device's memory does not suffice.
        """
        return run_network(self._fast or self.model, pixel_values.to(self.device, self.dtype))

    def val(self, data: DataSource, **options: Unpack[ValWords]) -> Evaluation:
        """How well the objects of a data set are found, by COCO's rules: what ``rtdetr val`` prints.

        Args:
            data: a folder or file of a known layout, or pairs (image, target); see :data:`rtdetr.data.load.DataSource`.
                Classes are matched by their names; those of pairs are the model's, by index.
            **options: ``split`` ("val" or "train"), ``imgsz``, ``batch``, ``workers``, and the fields of
                :class:`~rtdetr.data.ReadOptions`; see :class:`~rtdetr.evaluation.options.ValOptions`.

        Raises:
            DataError: if something is wrong with the data, or they have no such split.
            ModelError: if the model has no class of the data, or prepares images in another way than training does.
            MissingExtraError: if faster-coco-eval is not installed.
            UsageError: if an option has a wrong value.
            TypeError: for an unknown option, with the nearest known one.
        """
        network = self._fast or self.model
        return evaluate_detector(network, self.processor, data, options)

    def to(
        self,
        device: str | int | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
    ) -> RTDETR:
        """Move to a device, or change the dtype; returns itself.

        Raises:
            UsageError: for an unknown device or dtype, or if the device is a CPU that has no float16 and the dtype is
                float16, or stays so.
            RTDetrError: if this machine does not have the device.
        """
        if isinstance(device, torch.dtype):
            device, dtype = None, device
        new_device = self.device if device is None else find_device(device)
        new_dtype = find_dtype(self.dtype if dtype is None else dtype, new_device)
        self.model.to(new_device, new_dtype)
        self.device, self.dtype = new_device, new_dtype
        return self.optimize() if self.is_optimized else self

    def optimize(self) -> RTDETR:
        """Run a copy of ``model`` from now on that is rewritten for inference (``rtdetr.optimize``); returns itself.

        Results change within rounding. ``model`` stays as it is, and is what ``save_pretrained`` writes; after changing
        its weights, call this again.
        """
        self._fast = optimize(self.model)
        return self

    @property
    def is_optimized(self) -> bool:
        return self._fast is not None

    def train(self, data: DataSource, **options: Any) -> TrainResult:
        """Train on a data set, beginning with this detector's weights; the detector itself stays as it is.

        Args:
            data: a folder or file of annotated images, or images from memory.
            **options: those of :class:`rtdetr.Trainer`.

        Returns:
            What the run has left; ``RTDETR(result.best)`` is the detector that it made.
        """
        with tempfile.TemporaryDirectory() as folder:
            start = Path(folder) / "start.safetensors"
            save_checkpoint(self.model, start, self.processor, dtype=torch.float32)
            own = {"device": str(self.device), "imgsz": self.imgsz or 640}
            options = {**own, **options, "model": self.title, "weights": start}
            return Trainer(data, **options).train()

    def save_pretrained(self, directory: str | Path) -> Path:
        """Write configuration, weights (in their dtype) and preprocessing into ``directory``, in Hugging Face form."""
        self.model.save_pretrained(directory, processor=self.processor)
        return Path(directory)


def _name_classes(config: RTDetrV2Config, names: Sequence[str] | Mapping[int, str]) -> None:
    if isinstance(names, str) or len(names) != config.num_labels:
        count = f"{len(names)} names" if not isinstance(names, str) else repr(names)
        raise UsageError(f"names: expected {config.num_labels}, one for each class, got {count}")
    config.id2label = dict(names) if isinstance(names, Mapping) else dict(enumerate(names))


def _readable(detections: Iterator[Detections | Unreadable]) -> Iterator[Detections]:
    for item in detections:
        if isinstance(item, Unreadable):
            hint = " (RTDETR.stream goes on past such a source)"
            raise DataError(f"{item.error}{hint}") from item.error
        yield item
