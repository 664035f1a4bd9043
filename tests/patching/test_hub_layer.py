# SPDX-License-Identifier: Apache-2.0
"""The layer for the kernel slot of transformers, alone and through the ``kernels`` package where that is installed."""

import importlib

import pytest
import torch
from torch import nn

from rtdetr_ops.patching.hub_layer import InstalledLayer, MultiScaleDeformableAttention

SLOT = "MultiScaleDeformableAttention"
SHAPES = [(5, 7), (3, 2)]
FAMILIES = ["deformable_detr", "grounding_dino", "rt_detr"]


def original_class(family):
    module = importlib.import_module(f"transformers.models.{family}.modeling_{family}")
    return module.MultiScaleDeformableAttention


def inputs():
    torch.manual_seed(0)
    return {
        "value": torch.randn(2, 41, 4, 8, dtype=torch.float64, requires_grad=True),
        "value_spatial_shapes": torch.tensor(SHAPES),
        "value_spatial_shapes_list": SHAPES,
        "level_start_index": torch.tensor([0, 35]),
        "sampling_locations": (
            torch.rand(2, 6, 4, 2, 3, 2, dtype=torch.float64) * 1.4 - 0.2
        ).requires_grad_(),
        "attention_weights": torch.rand(2, 6, 4, 2, 3, dtype=torch.float64, requires_grad=True),
        "im2col_step": 64,
    }


def result_and_gradients(layer, tensors):
    result = layer(**tensors)
    leaves = [tensor for tensor in tensors.values() if getattr(tensor, "requires_grad", False)]
    return result, *torch.autograd.grad(result.square().sum(), leaves)


@pytest.mark.parametrize("family", FAMILIES)
def test_layer_equals_the_one_of_transformers(family):
    tensors = inputs()
    expected = result_and_gradients(original_class(family)(), tensors)
    assert len(expected) == 4
    result = result_and_gradients(MultiScaleDeformableAttention(), tensors)
    torch.testing.assert_close(result, expected)


def test_wrong_start_index_is_refused():
    tensors = {**inputs(), "level_start_index": torch.tensor([0, 34])}
    with pytest.raises(ValueError, match=r"level_start_index: expected \[0, 35\], .* got \[0, 34"):
        MultiScaleDeformableAttention()(**tensors)


def test_mapping_puts_the_layer_into_a_model():
    kernels = pytest.importorskip("kernels")

    class Slot(original_class("rt_detr")):
        """Marked as transformers marks it, whose own mark depends on the version of kernels."""

    kernels.replace_kernel_forward_from_hub(Slot, SLOT)
    model = nn.ModuleDict({"attn": Slot()})
    tensors = inputs()
    expected = result_and_gradients(model["attn"], tensors)
    with kernels.use_kernel_mapping({SLOT: {"cpu": InstalledLayer()}}):
        kernels.kernelize(
            model,
            mode=kernels.Mode.TRAINING | kernels.Mode.TORCH_COMPILE,
            device="cpu",
            use_fallback=False,
        )
    assert model["attn"].forward.__func__ is MultiScaleDeformableAttention.forward
    torch.testing.assert_close(result_and_gradients(model["attn"], tensors), expected)
