# SPDX-License-Identifier: Apache-2.0
"""Run detectors of transformers on a photo, unpatched and patched; then this project's own, by its command.

Usage: ``python examples/demo.py [PHOTO]``. Without a photo, scikit-learn's picture of a temple. Nothing is downloaded:
weights are random.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy
import torch
from PIL import Image
from torch import Tensor, nn

import rtdetr_ops
from rtdetr_ops.testing.models import MODELS

SIDE = 640
ROUNDS = 5
SHOWN = 10
CONF = 0.038
"""Of what random weights find some few queries score higher; trained ones deserve 0.5."""
OUT = Path("build") / "demo"
AGREEMENT = 1e-4
"""Scores and boxes (in 0..1 over the photo) closer than this count as the same."""


def main() -> None:
    """Print what happens to each detector."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photo", nargs="?", type=Path, help="any picture file")
    photo = parser.parse_args().photo or sample_photo()
    if not photo.is_file():
        parser.error(f"photo: no file {photo}")
    picture = Image.open(photo).convert("RGB")
    print(f"Photo: {picture.width} x {picture.height}, resized to {SIDE} x {SIDE}.")
    print(f"{torch.get_num_threads()} CPU threads, batch 1.")
    print("The weights are random (fixed seed, nothing is downloaded): the boxes mean nothing,")
    print("the shapes and the arithmetic are those of the trained detectors.")
    for name, make_model in MODELS.items():
        print(f"\n{name}")
        show(make_model(), to_tensor(picture))
    predict(photo)


def sample_photo() -> Path:
    """A picture that scikit-learn ships."""
    import sklearn.datasets

    return Path(sklearn.datasets.__file__).parent / "images" / "china.jpg"


def predict(photo: Path) -> None:
    """Have the command ``rtdetr`` draw what it finds."""
    arguments = ["predict", str(photo), "--random-weights", f"--conf={CONF}"]
    arguments += [f"--out={OUT}", "--overwrite"]
    print(f"\n$ rtdetr {shlex.join(arguments)}", flush=True)
    subprocess.run([sys.executable, "-m", "rtdetr", *arguments], check=True)
    print(f"Look at {OUT / photo.name}. Without --random-weights it loads trained ones.")


def to_tensor(picture: Image.Image) -> Tensor:
    """[1, 3, 640, 640], 0..1."""
    pixels = numpy.asarray(picture.resize((SIDE, SIDE)), dtype=numpy.float32) / 255
    return torch.from_numpy(pixels).permute(2, 0, 1)[None]


class Detection(NamedTuple):
    """One pass of a detector over the photo."""

    scores: Tensor  # [Q, N], 0..1
    boxes: Tensor  # [Q, 4], (cx, cy, w, h) in 0..1 over the photo
    seconds: float
    attention_seconds: float


def show(model: nn.Module, image: Tensor) -> None:
    """Run ``model`` both ways in turns, compare, print."""
    layers = attention_layers(model)  # before patching, which changes their classes
    plain, patched = [], []
    for _ in range(ROUNDS + 1):
        plain.append(detect(model, layers, image))
        report = rtdetr_ops.patch(model)
        patched.append(detect(model, layers, image))
        rtdetr_ops.unpatch(model)
    print("  " + str(report).replace("\n", "\n  "))
    print_times(plain[1:], patched[1:])  # the first pass warms up
    compare(plain[0], patched[0])


def attention_layers(model: nn.Module) -> list[nn.Module]:
    """The layers that hold the operator and the projections before and after it."""
    suffix = "MultiscaleDeformableAttention"
    return [layer for layer in model.modules() if type(layer).__name__.endswith(suffix)]


def detect(model: nn.Module, layers: list[nn.Module], image: Tensor) -> Detection:
    """One pass, timed as a whole and in the attention of ``layers``."""
    with torch.inference_mode(), stopwatch(layers) as spent:
        start = time.perf_counter()
        out = model(image)
        seconds = time.perf_counter() - start
    return Detection(out.logits[0].sigmoid(), out.pred_boxes[0], seconds, sum(spent))


@contextmanager
def stopwatch(layers: list[nn.Module]) -> Iterator[list[float]]:
    """Collect the seconds spent in ``layers``, less those in their projections."""
    started: list[float] = []
    spent: list[float] = []

    def start(*_: object) -> None:
        started.append(time.perf_counter())

    def stop(layer: nn.Module, *_: object) -> None:
        seconds = time.perf_counter() - started.pop()
        spent.append(-seconds if isinstance(layer, nn.Linear) else seconds)

    with ExitStack() as hooks:
        for layer in layers:
            projections = (child for child in layer.children() if isinstance(child, nn.Linear))
            for watched in (layer, *projections):
                hooks.enter_context(watched.register_forward_pre_hook(start))
                hooks.enter_context(watched.register_forward_hook(stop))
        yield spent


def print_times(plain: list[Detection], patched: list[Detection]) -> None:
    """Medians, and what patching gained; the attention without its projections."""
    whole, attention = [], []
    for label, passes in (("unpatched", plain), ("patched", patched)):
        whole.append(median(one.seconds for one in passes))
        attention.append(median(one.attention_seconds for one in passes))
        print(
            f"  {label:<12}{whole[-1] * 1e3:7.0f} ms, "
            f"of which deformable attention {attention[-1] * 1e3:.1f} ms"
        )
    print(
        f"  Deformable attention {attention[0] / attention[1]:.1f} times faster, "
        f"the whole detector {whole[0] / whole[1]:.2f} times."
    )


def compare(plain: Detection, patched: Detection) -> None:
    """Print the largest differences, of all detections and of the best; stop on a real one."""
    scores, boxes = (plain.scores - patched.scores).abs(), (plain.boxes - patched.boxes).abs()
    worst = max(scores.max().item(), boxes.max().item())
    if not worst <= AGREEMENT:
        raise SystemExit(f"  The detections differ by {worst:.1e}.")
    best = plain.scores.amax(1).topk(SHOWN).indices
    print(
        f"  The detections agree: the best {SHOWN} within {scores[best].max():.0e} in score and "
        f"{boxes[best].max():.0e} in position, all {len(boxes)} within {worst:.0e}."
    )


if __name__ == "__main__":
    main()
