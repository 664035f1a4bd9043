# SPDX-License-Identifier: Apache-2.0
"""Patched layers compute the same in an exported graph, also for another batch and other level sizes."""

import foreign_layers as foreign
import pytest
import torch
from exporters import EXPORTERS
from torch import nn

from rtdetr_ops.patching import patch

pytestmark = pytest.mark.filterwarnings(
    "ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning"
)

EXPORTED = (2, ((5, 7), (3, 2)))  # batch, levels
OTHERS = ((3, ((5, 7), (3, 2))), (1, ((7, 5), (2, 3))), (3, ((4, 4), (2, 5))))


def pixels_of(levels):
    return sum(height * width for height, width in levels)


def tokens(batch, levels, last=2):
    return {
        "query": torch.randn(batch, 6, 32),
        "reference": torch.rand(batch, 6, 2, last) * 1.4 - 0.2,
        "memory": torch.randn(batch, pixels_of(levels), 32),
    }


class Called(nn.Module):
    """A patched layer under the names of ``tokens``, with the levels in a tensor that is an input."""

    last = 2
    fixed_levels = False

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def inputs(self, batch, levels):
        named = tokens(batch, levels, self.last)
        return named if self.fixed_levels else {**named, "levels": torch.tensor(levels)}

    def axes(self):
        return {"query": [0], "reference": [0], "memory": [0] if self.fixed_levels else [0, 1]}


class DeformableDetr(Called):
    def forward(self, *tensors):
        query, reference, memory, levels = tensors
        area = levels.prod(1)
        return self.layer(query, reference, memory, levels, area.cumsum(0) - area)


class DeformableDetrBoxes(DeformableDetr):
    last = 4


class Padded(DeformableDetr):
    def inputs(self, batch, levels):
        named = super().inputs(batch, levels)
        return {**named, "padding": torch.rand(batch, pixels_of(levels)) < 0.3}

    def axes(self):
        return {**super().axes(), "padding": [0, 1]}

    def forward(self, *tensors):
        query, reference, memory, levels, padding = tensors
        area = levels.prod(1)
        return self.layer(query, reference, memory, levels, area.cumsum(0) - area, padding)


class Mmcv(Called):
    """Queries first."""

    def forward(self, *tensors):
        query, reference, memory, levels = tensors
        return self.layer(
            query.transpose(0, 1),
            value=memory.transpose(0, 1),
            reference_points=reference,
            spatial_shapes=levels,
        )


class RFDetr(Called):
    def forward(self, *tensors):
        return self.layer(*tensors)


class StoredCore(Called):
    """RT-DETR and its kin have the levels as integers."""

    last = 4
    fixed_levels = True

    def forward(self, *tensors):
        query, reference, memory = tensors
        return self.layer(query, reference[:, :, :1], memory, [list(it) for it in EXPORTED[1]])


CASES = {
    "deformable_detr": (DeformableDetr, foreign.MSDeformAttn),
    "deformable_detr_boxes": (DeformableDetrBoxes, foreign.MSDeformAttn),
    "deformable_detr_padding": (Padded, foreign.MSDeformAttn),
    "dino": (DeformableDetrBoxes, lambda: foreign.MSDeformAttn(use_4D_normalizer=True)),
    "mmcv": (
        Mmcv,
        lambda: foreign.MultiScaleDeformableAttention(embed_dims=32, norm_cfg=None, init_cfg=None),
    ),
    "detrex": (Mmcv, lambda: foreign.MultiScaleDeformableAttention(embed_dim=32)),
    "bevformer": (DeformableDetr, foreign.MSDeformableAttention3D),
    "rf_detr": (RFDetr, foreign.RFDetrAttention),
    "rt_detr": (StoredCore, foreign.SquareAttention),
    "rt_detr_v2": (StoredCore, foreign.MSDeformableAttention),
    "rt_detr_v2_discrete": (StoredCore, lambda: foreign.MSDeformableAttention(method="discrete")),
    "d_fine": (StoredCore, lambda: foreign.MSDeformableAttention((3, 6), per_level=True)),
}
QUICK = ("jit_trace", "onnx_of_trace")


@pytest.mark.parametrize(
    "exporter",
    [pytest.param(it, marks=() if it in QUICK else pytest.mark.slow) for it in EXPORTERS],
)
@pytest.mark.parametrize("name", CASES)
def test_patched_layer(name, exporter):
    caller, build = CASES[name]
    torch.manual_seed(0)
    model = caller(build()).eval().requires_grad_(False)
    assert patch(model).patched == 1
    run = EXPORTERS[exporter](model, model.inputs(*EXPORTED), model.axes())
    for batch, levels in OTHERS:
        inputs = model.inputs(batch, EXPORTED[1] if model.fixed_levels else levels)
        torch.testing.assert_close(run(inputs), [model(*inputs.values())], rtol=1e-5, atol=1e-5)
