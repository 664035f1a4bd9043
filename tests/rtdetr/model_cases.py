# SPDX-License-Identifier: Apache-2.0
"""Small detectors whose outputs depend on all of their weights, and weights made from names."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import numpy
import torch
from torch import Tensor

from rtdetr.config import ResNetConfig, RTDetrV2Config
from rtdetr.model import RTDetrV2ForObjectDetection
from rtdetr.weights.names import from_module_names, to_module_names

TINY: Mapping[str, Any] = {
    "freeze_backbone_batch_norms": False,
    "encoder_in_channels": (16, 24, 32),
    "encoder_hidden_dim": 32,
    "encoder_ffn_dim": 48,
    "encoder_attention_heads": 4,
    "hidden_expansion": 0.5,
    "decoder_in_channels": (32, 32, 32),
    "d_model": 64,
    "decoder_ffn_dim": 48,
    "decoder_layers": 3,
    "num_queries": 30,
    "num_labels": 5,
}


def tiny_config(**changes: Any) -> RTDetrV2Config:
    backbone = ResNetConfig(
        layer_type="basic", depths=(1, 1, 1, 1), hidden_sizes=(8, 16, 24, 32), embedding_size=8
    )
    return RTDetrV2Config(backbone_config=backbone, **{**TINY, **changes})


def tiny_model(**changes: Any) -> RTDetrV2ForObjectDetection:
    """In evaluation mode, with the same weights for the same configuration."""
    return awake(RTDetrV2ForObjectDetection(tiny_config(**changes)).eval())


def awake(model: RTDetrV2ForObjectDetection) -> RTDetrV2ForObjectDetection:
    made = original_weights(from_module_names(model.state_dict(), "original"))
    model.load_state_dict(to_module_names(made)[0], strict=False)
    return model


def original_weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights for the names and shapes of a state dict of the original, by the rules of the stored results."""
    return {name: _made(name, tensor) for name, tensor in state.items()}


def _made(name: str, like: Tensor) -> Tensor:
    if name.endswith(("num_batches_tracked", "num_points_scale")):
        return like
    random = numpy.random.default_rng(zlib.crc32(name.encode()))
    z = torch.from_numpy(random.standard_normal(tuple(like.shape)).astype(numpy.float32))
    is_score = "score_head" in name
    if name.endswith("running_var"):
        return 1 + 0.1 * z.abs()
    if name.endswith("running_mean"):
        return 0.05 * z
    if name.endswith("sampling_offsets.bias"):
        return 2 * z
    if name.endswith("bias"):
        return -3 + 0.5 * z if is_score else 0.05 * z
    if z.dim() == 1:
        return 1 + 0.05 * z
    fan = 1 if "denoising" in name else z[0].numel()
    return z * (2 if is_score else 1) / fan**0.5


def image(*size: int, batch: int = 1, seed: int = 0) -> Tensor:
    return torch.rand(batch, 3, *size, generator=torch.Generator().manual_seed(seed))


def partner_distance(found: Tensor, expected: Tensor) -> Tensor:
    """For each row of ``found`` [Q, X] its distance to the nearest of ``expected``: near-equal scores change order."""
    return torch.stack([(expected - query).abs().amax(-1).min() for query in found])


def numbers(outputs: Any, index: int = 0) -> Tensor:
    """Scores and boxes of one image side by side, [Q, K + 4]."""
    return torch.cat([outputs.logits[index], outputs.pred_boxes[index]], -1)
