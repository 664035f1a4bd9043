# SPDX-License-Identifier: Apache-2.0
"""The patched attention of each family of transformers, exported at one batch and run at others."""

from collections.abc import Iterator

import pytest
import torch
from exporters import EXPORTERS
from torch import nn

pytest.importorskip("transformers")
from test_transformers import LAYERS, build

from rtdetr_ops.patching import patch

pytestmark = pytest.mark.filterwarnings(
    "ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning", "ignore::FutureWarning"
)

FAST = {
    ("deformable_detr", "onnx_of_trace"),
    ("grounding_dino", "jit_trace"),
    ("mask2former", "onnx_of_trace"),
    ("rt_detr_v2", "export"),
    ("d_fine", "onnx_of_trace"),
}


def each_with_two_exporters() -> Iterator[tuple[str, str]]:
    """Families differ in how their layer is called, exporters in how they trace: each of both, in turn."""
    # transformers' layers compare level sizes by an operator that torch.onnx.export(dynamo=True) cannot translate.
    exporters = [name for name in EXPORTERS if name != "onnx"]
    for index, name in enumerate(LAYERS):
        yield name, exporters[index % len(exporters)]
        yield name, exporters[(index + len(exporters) // 2) % len(exporters)]


def first_call(model, inputs):
    """The first layer of deformable attention, and the keywords that its model calls it with."""
    calls = []
    layers = [layer for layer in model.modules() if hasattr(layer, "sampling_offsets")]
    for layer in layers:
        layer.register_forward_pre_hook(
            lambda layer, arguments, keywords: calls.append((layer, arguments, keywords)),
            with_kwargs=True,
        )
    model(**inputs)
    for layer in layers:
        layer._forward_pre_hooks.clear()
    layer, arguments, keywords = calls[0]
    assert not arguments
    return layer, keywords


class FirstOutput(nn.Module):
    """The layer as a function of those keywords that have a batch; the others are part of the model."""

    def __init__(self, layer, keywords):
        super().__init__()
        self.layer = layer
        self.named = {
            name: value.detach()
            for name, value in keywords.items()
            if isinstance(value, torch.Tensor) and (value.is_floating_point() or value.dim() == 2)
            if name not in ("spatial_shapes", "encoder_attention_mask")  # the second is not read
        }
        self.constants = {name: it for name, it in keywords.items() if name not in self.named}

    def inputs(self, batch):
        """The captured images in another number and order, so that each has numbers of its own."""
        return {
            name: tensor[torch.arange(batch, 0, -1) % len(tensor)]
            for name, tensor in self.named.items()
        }

    def forward(self, *tensors):
        output = self.layer(**dict(zip(self.named, tensors, strict=True)), **self.constants)
        return output if isinstance(output, torch.Tensor) else output[0]


@pytest.mark.parametrize(
    ("name", "exporter"),
    [
        pytest.param(*it, id="-".join(it), marks=() if it in FAST else pytest.mark.slow)
        for it in sorted(FAST | set(each_with_two_exporters()))
    ],
)
def test_patched_layer(name, exporter):
    model, inputs = build(name)
    patch(model.requires_grad_(False))
    model = FirstOutput(*first_call(model, inputs)).eval()
    run = EXPORTERS[exporter](model, model.inputs(2), {key: [0] for key in model.named})
    for batch in (1, 3):
        inputs = model.inputs(batch)
        torch.testing.assert_close(run(inputs), [model(*inputs.values())], rtol=1e-5, atol=1e-5)
