# SPDX-License-Identifier: Apache-2.0
"""The models that have a name: how each is built, how well it does, and where its weights are."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from ..errors import ModelError, did_you_mean

__all__ = ["ALIASES", "PRESETS", "Preset", "find_preset"]

STORAGE = "https://github.com/lyuwenyu/storage/releases/download"


@dataclass(frozen=True, kw_only=True)
class Preset:
    """One model: a published one, or a shape to train from random weights.

    Args:
        name: as the original names it.
        fields: the fields of :class:`~rtdetr.config.RTDetrV2Config` that differ from their defaults.
        backbone: the same for the backbone; ``kind`` is its model type.
        ap: average precision on COCO val2017, as published; None for what nobody has published.
        ap50: the same at an overlap of 0.5.
        params: parameters in millions, with 80 classes.
        hub: name on the Hugging Face hub, if it is there.
        url: the original checkpoint; None where the publisher lists none.
    """

    name: str
    fields: Mapping[str, Any]
    kind: str = "rt_detr_resnet"
    backbone: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    ap: float | None = None
    ap50: float | None = None
    params: int
    hub: str | None = None
    url: str | None = None

    @property
    def is_published(self) -> bool:
        """Whether somebody has trained it; weights may be published or not."""
        return self.ap is not None

    def discrete(self, *, ap: float, ap50: float, file: str) -> Preset:
        """The form that was tuned to sample whole pixels."""
        return dataclasses.replace(
            self,
            name=f"{self.name}_dsp",
            fields={**self.fields, "decoder_method": "discrete"},
            ap=ap,
            ap50=ap50,
            hub=None,
            url=f"{STORAGE}/v0.1/{file}",
        )


BASIC = {"layer_type": "basic", "hidden_sizes": (64, 128, 256, 512)}
# Small backbones are trained whole; of large ones the stem and all normalization stay fixed.
TRAINED = {"freeze_backbone_batch_norms": False, "freeze_at": -1}
FIXED = {"freeze_backbone_batch_norms": True, "freeze_at": 0}
SMALL = {**TRAINED, "encoder_in_channels": (128, 256, 512), "hidden_expansion": 0.5}
WIDE = {**FIXED, "encoder_ffn_dim": 2048}

TINY = Preset(
    name="rtdetrv2_tiny",
    fields={
        **TRAINED,
        "hidden_expansion": 0.5,
        "encoder_in_channels": (64, 128, 256),
        "encoder_hidden_dim": 128,
        "encoder_ffn_dim": 256,
        "encoder_attention_heads": 4,
        "d_model": 128,
        "num_queries": 100,
        "decoder_in_channels": (128, 128, 128),
        "decoder_ffn_dim": 512,
        "decoder_attention_heads": 4,
        "decoder_layers": 3,
    },
    backbone={
        "layer_type": "basic",
        "embedding_size": 32,
        "hidden_sizes": (32, 64, 128, 256),
        "depths": (1, 1, 1, 1),
    },
    params=3,
)
R18 = Preset(
    name="rtdetrv2_r18vd",
    fields={**SMALL, "decoder_layers": 3},
    backbone={**BASIC, "depths": (2, 2, 2, 2)},
    ap=48.1,
    ap50=65.1,
    params=20,
    hub="PekingU/rtdetr_v2_r18vd",
    url=f"{STORAGE}/v0.2/rtdetrv2_r18vd_120e_coco_rerun_48.1.pth",
)
R34 = Preset(
    name="rtdetrv2_r34vd",
    fields={**SMALL, "decoder_layers": 4},
    backbone={**BASIC, "depths": (3, 4, 6, 3)},
    ap=49.9,
    ap50=67.5,
    params=31,
    hub="PekingU/rtdetr_v2_r34vd",
    url=f"{STORAGE}/v0.1/rtdetrv2_r34vd_120e_coco_ema.pth",
)
R50_M = Preset(
    name="rtdetrv2_r50vd_m",
    fields={**FIXED, "hidden_expansion": 0.5, "eval_idx": 2},
    ap=51.9,
    ap50=69.9,
    params=36,
    url=f"{STORAGE}/v0.1/rtdetrv2_r50vd_m_7x_coco_ema.pth",
)
R50 = Preset(
    name="rtdetrv2_r50vd",
    fields=FIXED,
    ap=53.4,
    ap50=71.6,
    params=42,
    hub="PekingU/rtdetr_v2_r50vd",
    url=f"{STORAGE}/v0.1/rtdetrv2_r50vd_6x_coco_ema.pth",
)
R101 = Preset(
    name="rtdetrv2_r101vd",
    fields={**WIDE, "encoder_hidden_dim": 384, "decoder_in_channels": (384, 384, 384)},
    backbone={"depths": (3, 4, 23, 3)},
    ap=54.3,
    ap50=72.8,
    params=76,
    hub="PekingU/rtdetr_v2_r101vd",
    url=f"{STORAGE}/v0.1/rtdetrv2_r101vd_6x_coco_from_paddle.pth",
)
HGNET_L = Preset(
    name="rtdetrv2_hgnetv2_l", fields=FIXED, kind="hgnet_v2", ap=52.9, ap50=71.5, params=32
)
HGNET_X = Preset(
    name="rtdetrv2_hgnetv2_x",
    fields={**WIDE, "encoder_hidden_dim": 384, "decoder_in_channels": (384, 384, 384)},
    kind="hgnet_v2",
    backbone={
        "stem_channels": (3, 32, 64),
        "stage_in_channels": (64, 128, 512, 1024),
        "stage_mid_channels": (64, 128, 256, 512),
        "stage_num_blocks": (1, 2, 5, 2),
    },
    ap=54.7,
    ap50=72.9,
    params=67,
)
HGNET_H = Preset(
    name="rtdetrv2_hgnetv2_h",
    fields={
        **WIDE,
        "encoder_hidden_dim": 512,
        "decoder_in_channels": (512, 512, 512),
        "encoder_layers": 2,
    },
    kind="hgnet_v2",
    backbone={
        "stem_channels": (3, 48, 96),
        "stage_in_channels": (96, 192, 512, 1024),
        "stage_mid_channels": (96, 192, 384, 768),
        "stage_out_channels": (192, 512, 1024, 2048),
        "stage_num_blocks": (2, 3, 6, 3),
    },
    ap=56.3,
    ap50=74.8,
    params=123,
)

PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        preset.name: preset
        for preset in (
            TINY,
            R18,
            R34,
            R50_M,
            R50,
            R101,
            R18.discrete(ap=47.4, ap50=64.8, file="rtdetrv2_r18vd_dsp_3x_coco.pth"),
            # The doubled r is in the published name.
            R34.discrete(ap=49.2, ap50=67.1, file="rrtdetrv2_r34vd_dsp_1x_coco.pth"),
            R50_M.discrete(ap=51.4, ap50=69.7, file="rtdetrv2_r50vd_m_dsp_3x_coco.pth"),
            R50.discrete(ap=52.9, ap50=71.3, file="rtdetrv2_r50vd_dsp_1x_coco.pth"),
            HGNET_L,
            HGNET_X,
            HGNET_H,
        )
    }
)
"""By name, ordered by size within a family."""

ALIASES: Mapping[str, str] = MappingProxyType(
    {
        "rtdetrv2-s": "rtdetrv2_r18vd",
        "rtdetrv2-ms": "rtdetrv2_r34vd",
        "rtdetrv2-m": "rtdetrv2_r50vd_m",
        "rtdetrv2-l": "rtdetrv2_r50vd",
        "rtdetrv2-x": "rtdetrv2_r101vd",
    }
)
"""The paper's letters. Its M* is ``rtdetrv2-ms`` or ``rtdetrv2-m*``; -dsp may follow where that form exists."""


def find_preset(name: str) -> Preset:
    """The preset of that name or alias; case, ``-`` for ``_`` and a missing ``rtdetrv2_`` do not matter.

    Raises:
        ModelError: no such preset; the message suggests the nearest name. It is a ``ValueError``.
    """
    key = name.lower().replace("-", "_").replace("m*", "ms")
    key = key.replace("rt_detr", "rtdetr").replace("rtdetr_v2", "rtdetrv2")
    for known in (key, f"rtdetrv2_{key}"):
        if known in PRESETS:
            return PRESETS[known]
        if known in SPELLINGS:
            return PRESETS[SPELLINGS[known]]
    # A wrong name gets its hint in the form that it was typed in.
    suggestion = did_you_mean(name, ALIASES if "-" in name else PRESETS)
    raise ModelError(f'No model "{name}".{suggestion} See: rtdetr models')


def _spell(alias: str) -> str:
    return alias.replace("-", "_")


SPELLINGS = {_spell(alias): target for alias, target in ALIASES.items()} | {
    f"{_spell(alias)}_dsp": f"{target}_dsp"
    for alias, target in ALIASES.items()
    if f"{target}_dsp" in PRESETS
}
