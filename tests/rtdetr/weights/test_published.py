# SPDX-License-Identifier: Apache-2.0
"""The published weights find in an image of COCO what their authors print; skipped where the hub is out of reach."""

from __future__ import annotations

import socket

import pytest
import torch
from PIL import Image

from rtdetr import RTDetrImageProcessor, RTDetrV2ForObjectDetection
from rtdetr.images.io import load_image

HUB = "huggingface.co"
CATS = "http://images.cocodataset.org/val2017/000000039769.jpg"

PUBLISHED = {
    "PekingU/rtdetr_v2_r18vd": (
        [[-3.7045, -5.1913, -6.1787], [-4.0106, -9.3450, -5.2043], [-4.1287, -4.7463, -5.8634]],
        [[0.2582, 0.5497, 0.4764], [0.1684, 0.1985, 0.2120], [0.7665, 0.4146, 0.4669]],
    ),
    "PekingU/rtdetr_v2_r34vd": (
        [[-4.6108, -5.9453, -3.8505], [-3.8702, -6.1136, -5.5677], [-3.7790, -6.4538, -5.9449]],
        [[0.1691, 0.1984, 0.2118], [0.2594, 0.5506, 0.4736], [0.7669, 0.4136, 0.4654]],
    ),
    "PekingU/rtdetr_v2_r50vd": (
        [[-4.7881, -4.6754, -6.1624], [-5.4441, -6.6486, -4.3840], [-3.5455, -4.9318, -6.3544]],
        [[0.2588, 0.5487, 0.4747], [0.5497, 0.2760, 0.0573], [0.7688, 0.4133, 0.4634]],
    ),
    "PekingU/rtdetr_v2_r101vd": (
        [[-4.6162, -4.9189, -4.6656], [-4.4701, -4.4997, -4.9659], [-5.6641, -7.9000, -5.0725]],
        [[0.7707, 0.4124, 0.4585], [0.2589, 0.5492, 0.4735], [0.1688, 0.1993, 0.2108]],
    ),
}
"""Repository -> logits and boxes of its first three queries, three numbers of each, as transformers prints them."""

RESIZED_ELSEWHERE = 1e-2
"""Of a logit: what a library that rounds pixels otherwise while it resizes may change."""


def is_reachable(host: str) -> bool:
    try:
        socket.create_connection((host, 443), timeout=5).close()
    except OSError:
        return False
    return True


pytestmark = [pytest.mark.slow, pytest.mark.network]


@pytest.fixture(scope="module")
def cats() -> Image.Image:
    if not is_reachable(HUB):
        pytest.skip(f"no network: {HUB} does not answer")
    return load_image(CATS).image


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_weights_find_what_is_printed(name: str, cats: Image.Image) -> None:
    logits, boxes = (torch.tensor(numbers) for numbers in PUBLISHED[name])
    processor = RTDetrImageProcessor.from_pretrained(name)
    model = RTDetrV2ForObjectDetection.from_pretrained(name).eval()
    with torch.inference_mode():
        outputs = model(**processor(images=cats, return_tensors="pt"))
    torch.testing.assert_close(outputs.pred_boxes[0, :3, :3], boxes, atol=1e-3, rtol=0)
    torch.testing.assert_close(outputs.logits[0, :3, :3], logits, atol=RESIZED_ELSEWHERE, rtol=0)


def test_usual_snippet_prints_the_cats(cats: Image.Image) -> None:
    name = "PekingU/rtdetr_v2_r18vd"
    processor = RTDetrImageProcessor.from_pretrained(name)
    model = RTDetrV2ForObjectDetection.from_pretrained(name)
    with torch.no_grad():
        outputs = model(**processor(images=cats, return_tensors="pt"))
    (outputs,) = processor.post_process_object_detection(
        outputs, target_sizes=torch.tensor([(cats.height, cats.width)]), threshold=0.0
    )
    best = outputs["scores"].topk(4).indices
    expected = torch.tensor(
        [
            [341.14, 25.11, 639.98, 372.89],
            [12.78, 56.35, 317.67, 471.34],
            [39.96, 73.12, 175.65, 117.44],
            [-0.105, 2.97, 639.89, 473.62],
        ]
    )
    scores = torch.tensor([0.9652, 0.9599, 0.9462, 0.8613])
    torch.testing.assert_close(outputs["scores"][best], scores, atol=1e-3, rtol=0)
    torch.testing.assert_close(outputs["boxes"][best], expected, atol=0.5, rtol=0)
    assert [model.config.id2label[int(label)] for label in outputs["labels"][best]] == [
        "cat",
        "cat",
        "remote",
        "couch",
    ]
