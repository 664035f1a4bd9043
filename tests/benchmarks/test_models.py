# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from suites.end_to_end import AGREEMENT

from rtdetr_ops.testing.models import MODELS

pytestmark = pytest.mark.slow
pytest.importorskip("transformers", reason="the models are those of transformers")


def detect(model):
    image = torch.randn((1, 3, 128, 128), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        outputs = model(image)
    return outputs.logits, outputs.pred_boxes


@pytest.mark.parametrize("name", MODELS)
def test_same_seed_same_detections(name):
    for one, other in zip(detect(MODELS[name]()), detect(MODELS[name]()), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", MODELS)
def test_scores_and_boxes_show_what_the_attention_samples(name):
    model = MODELS[name]()
    before = detect(model)
    layers = [
        layer
        for layer in model.modules()
        if type(layer).__name__.endswith("MultiscaleDeformableAttention")
    ]
    assert layers
    with torch.no_grad():
        for layer in layers:
            layer.sampling_offsets.bias.add_(1.0)
    for one, other in zip(before, detect(model), strict=True):
        assert (one - other).abs().max() > 5 * AGREEMENT
