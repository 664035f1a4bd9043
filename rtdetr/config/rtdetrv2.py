# SPDX-License-Identifier: Apache-2.0
"""The configuration of RT-DETRv2: what transformers calls RTDetrV2Config, and the settings it lacks."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ..checking import check, check_choice, check_int, hints_at_fields
from ..coco import COCO_NAMES
from ..errors import ModelError
from ..files import atomic_write
from ..hub import CONFIG, HubOptions, ModelFiles, model_files, settings_file
from .backbones import (
    ACTIVATIONS,
    BACKBONES,
    BackboneConfig,
    HGNetV2Config,
    ResNetConfig,
    backbone_from_dict,
)
from .fields import (
    at_least,
    between,
    checked,
    image_size,
    instance_of,
    int_or_ints,
    ints,
    one_of,
    run_checks,
    set_field,
)
from .presets import Preset, find_preset

__all__ = ["RTDetrV2Config"]

MODEL_TYPES = ("rt_detr_v2", "rt_detr")
"""Version 1 has the architecture of version 2 with uniform points and bilinear sampling."""

QUERY_SELECTIONS = ("default", "one2many", "agnostic")
SAMPLING_METHODS = ("default", "discrete")
LABEL_FIELDS = ("num_labels", "id2label", "label2id")


@hints_at_fields
@dataclass(frozen=True, kw_only=True)
class RTDetrV2Config:
    """All that decides the shape and behavior of a model. Immutable; :meth:`replace` makes a changed one.

    Names and defaults are those of transformers 5, which lacks ``freeze_at``, ``legacy_position_embedding``,
    ``query_select_method`` and ``eval_idx``, and takes one int for ``decoder_n_points``.
    This release does not train: of the denoising and losses, ``num_denoising`` alone shapes the model.

    Args:
        Backbone

        backbone_config: the network that turns images into maps, :class:`ResNetConfig` or :class:`HGNetV2Config`.
        freeze_backbone_batch_norms: normalization in the backbone keeps its statistics and is not trained.
        freeze_at: the stem (0) and that many stages of the backbone are not trained; -1 trains all.

        Encoder

        encoder_hidden_dim: channels of every map in the encoder; a multiple of 4 and of the heads.
        encoder_in_channels: channels of each map that the backbone returns, finest first.
        feat_strides: pixels of the image per pixel of each of these maps; H and W are multiples of the last.
        encoder_layers: transformer layers on a map, 0 or more.
        encoder_ffn_dim: hidden width of the feed-forward part of such a layer.
        encoder_attention_heads: heads of its self-attention.
        encode_proj_layers: maps that these layers run on, counted from 0, the finest.
        encoder_activation_function: of the feed-forward part: ``"relu"``, ``"silu"`` or ``"gelu"``.
        activation_function: of the convolutions that fuse maps; the same three.
        hidden_expansion: width inside a fusion block, as a multiple 0.01..8 of ``encoder_hidden_dim``.
        positional_encoding_temperature: base of the wavelengths of the sine position embedding.
        legacy_position_embedding: the position embedding that the original computes for maps that are not square,
            where rows and columns are mixed up. Only for weights trained on rectangles by it.
        normalize_before: False; normalization follows each part of a transformer layer.
        eval_size: (height, width) of images in evaluation, in pixels; an int is a square. Kept but not used: the
            position embedding fits every input.

        Query selection

        d_model: C, the width of queries and of the memory that they attend to; a multiple of the decoder's heads.
        num_queries: Q, the most detections of an image; fewer where its maps have fewer pixels.
        query_select_method: ``"default"`` takes the locations with the highest class scores, ``"one2many"`` the
            highest pairs of location and class, ``"agnostic"`` scores locations by one class-free number.
        learn_initial_query: queries start from a learned table; False starts from the selected pixels.
        anchor_image_size: (height, width) to make anchors for, in pixels; an int is a square. Kept but not used:
            anchors fit every input.

        Decoder

        decoder_in_channels: channels of each map that the encoder returns, all equal to ``encoder_hidden_dim``.
        num_feature_levels: L, maps that the decoder attends to; beyond those of the encoder, each halves the last.
        decoder_n_levels: the same number.
        decoder_n_points: sampling points of a head on each level: an int, or one count per level, not all 0. A
            tuple of equal counts becomes one int.
        decoder_method: ``"default"`` samples bilinearly, ``"discrete"`` takes the pixel
            ``trunc(location * size + 0.5)`` of each axis, which is not the nearest one.
        decoder_offset_scale: factor from a sampling offset, divided by the points of its level, to widths and heights
            of a query's box.
        decoder_layers: decoder layers that are built and trained.
        eval_idx: the decoder layer whose output evaluation returns; later ones are not run. -1 is the last.
        decoder_ffn_dim: hidden width of the feed-forward part of a layer.
        decoder_attention_heads: heads of self-attention and of deformable attention.
        decoder_activation_function: of the feed-forward part: ``"relu"``, ``"silu"`` or ``"gelu"``.
        with_box_refine: True; each layer moves the boxes of the layer before it.

        Regularization

        dropout: probability 0..1 of dropping what a part adds to its residual, and attention in the encoder.
        activation_dropout: probability of dropping a hidden activation of a feed-forward part.
        attention_dropout: probability of dropping a self-attention weight of the decoder.
        layer_norm_eps: added to the variance in layer normalization.
        batch_norm_eps: added to the variance in batch normalization of the encoder and the decoder's projections.
        initializer_range: standard deviation of initial weights in transformers. Kept but not used: layers start
            as in the original.
        initializer_bias_prior_prob: probability that each class starts with; None is 0.01.

        Denoising and losses

        num_denoising: queries of an image that training makes from noisy labels; 0 builds no label embedding.
        label_noise_ratio: half of it is the probability that such a query gets a random class.
        box_noise_scale: most that a corner of a positive one moves, in halves of the box's width and height; corners of
            a negative one move up to twice as far.
        matcher_alpha: weight of positives in the focal class cost of matching.
        matcher_gamma: focusing exponent of that cost.
        matcher_class_cost: weight of the class cost in matching.
        matcher_bbox_cost: weight of the L1 distance of boxes in matching.
        matcher_giou_cost: weight of the generalized IoU in matching.
        use_focal_loss: classes are scored by independent sigmoids; False takes a softmax with a class for nothing.
        auxiliary_loss: every decoder layer and the selected pixels get a loss, not the last layer alone.
        focal_loss_alpha: weight of negatives in the varifocal loss.
        focal_loss_gamma: focusing exponent of the varifocal loss.
        weight_loss_vfl: weight of the varifocal loss.
        weight_loss_bbox: weight of the L1 loss of boxes.
        weight_loss_giou: weight of the generalized IoU loss.
        eos_coefficient: weight of the class for nothing where ``use_focal_loss`` is False.
        is_encoder_decoder: kept for transformers alone.
        tie_word_embeddings: kept for transformers alone.

        Labels

        num_labels: K, the number of classes; None takes it from ``id2label``, or 2 as transformers does.
        id2label: names of the classes 0..K-1; None inverts ``label2id``, or names them LABEL_0, LABEL_1, ...
        label2id: index of each name; None inverts ``id2label``.

    Raises:
        ValueError: a field is out of range, "field: expected X, got Y".
        TypeError: an unknown keyword, with the nearest known one.

    Source: RT-DETR (Zhao et al., 2023), sec. 4; RT-DETRv2 (Lv et al., 2024), sec. 3.
    """

    model_type: ClassVar[str] = "rt_detr_v2"

    backbone_config: BackboneConfig = dataclasses.field(
        default_factory=ResNetConfig,
        metadata={"check": instance_of(ResNetConfig, HGNetV2Config)},
    )
    freeze_backbone_batch_norms: bool = True
    freeze_at: int = checked(-1, at_least(-1))

    encoder_hidden_dim: int = checked(256, at_least(1))
    encoder_in_channels: tuple[int, ...] = checked((512, 1024, 2048), ints())
    feat_strides: tuple[int, ...] = checked((8, 16, 32), ints())
    encoder_layers: int = checked(1, at_least(0))
    encoder_ffn_dim: int = checked(1024, at_least(1))
    encoder_attention_heads: int = checked(8, at_least(1))
    encode_proj_layers: tuple[int, ...] = checked((2,), ints(minimum=0))
    encoder_activation_function: str = checked("gelu", one_of(ACTIVATIONS))
    activation_function: str = checked("silu", one_of(ACTIVATIONS))
    hidden_expansion: float = checked(1.0, between(0.01, 8))
    positional_encoding_temperature: int = checked(10000, at_least(1))
    legacy_position_embedding: bool = False
    # The original and transformers order the residual differently here, and no weights use it.
    normalize_before: bool = checked(False, one_of([False]))
    eval_size: tuple[int, int] | None = checked(None, image_size)

    d_model: int = checked(256, at_least(1))
    num_queries: int = checked(300, at_least(1))
    query_select_method: str = checked("default", one_of(QUERY_SELECTIONS))
    learn_initial_query: bool = False
    anchor_image_size: tuple[int, int] | None = checked(None, image_size)

    decoder_in_channels: tuple[int, ...] = checked((256, 256, 256), ints())
    num_feature_levels: int = checked(3, at_least(1))
    decoder_n_levels: int = checked(3, at_least(1))
    decoder_n_points: int | tuple[int, ...] = checked(4, int_or_ints(minimum=0))
    decoder_method: str = checked("default", one_of(SAMPLING_METHODS))
    decoder_offset_scale: float = 0.5
    decoder_layers: int = checked(6, at_least(1))
    eval_idx: int = -1
    decoder_ffn_dim: int = checked(1024, at_least(1))
    decoder_attention_heads: int = checked(8, at_least(1))
    decoder_activation_function: str = checked("relu", one_of(ACTIVATIONS))
    with_box_refine: bool = checked(True, one_of([True]))

    dropout: float = checked(0.0, between(0, 1))
    activation_dropout: float = checked(0.0, between(0, 1))
    attention_dropout: float = checked(0.0, between(0, 1))
    layer_norm_eps: float = 1e-5
    batch_norm_eps: float = 1e-5
    initializer_range: float = 0.01
    initializer_bias_prior_prob: float | None = None

    num_denoising: int = checked(100, at_least(0))
    label_noise_ratio: float = checked(0.5, between(0, 1))
    box_noise_scale: float = 1.0
    matcher_alpha: float = 0.25
    matcher_gamma: float = 2.0
    matcher_class_cost: float = 2.0
    matcher_bbox_cost: float = 5.0
    matcher_giou_cost: float = 2.0
    use_focal_loss: bool = True
    auxiliary_loss: bool = True
    focal_loss_alpha: float = 0.75
    focal_loss_gamma: float = 2.0
    weight_loss_vfl: float = 1.0
    weight_loss_bbox: float = 5.0
    weight_loss_giou: float = 2.0
    eos_coefficient: float = 1e-4

    is_encoder_decoder: bool = True
    tie_word_embeddings: bool = True

    num_labels: int = None  # type: ignore[assignment]
    id2label: dict[int, str] = None  # type: ignore[assignment]
    label2id: dict[str, int] = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        run_checks(self)
        self._merge_equal_points()
        self._name_labels()
        self._check_layers()
        self._check_levels()
        self._check_heads()

    @property
    def hidden_size(self) -> int:
        return self.d_model

    @property
    def num_attention_heads(self) -> int:
        return self.encoder_attention_heads

    @property
    def points_per_level(self) -> tuple[int, ...]:
        """Sampling points of a head on each of the L levels."""
        points = self.decoder_n_points
        return points if isinstance(points, tuple) else (points,) * self.decoder_n_levels

    @property
    def last_layer(self) -> int:
        """The decoder layer whose output evaluation returns, counted from 0."""
        return self.eval_idx % self.decoder_layers

    def replace(self, **changes: Any) -> RTDetrV2Config:
        """A copy with some fields changed; any of the three label fields replaces all of them."""
        if any(changes.get(name) is not None for name in LABEL_FIELDS):
            changes = dict.fromkeys(LABEL_FIELDS) | changes
        return type(self)(**(vars(self) | changes))

    @classmethod
    def from_preset(cls, preset: str | Preset, **changes: Any) -> RTDetrV2Config:
        """The configuration of a published model, with some fields changed; see :mod:`rtdetr.config.presets`.

        Raises:
            ModelError: no preset of that name; the message suggests one. It is a ``ValueError``.
        """
        preset = find_preset(preset) if isinstance(preset, str) else preset
        backbone = BACKBONES[preset.kind](**preset.backbone)
        labels = dict(enumerate(COCO_NAMES))
        return cls(backbone_config=backbone, id2label=labels, **preset.fields).replace(**changes)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> RTDetrV2Config:
        """The configuration of a config.json; keys that are no fields, of which transformers writes many, are left out.

        Raises:
            ValueError: another kind of model, or a backbone that is not built here.
        """
        check_choice("model_type", values.get("model_type", cls.model_type), MODEL_TYPES)
        external = bool(values.get("use_timm_backbone")) and not values.get("backbone_config")
        check(not external, "use_timm_backbone", "a backbone_config", values.get("backbone"))
        known = {field.name for field in dataclasses.fields(cls)}
        fields = {name: value for name, value in values.items() if name in known}
        if isinstance(fields.get("backbone_config"), dict):
            fields["backbone_config"] = backbone_from_dict(fields["backbone_config"])
        if fields.get("backbone_config") is None:
            fields.pop("backbone_config", None)
        if fields.get("id2label"):
            fields["id2label"] = {int(key): name for key, name in fields["id2label"].items()}
            fields.pop("num_labels", None)
        return cls(**fields)

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON types, readable by transformers' RTDetrV2Config where it knows them."""
        fields = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in vars(self).items()
            if name != "num_labels"  # transformers takes it from id2label
        }
        return fields | {
            "model_type": self.model_type,
            "architectures": ["RTDetrV2ForObjectDetection"],
            "backbone_config": self.backbone_config.to_dict(),
            "id2label": {str(index): name for index, name in self.id2label.items()},
        }

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
    ) -> RTDetrV2Config:
        """The configuration of a directory, a config.json, a file beside one, or a hub name.

        The options are those of :class:`rtdetr.hub.HubOptions`.

        Raises:
            ModelError: there is none, or the hub cannot be reached.
        """
        options = HubOptions(
            revision=revision, cache_dir=cache_dir, token=token, local_files_only=local_files_only
        )
        files = model_files(source, options)
        if files is None:
            preset = find_preset(str(source))
            raise ModelError(f'{source}: a preset. Use RTDetrV2Config.from_preset("{preset.name}")')
        return cls.from_files(files)

    @classmethod
    def from_files(cls, files: ModelFiles) -> RTDetrV2Config:
        """The configuration that lies with the files of a model.

        Raises:
            ModelError: there is none.
        """
        path = settings_file(files, CONFIG)
        if path is None:
            raise ModelError(f"{files}: no {CONFIG} there")
        return cls.from_dict(json.loads(path.read_text(encoding="utf-8")))

    def save_pretrained(self, directory: str | Path) -> None:
        """Write ``config.json`` into ``directory``."""
        text = json.dumps(self.to_dict(), indent=2, sort_keys=True, allow_nan=False) + "\n"
        with atomic_write(Path(directory) / "config.json") as path:
            path.write_text(text, encoding="utf-8")

    def _merge_equal_points(self) -> None:
        points = self.decoder_n_points
        if isinstance(points, tuple):
            uniform = len(points) == self.decoder_n_levels and len(set(points)) == 1
            set_field(self, "decoder_n_points", points[0] if uniform else points)

    def _name_labels(self) -> None:
        if self.id2label is None:
            count = 2 if self.num_labels is None else self.num_labels
            check_int("num_labels", count, 1)
            names = {index: f"LABEL_{index}" for index in range(count)}
            if self.label2id is not None:
                names = {index: name for name, index in self.label2id.items()}
            set_field(self, "id2label", names)
        labels = {int(index): name for index, name in self.id2label.items()}
        complete = sorted(labels) == list(range(len(labels))) and bool(labels)
        check(complete, "id2label", "names for the ids 0..K-1 without a gap", sorted(labels)[:20])
        set_field(self, "id2label", dict(sorted(labels.items())))
        if self.num_labels is None:
            set_field(self, "num_labels", len(labels))
        expected = f"{len(labels)}, the number of labels"
        check(self.num_labels == len(labels), "num_labels", expected, self.num_labels)
        if self.label2id is None:
            set_field(self, "label2id", {name: index for index, name in labels.items()})

    def _check_layers(self) -> None:
        layers = self.decoder_layers
        in_range = isinstance(self.eval_idx, int) and -layers <= self.eval_idx < layers
        check(in_range, "eval_idx", f"a layer in {-layers}..{layers - 1}", self.eval_idx)
        maps = len(self.backbone_config.channels)
        in_range = all(index < maps for index in self.encode_proj_layers)
        expected = f"levels in 0..{maps - 1}"
        check(in_range, "encode_proj_layers", expected, self.encode_proj_layers)

    def _check_levels(self) -> None:
        channels, levels = self.backbone_config.channels, self.num_feature_levels
        fits = self.encoder_in_channels == channels
        expected = f"{channels}, the channels of the backbone"
        check(fits, "encoder_in_channels", expected, self.encoder_in_channels)
        maps = len(channels)
        for name in ("feat_strides", "decoder_in_channels"):
            check(len(getattr(self, name)) == maps, name, f"{maps} values", getattr(self, name))
        fits = set(self.decoder_in_channels) == {self.encoder_hidden_dim}
        expected = f"encoder_hidden_dim={self.encoder_hidden_dim} for each level"
        check(fits, "decoder_in_channels", expected, self.decoder_in_channels)
        check(levels >= maps, "num_feature_levels", f"an int >= {maps}", levels)
        expected = f"num_feature_levels={levels}"
        check(self.decoder_n_levels == levels, "decoder_n_levels", expected, self.decoder_n_levels)
        points = self.points_per_level
        fits = len(points) == levels and sum(points) > 0
        expected = f"a positive int or {levels} counts, not all 0"
        check(fits, "decoder_n_points", expected, self.decoder_n_points)

    def _check_heads(self) -> None:
        heads = self.encoder_attention_heads
        width = self.encoder_hidden_dim
        multiple = f"a multiple of 4 and of encoder_attention_heads={heads}"
        check(width % heads == 0 and width % 4 == 0, "encoder_hidden_dim", multiple, width)
        heads = self.decoder_attention_heads
        expected = f"a multiple of decoder_attention_heads={heads}"
        check(self.d_model % heads == 0, "d_model", expected, self.d_model)
