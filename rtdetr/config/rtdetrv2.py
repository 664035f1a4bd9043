# SPDX-License-Identifier: Apache-2.0
"""The configuration of RT-DETRv2: what transformers calls RTDetrV2Config, and the settings it lacks."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ..checking import check, check_choice, hints_at_fields
from ..coco import COCO_NAMES
from ..errors import ModelError
from ..files import atomic_write
from ..hub import (
    CONFIG,
    HubOptions,
    ModelFiles,
    Settings,
    model_files,
    read_json_object,
    read_settings,
)
from ..keywords import CONFIG as CONFIG_WORDS
from ..keywords import LOADING, SAVING, understands
from .backbones import ACTIVATIONS, BACKBONES, BackboneConfig, ResNetConfig, backbone
from .fields import (
    CheckedFields,
    checked,
    distinct_ints,
    flag,
    image_size,
    ints,
    label_ids,
    names_by_id,
    number,
    one_of,
    optional,
    whole,
    whole_or_ints,
)
from .presets import Preset, find_preset

__all__ = ["RTDetrV2Config"]

MODEL_TYPES = ("rt_detr_v2", "rt_detr")
"""Version 1 has the architecture of version 2 with uniform points and bilinear sampling."""

QUERY_SELECTIONS = ("default", "one2many", "agnostic")
SAMPLING_METHODS = ("default", "discrete")
NAME_FIELDS = ("num_labels", "id2label", "label2id")
LABEL_FIELDS = (*NAME_FIELDS, "category_ids")

# Bounds keep a damaged file from taking the memory of the machine. The largest published model has 6 layers of width
# 512, 2048 hidden units and 300 queries.
MOST_LAYERS = 64
MOST_CHANNELS = 2**14
MOST_HIDDEN = 2**16
MOST_HEADS = 256
MOST_QUERIES = 10**5
MOST_CLASSES = 10**5
MOST_POINTS = 256
MOST_WEIGHT = 1e6


def _understands_transformers(cls: type[Any]) -> type[Any]:
    """Let the constructor take what transformers' takes."""
    cls.__init__ = understands(CONFIG_WORDS)(cls.__init__)
    return cls


@_understands_transformers
@hints_at_fields
@dataclass(kw_only=True)
class RTDetrV2Config(CheckedFields):
    """All that decides the shape and behavior of a model.

    A field is checked whenever it is set, and all together when a model is built. Setting ``num_labels`` or
    ``id2label`` sets the other label fields too; a model that exists keeps its shape.

    Names and defaults are those of transformers 5, which lacks ``freeze_at``, ``legacy_position_embedding``,
    ``query_select_method`` and ``eval_idx``, and takes one int for ``decoder_n_points``.
    Of denoising and losses, ``num_denoising`` alone shapes the model.

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

        Outputs

        output_attentions: a call that does not say returns attention weights.
        output_hidden_states: a call that does not say returns the states between layers.
        return_dict: a call that does not say returns a record, not a tuple.

        Labels

        num_labels: K, the number of classes; None takes it from ``id2label``, or 2 as transformers does.
        id2label: names of classes 0..K-1; None inverts ``label2id``, or names them LABEL_0, LABEL_1, ... As in
            transformers K is the number of names, also where they leave out ids; such a class has no name.
        label2id: index of each name; None inverts ``id2label``.
        category_ids: K whole numbers, the id of each class in the annotation files that it was trained on; None where
            that is not known.

    Raises:
        ValueError: a field is out of range, "field: expected X, got Y".
        TypeError: an unknown keyword, with the nearest known one.

    Source: RT-DETR (Zhao et al., 2023), sec. 4; RT-DETRv2 (Lv et al., 2024), sec. 3.
    """

    model_type: ClassVar[str] = "rt_detr_v2"

    aliases: ClassVar[Mapping[str, str]] = {
        "hidden_size": "d_model",
        "num_attention_heads": "encoder_attention_heads",
        "use_return_dict": "return_dict",
    }

    backbone_config: BackboneConfig = dataclasses.field(
        default_factory=ResNetConfig, metadata={"check": backbone}
    )
    freeze_backbone_batch_norms: bool = checked(True, flag)
    freeze_at: int = checked(-1, whole(-1, 64))

    encoder_hidden_dim: int = checked(256, whole(1, MOST_CHANNELS))
    encoder_in_channels: tuple[int, ...] = checked((512, 1024, 2048), ints(1, MOST_CHANNELS))
    feat_strides: tuple[int, ...] = checked((8, 16, 32), ints(1, 1024))
    encoder_layers: int = checked(1, whole(0, MOST_LAYERS))
    encoder_ffn_dim: int = checked(1024, whole(1, MOST_HIDDEN))
    encoder_attention_heads: int = checked(8, whole(1, MOST_HEADS))
    encode_proj_layers: tuple[int, ...] = checked((2,), ints(0, 64))
    encoder_activation_function: str = checked("gelu", one_of(*ACTIVATIONS))
    activation_function: str = checked("silu", one_of(*ACTIVATIONS))
    hidden_expansion: float = checked(1.0, number(0.01, 8))
    positional_encoding_temperature: int = checked(10000, whole(1, 10**9))
    legacy_position_embedding: bool = checked(False, flag)
    # The original and transformers order the residual differently here, and no weights use it.
    normalize_before: bool = checked(False, one_of(False))
    eval_size: tuple[int, int] | None = checked(None, optional(image_size))

    d_model: int = checked(256, whole(1, MOST_CHANNELS))
    num_queries: int = checked(300, whole(1, MOST_QUERIES))
    query_select_method: str = checked("default", one_of(*QUERY_SELECTIONS))
    learn_initial_query: bool = checked(False, flag)
    anchor_image_size: tuple[int, int] | None = checked(None, optional(image_size))

    decoder_in_channels: tuple[int, ...] = checked((256, 256, 256), ints(1, MOST_CHANNELS))
    num_feature_levels: int = checked(3, whole(1, 64))
    decoder_n_levels: int = checked(3, whole(1, 64))
    decoder_n_points: int | tuple[int, ...] = checked(4, whole_or_ints(0, MOST_POINTS))
    decoder_method: str = checked("default", one_of(*SAMPLING_METHODS))
    decoder_offset_scale: float = checked(0.5, number(-1e3, 1e3))
    decoder_layers: int = checked(6, whole(1, MOST_LAYERS))
    eval_idx: int = checked(-1, whole(-MOST_LAYERS, MOST_LAYERS - 1))
    decoder_ffn_dim: int = checked(1024, whole(1, MOST_HIDDEN))
    decoder_attention_heads: int = checked(8, whole(1, MOST_HEADS))
    decoder_activation_function: str = checked("relu", one_of(*ACTIVATIONS))
    with_box_refine: bool = checked(True, one_of(True))

    dropout: float = checked(0.0, number(0, 1))
    activation_dropout: float = checked(0.0, number(0, 1))
    attention_dropout: float = checked(0.0, number(0, 1))
    layer_norm_eps: float = checked(1e-5, number(0, 1))
    batch_norm_eps: float = checked(1e-5, number(0, 1))
    initializer_range: float = checked(0.01, number(0, 1e3))
    # 0 and 1 are the logits of infinity.
    initializer_bias_prior_prob: float | None = checked(None, optional(number(1e-9, 1 - 1e-9)))

    num_denoising: int = checked(100, whole(0, MOST_QUERIES))
    label_noise_ratio: float = checked(0.5, number(0, 1))
    box_noise_scale: float = checked(1.0, number(0, MOST_WEIGHT))
    matcher_alpha: float = checked(0.25, number(0, 1))
    matcher_gamma: float = checked(2.0, number(0, 100))
    matcher_class_cost: float = checked(2.0, number(0, MOST_WEIGHT))
    matcher_bbox_cost: float = checked(5.0, number(0, MOST_WEIGHT))
    matcher_giou_cost: float = checked(2.0, number(0, MOST_WEIGHT))
    use_focal_loss: bool = checked(True, flag)
    auxiliary_loss: bool = checked(True, flag)
    focal_loss_alpha: float = checked(0.75, number(0, 1))
    focal_loss_gamma: float = checked(2.0, number(0, 100))
    weight_loss_vfl: float = checked(1.0, number(0, MOST_WEIGHT))
    weight_loss_bbox: float = checked(5.0, number(0, MOST_WEIGHT))
    weight_loss_giou: float = checked(2.0, number(0, MOST_WEIGHT))
    eos_coefficient: float = checked(1e-4, number(0, MOST_WEIGHT))

    is_encoder_decoder: bool = checked(True, flag)
    tie_word_embeddings: bool = checked(True, flag)

    output_attentions: bool = checked(False, flag)
    output_hidden_states: bool = checked(False, flag)
    return_dict: bool = checked(True, flag)

    # None until __post_init__ fills them in.
    num_labels: int = dataclasses.field(
        default=None,  # type: ignore[assignment]
        metadata={"check": optional(whole(1, MOST_CLASSES))},
    )
    id2label: dict[int, str] = dataclasses.field(
        default=None,  # type: ignore[arg-type]
        metadata={"check": optional(names_by_id)},
    )
    label2id: dict[str, int] = dataclasses.field(
        default=None,  # type: ignore[arg-type]
        metadata={"check": optional(label_ids)},
    )
    category_ids: tuple[int, ...] | None = checked(None, optional(distinct_ints))

    def __post_init__(self) -> None:
        self._name_labels()
        self.validate()

    def __setattr__(self, name: str, value: Any) -> None:
        if name in CONFIG_WORDS.without_effect:
            return
        is_built = "category_ids" in vars(self)  # the last field
        super().__setattr__(name, value)
        if is_built and name in ("num_labels", "id2label"):
            is_same = name == "num_labels" and value == len(self.id2label)
            if not is_same:
                vars(self).update(dict.fromkeys(NAME_FIELDS) | {name: vars(self)[name]})
                self._name_labels()
                if self.category_ids is not None and len(self.category_ids) != self.num_labels:
                    self.category_ids = None

    def validate(self) -> None:
        """Whether the fields fit together; a model asks this when it is built.

        Raises:
            ValueError: they do not, "field: expected X, got Y".
        """
        self.backbone_config.validate()
        self._merge_equal_points()
        self._check_labels()
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
    def use_return_dict(self) -> bool:
        return self.return_dict

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
        return type(self)(**_with_changes(vars(self), changes))

    def update(self, changes: Mapping[str, Any]) -> None:
        """Set several fields."""
        for name, value in changes.items():
            setattr(self, name, value)

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
    def from_dict(cls, values: Mapping[str, Any], **changes: Any) -> RTDetrV2Config:
        """The configuration of a config.json; keys that are no fields, of which transformers writes many, are left out.

        Args:
            values: what the file holds.
            **changes: fields to take instead of the file's; any of the three label fields replaces all of them.

        Raises:
            ValueError: another kind of model, a backbone that is not built here, or a field is out of range.
            TypeError: a change is of no field, with the nearest one.
        """
        check_choice("model_type", values.get("model_type", cls.model_type), MODEL_TYPES)
        external = bool(values.get("use_timm_backbone")) and not values.get("backbone_config")
        check(not external, "use_timm_backbone", "a backbone_config", values.get("backbone"))
        known = {field.name for field in dataclasses.fields(cls)}
        fields = {name: value for name, value in values.items() if name in known}
        if fields.get("id2label"):
            fields.pop("num_labels", None)
        return cls(**_with_changes(fields, changes))

    @classmethod
    def from_json_file(cls, path: str | Path, **changes: Any) -> RTDetrV2Config:
        """The configuration of one file.

        Raises:
            ModelError: it holds no configuration of this kind of model; the message names the field. It is a
                ``ValueError``.
            TypeError: a change is of no field.
        """
        return cls._from_settings(Settings(read_json_object(Path(path)), str(path)), **changes)

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
            "label2id": dict(self.label2id),
        }

    def to_diff_dict(self) -> dict[str, Any]:
        """Those entries of :meth:`to_dict` that differ from the defaults, and the kind of model."""
        defaults = type(self)().to_dict()
        return {
            name: value
            for name, value in self.to_dict().items()
            if name == "model_type" or value != defaults[name]
        }

    def to_json_string(self, use_diff: bool = True) -> str:
        """:meth:`to_diff_dict`, or :meth:`to_dict`, as text."""
        values = self.to_diff_dict() if use_diff else self.to_dict()
        return json.dumps(values, indent=2, sort_keys=True, allow_nan=False) + "\n"

    def to_json_file(self, path: str | Path, use_diff: bool = True) -> None:
        """Write :meth:`to_json_string` into one file."""
        with atomic_write(path) as temporary:
            temporary.write_text(self.to_json_string(use_diff), encoding="utf-8")

    @classmethod
    @understands(LOADING)
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
        subfolder: str | None = None,
        **changes: Any,
    ) -> RTDetrV2Config:
        """The configuration of a directory, a config.json, a checkpoint of ours or beside one, or a hub name.

        Args:
            source: where it is.
            revision: see :class:`rtdetr.hub.HubOptions`, as the next five.
            cache_dir: where downloads are kept.
            token: of the hub.
            local_files_only: do not use the network.
            force_download: download again what is in the cache.
            subfolder: of the directory or repository.
            **changes: fields to take instead of the file's; any of the three label fields replaces all of them.

        Raises:
            ModelError: there is none, a field is out of range, or the hub cannot be reached.
            TypeError: a change is of no field, with the nearest one.
        """
        options = HubOptions(
            revision=revision,
            cache_dir=cache_dir,
            token=token,
            local_files_only=local_files_only,
            force_download=force_download,
            subfolder=subfolder,
        )
        files = model_files(source, options)
        if files is None:
            preset = find_preset(str(source))
            raise ModelError(f'{source}: a preset. Use RTDetrV2Config.from_preset("{preset.name}")')
        return cls.from_files(files, **changes)

    @classmethod
    def from_files(cls, files: ModelFiles, **changes: Any) -> RTDetrV2Config:
        """The configuration that lies with the files of a model.

        Raises:
            ModelError: there is none, or a field is out of range.
        """
        settings = read_settings(files, CONFIG)
        if settings is None:
            raise ModelError(f"{files}: no {CONFIG} there")
        return cls._from_settings(settings, **changes)

    @classmethod
    def _from_settings(cls, settings: Settings, **changes: Any) -> RTDetrV2Config:
        try:
            return cls.from_dict(settings.values, **changes)
        except ValueError as error:
            raise ModelError(f"{settings.origin}: {error}") from error

    @understands(SAVING)
    def save_pretrained(self, directory: str | Path) -> None:
        """Write ``config.json`` into ``directory``."""
        self.to_json_file(Path(directory) / CONFIG, use_diff=False)

    def _merge_equal_points(self) -> None:
        points = self.decoder_n_points
        if isinstance(points, tuple):
            uniform = len(points) == self.decoder_n_levels and len(set(points)) == 1
            self.decoder_n_points = points[0] if uniform else points

    def _name_labels(self) -> None:
        """Fill in those of the three label fields that are None."""
        own = vars(self)
        if self.id2label is None and self.label2id is None:
            count = 2 if self.num_labels is None else self.num_labels
            own["id2label"] = {index: f"LABEL_{index}" for index in range(count)}
        elif self.id2label is None:
            own["id2label"] = {index: name for name, index in self.label2id.items()}
        if self.num_labels is None:
            own["num_labels"] = len(self.id2label)
        if self.label2id is None:
            own["label2id"] = {name: index for index, name in self.id2label.items()}

    def _check_labels(self) -> None:
        count = len(self.id2label)
        expected = f"{count}, the number of names in id2label"
        check(self.num_labels == count, "num_labels", expected, self.num_labels)
        ids = self.category_ids
        fits = ids is None or len(ids) == count
        check(fits, "category_ids", f"{count} values, one for each class", ids)

    def _check_layers(self) -> None:
        layers = self.decoder_layers
        in_range = -layers <= self.eval_idx < layers
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
        strides = self.feat_strides
        # Images are padded to multiples of 32, which the coarsest map then divides.
        fits = all(32 % stride == 0 for stride in strides) and sorted(set(strides)) == list(strides)
        check(fits, "feat_strides", "rising powers of 2, at most 32", strides)
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


def _with_changes(fields: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``fields`` with ``changes``. A label field replaces all three, unless it is the count that there is."""
    labels = {name for name in NAME_FIELDS if changes.get(name) is not None}
    changes = {
        name: value for name, value in changes.items() if name not in NAME_FIELDS or name in labels
    }
    names = fields.get("id2label")
    if (
        labels == {"num_labels"}
        and isinstance(names, Mapping)
        and len(names) == changes["num_labels"]
    ):
        return {**fields, **changes}
    return {**fields, **(dict.fromkeys(LABEL_FIELDS) if labels else {}), **changes}
