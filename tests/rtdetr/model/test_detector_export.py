# SPDX-License-Identifier: Apache-2.0
"""An exported detector finds what the detector finds, also in another batch and in images of another size."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from exporters import EXPORTERS, Run
from model_cases import image, numbers, partner_distance, tiny_model
from torch import Tensor, nn

from rtdetr import RTDetrV2ForObjectDetection
from rtdetr_ops import export_form

pytestmark = pytest.mark.filterwarnings(
    "ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning"
)

EXPORTED = (2, 96, 128)  # B, H, W
OTHERS = ((1, 96, 128), (3, 96, 128), (1, 160, 96))


class Detections(nn.Module):
    """The two outputs of a detector that a runtime needs."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        output = self.detector(*tensors)
        return output.logits, output.pred_boxes


def export(exporter: str, detector: nn.Module, shape: tuple[int, int, int] = EXPORTED) -> Run:
    batch, *size = shape
    inputs = {"pixel_values": image(*size, batch=batch)}
    with torch.no_grad():
        return EXPORTERS[exporter](Detections(detector).eval(), inputs, {"pixel_values": [0, 2, 3]})


def assert_same(run: Run, detector: nn.Module, *shapes: tuple[int, int, int]) -> None:
    for seed, (batch, *size) in enumerate(shapes, start=1):
        pixels = image(*size, batch=batch, seed=seed)
        logits, boxes = run({"pixel_values": pixels})
        with torch.inference_mode():
            expected = detector(pixels)
        assert logits.shape == expected.logits.shape
        for index in range(batch):
            rows = torch.cat([logits[index], boxes[index]], -1)
            # Scores of four decimals before the sigmoid; a query is found whatever its place among equals.
            assert partner_distance(rows, numbers(expected, index)).max() < 1e-5


KINDS: Mapping[str, tuple[str, dict[str, Any], bool]] = {
    "plain": ("gather", {"decoder_layers": 2}, False),
    "grid_sample": ("grid_sample", {"decoder_layers": 1}, False),
    "discrete": ("gather", {"decoder_layers": 1, "decoder_method": "discrete"}, False),
    "optimized": ("gather", {"decoder_layers": 1}, True),
}
FAST = {
    ("jit_trace", "grid_sample"),
    ("jit_trace", "optimized"),
    ("export", "discrete"),
    ("onnx_of_trace", "plain"),
    ("onnx_of_trace", "discrete"),
    ("openvino", "optimized"),
}


def each_in_two_kinds() -> Iterator[tuple[str, str]]:
    """Each exporter with two kinds, and each kind with three exporters or more."""
    kinds = list(KINDS)
    for index, exporter in enumerate(EXPORTERS):
        yield exporter, kinds[index % len(kinds)]
        yield exporter, kinds[(index + 2) % len(kinds)]


@pytest.mark.parametrize(
    ("exporter", "kind"),
    [
        pytest.param(*it, id="-".join(it), marks=() if it in FAST else pytest.mark.slow)
        for it in sorted(FAST | set(each_in_two_kinds()))
    ],
)
def test_other_batches_and_sizes(exporter: str, kind: str) -> None:
    form, changes, optimized = KINDS[kind]
    detector = tiny_model(**changes)
    detector = detector.optimize() if optimized else detector
    with export_form(form):
        run = export(exporter, detector)
    assert_same(run, detector, *OTHERS)


@pytest.mark.parametrize("exporter", ["jit_trace", "onnx_of_trace"])
@pytest.mark.parametrize("method", ["default", "one2many"])
def test_trace_of_a_small_image_serves_larger_ones(exporter: str, method: str) -> None:
    detector = tiny_model(decoder_layers=1, query_select_method=method)
    run = export(exporter, detector, (1, 32, 32))  # 21 pixels for 30 queries
    assert_same(run, detector, (2, 32, 32), (1, 96, 128))


@pytest.mark.parametrize(
    ("exporter", "message"),
    [
        ("jit_trace", "selected index k out of range"),
        pytest.param("export", "Guard failed", marks=pytest.mark.slow),
        ("onnx_of_trace", "k argument .* should not be greater"),
    ],
)
def test_smaller_image_than_the_queries_need_is_refused(exporter: str, message: str) -> None:
    run = export(exporter, tiny_model(decoder_layers=1))
    with pytest.raises(Exception, match=message):
        run({"pixel_values": image(32, 32)})


def test_trace_leaves_nothing_behind() -> None:
    detector = tiny_model(decoder_layers=1)
    export("jit_trace", detector)
    tables = (detector.model.anchors, detector.model.encoder.aifi[0].positions)
    assert [table.known for table in tables] == [{}, {}]


@pytest.mark.slow
def test_guide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    guide = Path(__file__).parents[3] / "docs" / "export.md"
    section = guide.read_text(encoding="utf-8").split("## The detector")[1]
    code = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert code is not None
    detector = tiny_model(decoder_layers=1)
    monkeypatch.setattr(RTDetrV2ForObjectDetection, "from_pretrained", lambda name: detector)
    monkeypatch.chdir(tmp_path)
    exec(code[1], {"__name__": "guide"})
    session = onnxruntime.InferenceSession(tmp_path / "rtdetr.onnx")

    def run(inputs: Mapping[str, Tensor]) -> list[Tensor]:
        feed = {"pixel_values": inputs["pixel_values"].numpy()}
        return [torch.from_numpy(it) for it in session.run(["logits", "pred_boxes"], feed)]

    assert_same(run, detector, (1, 640, 640), (3, 640, 640))
