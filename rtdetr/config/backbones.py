# SPDX-License-Identifier: Apache-2.0
"""Configurations of the two backbones, with the field names that transformers writes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, TypeVar

from ..checking import check, check_choice, hints_at_fields
from ..keywords import BACKBONE, understands
from .fields import CheckedFields, bools, checked, flag, ints, one_of, whole

__all__ = [
    "BACKBONES",
    "BackboneConfig",
    "HGNetV2Config",
    "RTDetrResNetConfig",
    "ResNetConfig",
    "backbone",
    "backbone_from_dict",
]

ACTIVATIONS = ("relu", "silu", "gelu")
LAYER_TYPES = ("basic", "bottleneck")

# Bounds keep a damaged file from taking the memory of the machine; the largest published model has 2048 channels.
MOST_CHANNELS = 2**14
MOST_LAYERS = 256

C = TypeVar("C", bound="_Stages")


def _understands_names_of_stages(cls: type[C]) -> type[C]:
    """Let the constructor take what transformers' takes, ``out_features`` among it."""
    cls.__init__ = understands(BACKBONE)(cls.__init__)  # type: ignore[method-assign]
    return cls


class _Stages(CheckedFields):
    """What both backbones share: stages counted from 1, some of whose outputs are returned."""

    model_type: ClassVar[str]
    out_indices: tuple[int, ...]

    @property
    def stage_channels(self) -> tuple[int, ...]:
        raise NotImplementedError

    @property
    def in_channels(self) -> int:
        """Channels of the images."""
        raise NotImplementedError

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of the maps that are returned."""
        return tuple(self.stage_channels[index - 1] for index in self.out_indices)

    @property
    def stage_names(self) -> list[str]:
        """As transformers calls the stem and the stages."""
        return ["stem", *(f"stage{index + 1}" for index in range(len(self.stage_channels)))]

    @property
    def out_features(self) -> list[str]:
        """Names of the stages whose outputs are returned."""
        return [f"stage{index}" for index in self.out_indices]

    def validate(self) -> None:
        """Whether the fields fit together.

        Raises:
            ValueError: they do not.
        """
        raise NotImplementedError

    def _check_out_indices(self) -> None:
        indices, stages = self.out_indices, len(self.stage_channels)
        increasing = all(a < b for a, b in pairwise(indices))
        fits = bool(indices) and increasing and indices[0] >= 1 and indices[-1] <= stages
        check(fits, "out_indices", f"increasing stage numbers in 1..{stages}", indices)

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON types; tuples become lists."""
        return {
            "model_type": self.model_type,
            **{name: _plain(value) for name, value in vars(self).items()},
            "stage_names": self.stage_names,
            "out_features": self.out_features,
        }

    @classmethod
    def from_dict(cls: type[C], values: Mapping[str, Any]) -> C:
        """The configuration of a mapping; keys that are no fields, of which transformers writes many, are left out."""
        known = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
        known.add("out_features")
        fields = {name: value for name, value in values.items() if name in known}
        if fields.get("out_indices") is None:
            fields.pop("out_indices", None)
        return cls(**fields)


@_understands_names_of_stages
@hints_at_fields
@dataclass(kw_only=True)
class ResNetConfig(_Stages):
    """ResNet-vd: a stem of three convolutions, shortcuts that pool before they project.

    Args:
        num_channels: channels of the images.
        embedding_size: output channels of the stem; its first two convolutions have half of them.
        hidden_sizes: output channels of each stage.
        depths: blocks of each stage.
        layer_type: ``"basic"`` (two 3x3 convolutions) or ``"bottleneck"`` (1x1, 3x3, 1x1).
        hidden_act: activation after a convolution and a block: ``"relu"``, ``"silu"`` or ``"gelu"``.
        downsample_in_first_stage: the first stage halves its input too, so that all strides double.
        downsample_in_bottleneck: the first 1x1 convolution of a bottleneck has the stride; False gives it to the 3x3.
        out_indices: stages whose outputs are returned, counted from 1.

    Source: Bag of Tricks for Image Classification (He et al., 2018), sec. 4, ResNet-D.
    """

    model_type: ClassVar[str] = "rt_detr_resnet"

    num_channels: int = checked(3, whole(1, MOST_CHANNELS))
    embedding_size: int = checked(64, whole(2, MOST_CHANNELS))
    hidden_sizes: tuple[int, ...] = checked((256, 512, 1024, 2048), ints(1, MOST_CHANNELS))
    depths: tuple[int, ...] = checked((3, 4, 6, 3), ints(1, MOST_LAYERS))
    layer_type: str = checked("bottleneck", one_of(*LAYER_TYPES))
    hidden_act: str = checked("relu", one_of(*ACTIVATIONS))
    downsample_in_first_stage: bool = checked(False, flag)
    downsample_in_bottleneck: bool = checked(False, flag)
    out_indices: tuple[int, ...] = checked((2, 3, 4), ints(0, MOST_LAYERS))

    def __post_init__(self) -> None:
        self.validate()

    def validate(self) -> None:
        expected = f"{len(self.hidden_sizes)} counts, as many as hidden_sizes"
        check(len(self.depths) == len(self.hidden_sizes), "depths", expected, self.depths)
        self._check_out_indices()

    @property
    def stage_channels(self) -> tuple[int, ...]:
        return self.hidden_sizes

    @property
    def in_channels(self) -> int:
        return self.num_channels


@_understands_names_of_stages
@hints_at_fields
@dataclass(kw_only=True)
class HGNetV2Config(_Stages):
    """PP-HGNetV2: blocks that concatenate the outputs of all their layers. The defaults are the L form.

    ``depths``, ``hidden_sizes`` and ``embedding_size`` are derived and only written, for transformers.

    Args:
        num_channels: channels of the images; kept for transformers, ``stem_channels`` decides.
        hidden_act: activation of the stem: ``"relu"``, ``"silu"`` or ``"gelu"``; stages have ``"relu"``.
        stem_channels: channels of the images, inside the stem, and after it.
        stem_strides: stride of each of the five convolutions of the stem.
        stage_in_channels: input channels of each stage; their number is that of the stages.
        stage_mid_channels: output channels of a layer inside a block of each stage.
        stage_out_channels: output channels of each stage.
        stage_num_blocks: blocks of each stage.
        stage_downsample: whether a strided convolution comes first in each stage.
        stage_downsample_strides: stride of that convolution, where a stage has one.
        stage_light_block: whether layers of each stage are a 1x1 and a depthwise convolution, in place of a full one.
        stage_kernel_size: kernel of the layers of each stage.
        stage_numb_of_layers: layers of a block of each stage.
        use_learnable_affine_block: one learned factor and one summand follow each activation.
        out_indices: stages whose outputs are returned, counted from 1.

    Source: PaddleDetection's HGNetV2, which RT-DETRv2's hgnetv2 models use.
    """

    model_type: ClassVar[str] = "hgnet_v2"

    num_channels: int = checked(3, whole(1, MOST_CHANNELS))
    hidden_act: str = checked("relu", one_of(*ACTIVATIONS))
    stem_channels: tuple[int, ...] = checked((3, 32, 48), ints(1, MOST_CHANNELS, length=3))
    stem_strides: tuple[int, ...] = checked((2, 1, 1, 2, 1), ints(1, 4, length=5))
    stage_in_channels: tuple[int, ...] = checked((48, 128, 512, 1024), ints(1, MOST_CHANNELS))
    stage_mid_channels: tuple[int, ...] = checked((48, 96, 192, 384), ints(1, MOST_CHANNELS))
    stage_out_channels: tuple[int, ...] = checked((128, 512, 1024, 2048), ints(1, MOST_CHANNELS))
    stage_num_blocks: tuple[int, ...] = checked((1, 1, 3, 1), ints(1, MOST_LAYERS))
    stage_downsample: tuple[bool, ...] = checked((False, True, True, True), bools)
    stage_downsample_strides: tuple[int, ...] = checked((2, 2, 2, 2), ints(1, 4))
    stage_light_block: tuple[bool, ...] = checked((False, False, True, True), bools)
    stage_kernel_size: tuple[int, ...] = checked((3, 3, 5, 5), ints(1, 31))
    stage_numb_of_layers: tuple[int, ...] = checked((6, 6, 6, 6), ints(1, MOST_LAYERS))
    use_learnable_affine_block: bool = checked(False, flag)
    out_indices: tuple[int, ...] = checked((2, 3, 4), ints(0, MOST_LAYERS))

    def __post_init__(self) -> None:
        self.validate()

    def validate(self) -> None:
        self._check_stages()
        self._check_out_indices()

    def _check_stages(self) -> None:
        stages = len(self.stage_in_channels)
        for name, values in vars(self).items():
            if name.startswith("stage_"):
                check(len(values) == stages, name, f"{stages} values", values)

    @property
    def stage_channels(self) -> tuple[int, ...]:
        return self.stage_out_channels

    @property
    def in_channels(self) -> int:
        return self.stem_channels[0]

    def to_dict(self) -> dict[str, Any]:
        fields = super().to_dict()
        return fields | {
            "depths": fields["stage_num_blocks"],
            "hidden_sizes": fields["stage_out_channels"],
            "embedding_size": self.stem_channels[2],
        }


RTDetrResNetConfig = ResNetConfig
"""As transformers calls it."""

BackboneConfig = ResNetConfig | HGNetV2Config

BACKBONES: dict[str, type[ResNetConfig] | type[HGNetV2Config]] = {
    config.model_type: config for config in (ResNetConfig, HGNetV2Config)
}


def backbone_from_dict(values: Mapping[str, Any]) -> BackboneConfig:
    """The backbone that ``model_type`` names.

    Raises:
        ValueError: no such backbone.
    """
    kind = values.get("model_type", ResNetConfig.model_type)
    check_choice("backbone_config.model_type", kind, BACKBONES)
    return BACKBONES[kind].from_dict(values)


def backbone(name: str, value: Any) -> BackboneConfig:
    """A configuration, also as a mapping; None is the default.

    Raises:
        ValueError: it is neither.
    """
    if value is None:
        return ResNetConfig()
    if isinstance(value, Mapping):
        return backbone_from_dict(value)
    check(isinstance(value, BackboneConfig), name, "ResNetConfig or HGNetV2Config", value)
    config: BackboneConfig = value
    return config


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
