# SPDX-License-Identifier: Apache-2.0
"""``rtdetr benchmark``: how long a model takes on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .arguments import AsJson, Device, Dtype, Model, parse_imgsz
from .console import attention_backend, describe, say, say_json

if TYPE_CHECKING:
    from ..detector import RTDETR

NAME = "benchmark"


def command(
    model: Model = "rtdetrv2_r18vd",
    imgsz: Annotated[
        str | None, typer.Option(help="640, or height,width.", show_default="the model's")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Images per run.")] = 1,
    iters: Annotated[int, typer.Option(min=2, help="Runs that are timed.")] = 30,
    warmup: Annotated[int, typer.Option(min=0, help="Runs before, which are not.")] = 5,
    e2e: Annotated[
        bool,
        typer.Option(
            "--e2e/--model-only",
            help="From an array in memory to detections, or the network alone.",
        ),
    ] = False,
    optimize: Annotated[
        bool, typer.Option("--optimize", help="Fold normalizations and merge layers first.")
    ] = False,
    device: Device = "auto",
    dtype: Dtype = "auto",
    as_json: AsJson = False,
) -> None:
    """Time a model: median and 95th percentile of a run, and what ran it.

    A published model gets random weights, which take as long as trained ones and need no download.
    """
    from ..config.presets import Preset
    from ..detector import RTDETR
    from ..hub import HubOptions
    from ..weights.locate import locate

    size = parse_imgsz(imgsz)
    weights = None if isinstance(locate(model, HubOptions()), Preset) else "auto"
    detector = RTDETR(model, weights=weights, device=device, dtype=dtype)
    if optimize:
        detector.optimize()
    run = _end_to_end(detector, batch, size) if e2e else _network(detector, batch, size)
    times = measure(run, detector.device.type, warmup, iters)
    report = _report(detector, times, batch, size, e2e)
    if as_json:
        say_json(report)
        return
    say(describe(detector))
    scope = "from array to detections" if e2e else "network alone"
    scope += ", optimized" if optimize else ""
    say(f"batch {batch}, {scope}, {iters} runs after {warmup}, torch {report['torch']}")
    say(
        f"p50 {report['p50_ms']:.2f} ms   p95 {report['p95_ms']:.2f} ms   {report['images_per_s']:.1f} images/s"
    )


def measure(run: Callable[[], Any], device: str, warmup: int, iters: int) -> list[float]:
    """Milliseconds of each run, with the device's queue emptied before and after."""
    import torch

    wait = {"cuda": torch.cuda.synchronize, "mps": torch.mps.synchronize}.get(device, lambda: None)
    times = []
    for index in range(warmup + iters):
        wait()
        start = time.perf_counter()
        run()
        wait()
        if index >= warmup:
            times.append((time.perf_counter() - start) * 1000)
    return times


def _network(detector: RTDETR, batch: int, size: Any) -> Callable[[], Any]:
    pixels = detector.prepare([_image()] * batch, size).to(detector.dtype)
    return lambda: detector.forward(pixels)


def _end_to_end(detector: RTDETR, batch: int, size: Any) -> Callable[[], Any]:
    images = [_image()] * batch
    return lambda: detector(images, batch=batch, imgsz=size)


def _image() -> Any:
    import numpy as np
    from PIL import Image

    noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    return Image.fromarray(noise)


def _report(
    detector: RTDETR, times: list[float], batch: int, size: Any, e2e: bool
) -> dict[str, Any]:
    import numpy as np
    import torch

    from ..devices import describe_device

    p50, p95 = (float(value) for value in np.percentile(times, (50, 95)))
    return {
        "model": detector.title,
        "device": describe_device(detector.device),
        "dtype": str(detector.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "attention": attention_backend(detector),
        "imgsz": list(detector.prepare([_image()], size).shape[2:]),
        "batch": batch,
        "e2e": e2e,
        "optimized": detector.is_optimized,
        "iters": len(times),
        "p50_ms": round(p50, 3),
        "p95_ms": round(p95, 3),
        "images_per_s": round(batch * 1000 / p50, 2),
    }
