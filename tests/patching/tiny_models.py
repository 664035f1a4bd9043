# SPDX-License-Identifier: Apache-2.0
"""One randomly initialized miniature per family of transformers, with an input it takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers as hf
from torch import nn

Tiny = tuple[nn.Module, dict[str, Any]]

_DETR = {
    "encoder_hidden_dim": 32,
    "encoder_in_channels": [16, 16, 16],
    "encoder_ffn_dim": 32,
    "encoder_attention_heads": 2,
    "d_model": 32,
    "num_queries": 10,
    "decoder_in_channels": [32, 32, 32],
    "decoder_ffn_dim": 32,
    "decoder_layers": 2,
    "decoder_attention_heads": 4,
    "num_labels": 4,
}


def _pixels() -> dict[str, Any]:
    return {"pixel_values": torch.rand(2, 3, 64, 96)}


def _resnet(stages: int = 3) -> hf.ResNetConfig:
    return hf.ResNetConfig(
        embedding_size=8,
        hidden_sizes=[16, 16, 16, 16],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage1", "stage2", "stage3", "stage4"][4 - stages :],
    )


def _rt_detr(config: type, model: type, **options: Any) -> Callable[[], Tiny]:
    def build() -> Tiny:
        backbone = hf.RTDetrResNetConfig(
            embedding_size=8,
            hidden_sizes=[8, 12, 16, 20],
            depths=[1, 1, 1, 1],
            layer_type="basic",
            out_features=["stage2", "stage3", "stage4"],
        )
        sizes = {**_DETR, "encoder_in_channels": [12, 16, 20]}
        return model(config(backbone_config=backbone, **sizes, **options)), _pixels()

    return build


def _hgnet(
    config: type,
    model: type,
    stages: tuple[str, ...] = ("stage2", "stage3", "stage4"),
    **options: Any,
) -> Callable[[], Tiny]:
    def build() -> Tiny:
        backbone = hf.HGNetV2Config(
            stem_channels=[3, 8, 8],
            stage_in_channels=[8, 16, 16, 16],
            stage_mid_channels=[8, 8, 8, 8],
            stage_out_channels=[16, 16, 16, 16],
            stage_num_blocks=[1, 1, 1, 1],
            stage_numb_of_layers=[1, 1, 1, 1],
            hidden_sizes=[16, 16, 16, 16],
            depths=[1, 1, 1, 1],
            embedding_size=8,
            out_features=list(stages),
        )
        return model(config(backbone_config=backbone, **{**_DETR, **options})), _pixels()

    return build


def _deformable_detr() -> Tiny:
    config = hf.DeformableDetrConfig(
        backbone_config=_resnet(),
        d_model=32,
        encoder_layers=1,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        num_queries=10,
        with_box_refine=True,
        two_stage=True,
        two_stage_num_proposals=10,
        num_labels=4,
    )
    mask = torch.ones(2, 64, 96, dtype=torch.long)
    mask[1, 40:] = 0
    return hf.DeformableDetrForObjectDetection(config), {**_pixels(), "pixel_mask": mask}


def _grounding(config: type, model: type) -> Callable[[], Tiny]:
    def build() -> Tiny:
        text = hf.BertConfig(
            vocab_size=64,
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
        )
        built = config(
            backbone_config=_resnet(),
            text_config=text,
            d_model=32,
            encoder_layers=1,
            decoder_layers=2,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=32,
            decoder_ffn_dim=32,
            num_queries=10,
            max_text_len=16,
        )
        tokens = torch.tensor([[101, 5, 6, 1012, 7, 102]]).clamp(max=63).expand(2, -1)
        return model(built), {**_pixels(), "input_ids": tokens}

    return build


def _omdet_turbo() -> Tiny:
    text = hf.CLIPTextConfig(
        vocab_size=64,
        hidden_size=16,
        projection_dim=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=16,
    )
    config = hf.OmDetTurboConfig(
        backbone_config=_resnet(),
        text_config=text,
        apply_layernorm_after_vision_backbone=False,
        image_size=64,
        text_projection_in_dim=16,
        text_projection_out_dim=16,
        task_encoder_hidden_dim=16,
        class_embed_dim=16,
        num_queries=10,
        encoder_hidden_dim=32,
        vision_features_channels=[32, 32, 32],
        encoder_in_channels=[16, 16, 16],
        encoder_attention_heads=2,
        encoder_dim_feedforward=32,
        decoder_hidden_dim=32,
        decoder_num_heads=4,
        decoder_num_layers=2,
        decoder_dim_feedforward=32,
    )
    tokens = torch.tensor([[1, 5, 6, 2]])
    inputs = {
        "pixel_values": torch.rand(1, 3, 64, 64),
        "classes_input_ids": tokens.expand(2, -1),
        "classes_attention_mask": torch.ones(2, 4, dtype=torch.long),
        "tasks_input_ids": tokens,
        "tasks_attention_mask": torch.ones(1, 4, dtype=torch.long),
        "classes_structure": torch.tensor([2]),
    }
    return hf.OmDetTurboForObjectDetection(config), inputs


_GROUP_DETR = {
    "d_model": 32,
    "decoder_layers": 2,
    "decoder_ffn_dim": 32,
    "decoder_self_attention_heads": 4,
    "decoder_cross_attention_heads": 4,
    "num_queries": 10,
    "group_detr": 2,
    "num_labels": 4,
}


def _rf_detr() -> Tiny:
    backbone = hf.RfDetrDinov2Config(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=64,
        patch_size=8,
        num_windows=2,
        out_indices=[1, 2],
    )
    config = hf.RfDetrConfig(backbone_config=backbone, **_GROUP_DETR)
    return hf.RfDetrForObjectDetection(config), {"pixel_values": torch.rand(2, 3, 64, 64)}


def _lw_detr() -> Tiny:
    backbone = hf.LwDetrViTConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=64,
        pretrain_image_size=64,
        patch_size=8,
        num_windows=4,
        window_block_indices=[0],
        out_indices=[1, 2],
    )
    config = hf.LwDetrConfig(
        backbone_config=backbone, projector_scale_factors=[1.0, 0.5], **_GROUP_DETR
    )
    return hf.LwDetrForObjectDetection(config), {"pixel_values": torch.rand(2, 3, 64, 64)}


def _mask2former() -> Tiny:
    config = hf.Mask2FormerConfig(
        backbone_config=_resnet(stages=4),
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=32,
        encoder_layers=2,
        decoder_layers=2,
        num_attention_heads=4,
        dim_feedforward=32,
        num_queries=10,
        num_labels=4,
    )
    return hf.Mask2FormerForUniversalSegmentation(config), _pixels()


def _oneformer() -> Tiny:
    config = hf.OneFormerConfig(
        backbone_config=_resnet(stages=4),
        num_queries=10,
        task_seq_len=8,
        text_encoder_width=32,
        text_encoder_context_length=8,
        text_encoder_num_layers=1,
        text_encoder_vocab_size=64,
        text_encoder_n_ctx=4,
        conv_dim=32,
        mask_dim=32,
        hidden_dim=32,
        encoder_feedforward_dim=32,
        encoder_layers=2,
        decoder_layers=3,
        num_attention_heads=4,
        dim_feedforward=32,
        num_labels=4,
    )
    inputs = {**_pixels(), "task_inputs": torch.randint(1, 64, (2, 8))}
    return hf.OneFormerForUniversalSegmentation(config), inputs


BUILDERS: dict[str, Callable[[], Tiny]] = {
    "rt_detr": _rt_detr(hf.RTDetrConfig, hf.RTDetrForObjectDetection),
    "rt_detr_v2": _rt_detr(hf.RTDetrV2Config, hf.RTDetrV2ForObjectDetection),
    "rt_detr_v2_discrete": _rt_detr(
        hf.RTDetrV2Config, hf.RTDetrV2ForObjectDetection, decoder_method="discrete"
    ),
    "d_fine": _hgnet(hf.DFineConfig, hf.DFineForObjectDetection, decoder_n_points=[3, 6, 3]),
    "deimv2": _hgnet(hf.Deimv2Config, hf.Deimv2ForObjectDetection),
    "deformable_detr": _deformable_detr,
    "grounding_dino": _grounding(hf.GroundingDinoConfig, hf.GroundingDinoForObjectDetection),
    "mm_grounding_dino": _grounding(hf.MMGroundingDinoConfig, hf.MMGroundingDinoForObjectDetection),
    "omdet_turbo": _omdet_turbo,
    "rf_detr": _rf_detr,
    "lw_detr": _lw_detr,
    "mask2former": _mask2former,
    "oneformer": _oneformer,
    "pp_doclayout_v2": _hgnet(
        hf.PPDocLayoutV2Config,
        hf.PPDocLayoutV2ForObjectDetection,
        class_thresholds=[0.5] * 4,
        class_order=[0, 1, 2, 3],
        reading_order_config={
            "hidden_size": 16,
            "num_attention_heads": 2,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
            "num_classes": 4,
            "relation_bias_embed_dim": 4,
            "coordinate_size": 3,
            "shape_size": 2,
            "global_pointer_head_size": 8,
        },
    ),
    "pp_doclayout_v3": _hgnet(
        hf.PPDocLayoutV3Config,
        hf.PPDocLayoutV3ForObjectDetection,
        stages=("stage1", "stage2", "stage3", "stage4"),
        x4_feat_dim=16,
    ),
    "pp_doclayout_v4": _hgnet(hf.PPDocLayoutV4Config, hf.PPDocLayoutV4ForObjectDetection),
}
