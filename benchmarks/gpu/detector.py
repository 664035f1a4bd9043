# SPDX-License-Identifier: Apache-2.0
"""RT-DETRv2 on the GPU: this detector and that of transformers, on the same weights and images.

Each is timed as its user waits for it: from the call until the boxes are there. Convolutions run as torch sets them
up by itself, in TF32 where the GPU has it.
"""

from __future__ import annotations

import argparse
import faulthandler
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from core.detections import Detector, as_detector, check_detections
from core.devices import Device, Limits, find_device
from torch import Tensor

from gpu.result_file import Key, Measurement, ResultFile
from rtdetr import RTDetrV2ForObjectDetection
from rtdetr.devices import full_float32
from rtdetr_ops.testing.models import make_rt_detr_v2

SUITE = "detector"

LIMITS = {False: Limits(1.0, 10, 100), True: Limits(0, 2, 2)}
"""Of one measurement, by whether it is a dry run."""

BATCHES = {False: (1, 8), True: (1,)}
SIDE = {False: 640, True: 128}
"""Of the square images, in pixels."""

HANGS = 200
"""Seconds after which a contender counts as hung, and this process ends."""


@dataclass(frozen=True)
class Contender:
    """One way to run the detector.

    Args:
        model: makes it.
        dtype: of the images.
        run: makes a function of the model, given images like those it will see.
        slow: whether it compiles for a minute first.
    """

    model: Callable[[], Any]
    dtype: torch.dtype = torch.float32
    run: Callable[[Any, Tensor], Detector] = lambda model, images: as_detector(model)
    slow: bool = False


class Models:
    """The same weights in both implementations, made when they are asked for."""

    def __init__(self, folder: Path, device: str) -> None:
        self._folder, self._device = folder, device
        make_rt_detr_v2().save_pretrained(folder)

    @cache  # noqa: B019  # lives as long as the process
    def ours(self) -> RTDetrV2ForObjectDetection:
        return RTDetrV2ForObjectDetection.from_pretrained(self._folder).to(self._device)

    @cache  # noqa: B019
    def optimized(self, dtype: torch.dtype) -> RTDetrV2ForObjectDetection:
        return self.ours().optimize(dtype=dtype)

    @cache  # noqa: B019
    def theirs(self, dtype: torch.dtype) -> Any:
        return make_rt_detr_v2().to(self._device, dtype)


def contenders(models: Models, backend: str, dry_run: bool) -> dict[str, Contender]:
    """By name; ``backend`` is of torch.compile. A dry run has those that a CPU runs quickly."""
    single, half = torch.float32, torch.bfloat16
    optimized = {dtype: partial(models.optimized, dtype) for dtype in (single, half)}
    theirs = {dtype: partial(models.theirs, dtype) for dtype in (single, half)}
    compiled = partial(_compiled, backend)
    found = {
        "rtdetr optimized, CUDA graph": Contender(optimized[single], run=_replayed),
        "rtdetr optimized bfloat16, CUDA graph": Contender(optimized[half], half, _replayed),
        "rtdetr eager": Contender(models.ours),
        "rtdetr optimized": Contender(optimized[single]),
        "rtdetr optimized bfloat16": Contender(optimized[half], half),
        "transformers eager": Contender(theirs[single]),
        "transformers bfloat16": Contender(theirs[half], half),
        "transformers, CUDA graph": Contender(theirs[single], run=_replayed),
        "rtdetr optimized bfloat16, compiled": Contender(optimized[half], half, compiled, True),
        "transformers bfloat16, compiled": Contender(theirs[half], half, compiled, True),
    }
    quick = (
        name
        for name, contender in found.items()
        if contender.dtype == single and not contender.slow
    )
    return {name: found[name] for name in quick} if dry_run else found


def _compiled(backend: str, model: Any, images: Tensor) -> Detector:
    return as_detector(torch.compile(model, backend=backend))


def _replayed(model: Any, images: Tensor) -> Detector:
    """From a CUDA graph; the images are copied into its own."""
    if images.device.type != "cuda":  # a dry run
        return as_detector(model)
    held, run = images.clone(), as_detector(model)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):  # what is done lazily on first calls must not be captured
            run(held)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = run(held)

    def replay(fresh: Tensor) -> tuple[Tensor, Tensor]:
        held.copy_(fresh)
        graph.replay()
        return outputs

    return replay


def main() -> None:
    """Measure what the file does not have yet."""
    options = _options()
    deadline = time.monotonic() + options.seconds
    device, result_file = find_device(options.dry_run), ResultFile(options.json)
    with tempfile.TemporaryDirectory() as folder:
        models = Models(Path(folder), device.type)
        candidates = contenders(models, device.compiler, options.dry_run)
        result_file.add_versions(dict.fromkeys(candidates, "this repository, transformers"))
        for batch, name in _order(candidates, BATCHES[options.dry_run]):
            side = SIDE[options.dry_run]
            key = Key(SUITE, f"RT-DETRv2 R18 {side}x{side}, batch {batch}", name)
            if result_file.has(key):
                continue
            if time.monotonic() > deadline:
                result_file.leave_out([key])
                continue
            faulthandler.dump_traceback_later(HANGS, exit=True)
            result_file.begin([key])
            measure = partial(_measure, name, candidates[name], models, device)
            result_file.attempt(
                key, partial(measure, _images(batch, side), LIMITS[options.dry_run])
            )
            device.synchronize()  # raises, and so ends this process, where the device is lost
            faulthandler.cancel_dump_traceback_later()


def _order(candidates: dict[str, Contender], batches: tuple[int, ...]) -> Iterator[tuple[int, str]]:
    """What starts quickly first."""
    for slow in (False, True):
        for batch in batches:
            yield from (
                (batch, name) for name, contender in candidates.items() if contender.slow == slow
            )


def _images(batch: int, side: int) -> Tensor:
    return torch.rand((batch, 3, side, side), generator=torch.Generator().manual_seed(0))


def _measure(
    name: str, contender: Contender, models: Models, device: Device, images: Tensor, limits: Limits
) -> Measurement:
    model, images = contender.model(), images.to(device.type)
    _check_exactly(name, model, contender, models, images)
    fresh = images.to(contender.dtype)
    run = contender.run(model, fresh)
    truth = as_detector(models.theirs(torch.float32))(images)
    difference = check_detections(name, truth, run(fresh), exact=False)
    seconds = device.time_host(lambda: run(fresh), 1, limits)
    return seconds, {"max_difference": difference}


def _check_exactly(
    name: str, model: Any, contender: Contender, models: Models, images: Tensor
) -> None:
    """In float32 throughout every detection is found again."""
    if contender.dtype != torch.float32:
        return
    with full_float32():
        truth = as_detector(models.theirs(torch.float32))(images)
        check_detections(name, truth, as_detector(model)(images), exact=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True, help="the result file, begun already")
    parser.add_argument(
        "--seconds", type=float, required=True, help="when to start no more contenders"
    )
    parser.add_argument("--dry-run", action="store_true", help="small images on the CPU")
    return parser.parse_args()


if __name__ == "__main__":
    main()
