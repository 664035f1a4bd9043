# SPDX-License-Identifier: Apache-2.0
"""Which model a file without a configuration holds, from the names and shapes of its weights."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from ..coco import COCO_NAMES
from ..config import RTDetrV2Config
from ..config.backbones import BackboneConfig, HGNetV2Config, ResNetConfig
from ..config.presets import PRESETS
from ..errors import ModelError
from .report import shortened

__all__ = ["check_family", "recognize"]

SUPPORTED = "Supported: RT-DETR v1/v2 (lyuwenyu, HF, ours)."

# Names, or the class of a pickled object, that only that family has. The first that fits counts.
FAMILIES = (
    ("D-FINE", r"(model\.)?decoder\.(integral|pre_bbox_head|reg_scale|(decoder\.)?lqe_layers)\b.*"),
    ("RF-DETR", r"(transformer\.enc_out_bbox_embed|backbone\.0\.encoder\.encoder)\..*"),
    ("Grounding DINO", r"(model\.)?(transformer\.text_.*|text_backbone\..*|bert\..*)"),
    ("Deformable DETR", r"(model\.|transformer\.)level_embed"),
    ("DETR", r"(model\.)?(query_embed|query_position_embeddings)\.weight"),
    ("YOLO", r"(model\.)?model\.\d+\..*|.*ultralytics\..*"),
    ("torchvision's detectors", r"(rpn|roi_heads)\..*"),
)

HEADS = 8
"""Of all published models."""

BACKBONE = "model.backbone.model."
STAGES = f"{BACKBONE}encoder.stages."


def check_family(
    title: str, state: Mapping[str, Tensor], unknown: Iterable[str], holds: str
) -> None:
    """Refuse the weights of another kind of model.

    Args:
        title: the file, for the message.
        state: what was recognized, under the names of our modules.
        unknown: names that were not.
        holds: what the file holds beside tensors.

    Raises:
        ModelError: it is another model.
    """
    unknown = list(unknown)
    for family, pattern in FAMILIES:
        telling = [
            name for name in (*unknown, *holds.split(", ")) if re.search(f"^{pattern}$", name)
        ]
        if telling:
            raise ModelError(
                f"{title} looks like {family} (keys {shortened(telling)}). {SUPPORTED}"
            )
    if any(name.startswith("model.decoder.layers.") for name in state):
        return
    if unknown or state:
        names = shortened([*unknown, *state])
        raise ModelError(f"{title} is no detector known here (keys {names}). {SUPPORTED}")
    raise ModelError(f"{title} holds no weights ({holds or 'it is empty'}). {SUPPORTED}")


def recognize(state: Mapping[str, Tensor]) -> RTDetrV2Config:
    """The configuration of weights under the names of our modules.

    Where all of it agrees with a published model, what shapes do not show (the layer that evaluation returns, what is
    frozen) is taken from that one. Sampling is taken to be bilinear, and there to be as many queries as all published
    models have, unless they are learned. Heads are counted in the decoder, and taken to be as many in the encoder;
    where nothing shows them they are 8.

    Raises:
        ModelError: the weights do not make up a model.
    """
    try:
        shape = Shapes(state).fields()
        labels = _labels(state["model.decoder.class_embed.0.weight"].shape[0])
    except (KeyError, IndexError, ValueError, TypeError, ArithmeticError) as error:
        raise ModelError(f"not a whole RT-DETR: {error} is missing or of a wrong shape") from error
    variable: dict[str, Any] = {
        "decoder_n_points": shape.pop("decoder_n_points"),
        "id2label": labels,
    }
    for name in ("num_denoising", "query_select_method", "learn_initial_query"):
        variable[name] = shape.pop(name)
    if variable["learn_initial_query"]:
        variable["num_queries"] = len(state["model.weight_embedding.weight"])
    for preset in PRESETS.values():
        known = RTDetrV2Config.from_preset(preset)
        if all(getattr(known, name) == value for name, value in shape.items()):
            return known.replace(**variable)
    frozen = not any(n.startswith(BACKBONE) and n.endswith("num_batches_tracked") for n in state)
    freezing: dict[str, Any] = {
        "freeze_backbone_batch_norms": frozen,
        "freeze_at": 0 if frozen else -1,
    }
    return RTDetrV2Config(**shape, **variable, **freezing)


class Shapes:
    """Fields of a configuration that can be read off."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        self.state = state

    def size(self, name: str, axis: int = 0) -> int:
        return self.state[f"{name}.weight"].shape[axis]

    def count(self, prefix: str) -> int:
        """How many numbers follow ``prefix``."""
        matches = (re.match(rf"{re.escape(prefix)}(\d+)\.", name) for name in self.state)
        return len({match[1] for match in matches if match})

    def fields(self) -> dict[str, Any]:
        maps = self.count("model.encoder_input_proj.")
        width = self.size("model.encoder_input_proj.0.0")
        layers = self.count("model.decoder.layers.")
        levels = self.count("model.decoder_input_proj.")
        one_score = self.size("model.enc_score_head") == 1
        has_classes = self.size("model.decoder.class_embed.0") > 1
        points, heads = self.points(levels)
        return {
            "backbone_config": self.backbone(maps),
            "encoder_in_channels": tuple(
                self.size(f"model.encoder_input_proj.{index}.0", 1) for index in range(maps)
            ),
            "encoder_hidden_dim": width,
            "decoder_in_channels": (width,) * maps,
            "feat_strides": tuple(32 // 2 ** (maps - 1 - index) for index in range(maps)),
            "encoder_layers": self.count("model.encoder.aifi.0.layers."),
            "encoder_ffn_dim": self.size("model.encoder.aifi.0.layers.0.mlp.fc1"),
            "hidden_expansion": self.size("model.encoder.fpn_blocks.0.conv1.conv") / width,
            "d_model": self.size("model.enc_output.0"),
            "num_feature_levels": levels,
            "decoder_n_levels": levels,
            "decoder_layers": layers,
            "decoder_ffn_dim": self.size("model.decoder.layers.0.mlp.fc1"),
            "decoder_n_points": points,
            "decoder_attention_heads": heads,
            "encoder_attention_heads": heads,
            "num_denoising": 100 if "model.denoising_class_embed.weight" in self.state else 0,
            "query_select_method": "agnostic" if one_score and has_classes else "default",
            "learn_initial_query": "model.weight_embedding.weight" in self.state,
        }

    def points(self, levels: int) -> tuple[tuple[int, ...], int]:
        """Points of each level, and heads.

        From 1/P for each of the P points of a level. Version 1 stores none and has as many on each level; heads are
        taken to be 8 there.
        """
        attention = "model.decoder.layers.0.encoder_attn"
        total = self.size(f"{attention}.attention_weights")
        scale = self.state.get(f"{attention}.n_points_scale")
        if scale is None:
            return (total // HEADS // levels,) * levels, HEADS
        counts, left = [], [round(1 / value) for value in scale.flatten().tolist()]
        while left:
            if not 1 <= left[0] <= len(left):
                raise ValueError(f"{attention}.n_points_scale")
            counts.append(left[0])
            left = left[left[0] :]
        return tuple(counts), total // sum(counts)

    def backbone(self, maps: int) -> BackboneConfig:
        stages = self.count(STAGES)
        out_indices = tuple(range(stages - maps + 1, stages + 1))
        if f"{BACKBONE}embedder.stem1.convolution.weight" in self.state:
            return self.hgnet(stages, out_indices)
        basic = f"{STAGES}0.layers.0.layer.2.convolution.weight" not in self.state
        last = 1 if basic else 2
        return ResNetConfig(
            num_channels=self.size(f"{BACKBONE}embedder.embedder.0.convolution", 1),
            embedding_size=self.size(f"{BACKBONE}embedder.embedder.2.convolution"),
            layer_type="basic" if basic else "bottleneck",
            depths=tuple(self.count(f"{STAGES}{index}.layers.") for index in range(stages)),
            hidden_sizes=tuple(
                self.size(f"{STAGES}{index}.layers.0.layer.{last}.convolution")
                for index in range(stages)
            ),
            out_indices=out_indices,
        )

    def hgnet(self, stages: int, out_indices: tuple[int, ...]) -> HGNetV2Config:
        prefixes = [f"{STAGES}{index}." for index in range(stages)]
        firsts = [f"{prefix}blocks.0." for prefix in prefixes]
        light = [f"{first}layers.0.conv1.convolution.weight" in self.state for first in firsts]
        tails = ["conv2.convolution" if is_light else "convolution" for is_light in light]
        heads = ["conv1.convolution" if is_light else "convolution" for is_light in light]
        kernels = [f"{first}layers.0.{tail}" for first, tail in zip(firsts, tails, strict=True)]
        inputs = [f"{first}layers.0.{head}" for first, head in zip(firsts, heads, strict=True)]
        stem = f"{BACKBONE}embedder."
        return HGNetV2Config(
            stem_channels=(
                self.size(f"{stem}stem1.convolution", 1),
                self.size(f"{stem}stem1.convolution"),
                self.size(f"{stem}stem4.convolution"),
            ),
            stage_in_channels=tuple(self.size(name, 1) for name in inputs),
            stage_mid_channels=tuple(self.size(name) for name in kernels),
            stage_out_channels=tuple(
                self.size(f"{first}aggregation.1.convolution") for first in firsts
            ),
            stage_num_blocks=tuple(self.count(f"{prefix}blocks.") for prefix in prefixes),
            stage_downsample=tuple(
                f"{prefix}downsample.convolution.weight" in self.state for prefix in prefixes
            ),
            stage_light_block=tuple(light),
            stage_kernel_size=tuple(self.size(name, 2) for name in kernels),
            stage_numb_of_layers=tuple(self.count(f"{first}layers.") for first in firsts),
            use_learnable_affine_block=f"{stem}stem1.lab.scale" in self.state,
            out_indices=out_indices,
        )


def _labels(count: int) -> dict[int, str]:
    """Original files do not name their classes; 80 are taken to be those of COCO."""
    names = COCO_NAMES if count == len(COCO_NAMES) else [f"LABEL_{n}" for n in range(count)]
    return dict(enumerate(names))
