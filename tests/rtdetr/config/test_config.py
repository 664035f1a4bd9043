# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import rtdetr
from rtdetr.coco import COCO_NAMES
from rtdetr.config import HGNetV2Config, ResNetConfig, RTDetrV2Config
from rtdetr.config.presets import ALIASES, PRESETS, find_preset
from rtdetr.errors import ModelError


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_a_file(name: str, tmp_path: Path) -> None:
    config = RTDetrV2Config.from_preset(name)
    config.save_pretrained(tmp_path)
    assert RTDetrV2Config.from_pretrained(tmp_path) == config
    assert RTDetrV2Config.from_pretrained(tmp_path / "config.json") == config


def test_every_field_survives_a_file(tmp_path: Path) -> None:
    changed = RTDetrV2Config(
        decoder_n_points=(2, 6, 3),
        eval_idx=1,
        freeze_at=2,
        query_select_method="agnostic",
        legacy_position_embedding=True,
        eval_size=(640, 480),
        num_denoising=0,
        id2label={0: "cat", 1: "dog", 2: "bird"},
        backbone_config=HGNetV2Config(),
        freeze_backbone_batch_norms=False,
        initializer_bias_prior_prob=0.02,
    )
    changed.save_pretrained(tmp_path)
    assert RTDetrV2Config.from_pretrained(tmp_path) == changed


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"decoder_layers": 0}, "decoder_layers: expected an int >= 1, got 0"),
        ({"num_queries": 1.5}, r"num_queries: expected an int >= 1, got 1\.5"),
        ({"freeze_at": -2}, "freeze_at: expected an int >= -1, got -2"),
        ({"eval_idx": 6}, r"eval_idx: expected a layer in -6\.\.5, got 6"),
        ({"dropout": 1.5}, r"dropout: expected a number in 0\.\.1, got 1\.5"),
        ({"decoder_method": "nearest"}, "decoder_method: expected 'default' or 'discrete', got"),
        ({"query_select_method": "best"}, "query_select_method: expected 'default' or"),
        ({"activation_function": "tanh"}, "activation_function: expected 'relu' or"),
        ({"normalize_before": True}, "normalize_before: expected False, got True"),
        ({"with_box_refine": False}, "with_box_refine: expected True, got False"),
        ({"encoder_in_channels": (1, 2, 3)}, r"encoder_in_channels: expected \(512, 1024, 2048\)"),
        ({"decoder_in_channels": (256, 256)}, "decoder_in_channels: expected 3 values, got"),
        ({"encoder_hidden_dim": 384}, "decoder_in_channels: expected encoder_hidden_dim=384 for"),
        ({"decoder_n_levels": 4}, "decoder_n_levels: expected num_feature_levels=3, got 4"),
        ({"decoder_n_points": (4, 4)}, "decoder_n_points: expected a positive int or 3 counts"),
        ({"decoder_n_points": (0, 0, 0)}, "decoder_n_points: expected"),
        ({"decoder_n_points": (4, -1, 4)}, "decoder_n_points: expected an int >= 0, got -1"),
        ({"encode_proj_layers": (3,)}, r"encode_proj_layers: expected levels in 0\.\.2, got"),
        ({"d_model": 100}, "d_model: expected a multiple of decoder_attention_heads=8, got 100"),
        ({"id2label": {0: "a", 2: "b"}}, r"id2label: expected names for the ids 0\.\.K-1"),
        ({"id2label": {0: "a"}, "num_labels": 2}, "num_labels: expected 1, the number of labels"),
        ({"backbone_config": "resnet50"}, "backbone_config: expected ResNetConfig or"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_wrong_fields_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        RTDetrV2Config(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer_type": "wide"}, "layer_type: expected 'basic' or 'bottleneck', got 'wide'"),
        ({"depths": (1, 2)}, "depths: expected 4 counts, as many as hidden_sizes, got"),
        ({"out_indices": (3, 2)}, r"out_indices: expected increasing stage numbers in 1\.\.4, got"),
        ({"out_indices": (5,)}, r"out_indices: expected increasing stage numbers in 1\.\.4, got"),
    ],
)
def test_wrong_backbones_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        ResNetConfig(**changes)


CONFIGS = (RTDetrV2Config, ResNetConfig, HGNetV2Config)
# Fields whose range depends on other fields.
CHECKED_TOGETHER = {"eval_idx", "num_labels", "id2label"}
# Fields that take any value of their type.
FREE = {
    *("freeze_backbone_batch_norms", "legacy_position_embedding", "learn_initial_query"),
    *("decoder_offset_scale", "layer_norm_eps", "batch_norm_eps"),
    *("initializer_range", "initializer_bias_prior_prob", "box_noise_scale"),
    *("matcher_alpha", "matcher_gamma"),
    *("matcher_class_cost", "matcher_bbox_cost", "matcher_giou_cost"),
    *("use_focal_loss", "auxiliary_loss", "focal_loss_alpha", "focal_loss_gamma"),
    *("weight_loss_vfl", "weight_loss_bbox", "weight_loss_giou", "eos_coefficient"),
    *("is_encoder_decoder", "tie_word_embeddings", "label2id"),
    *("downsample_in_first_stage", "downsample_in_bottleneck", "use_learnable_affine_block"),
}


@pytest.mark.parametrize("config", CONFIGS)
def test_every_field_is_documented_once(config: Any) -> None:
    arguments = config.__doc__.split("Args:\n")[1].split("\n    Raises:")[0]
    documented = re.findall(r"^ {8}(\w+): \S", arguments, re.MULTILINE)
    assert sorted(documented) == sorted(field.name for field in dataclasses.fields(config))


def test_every_field_is_checked_or_free() -> None:
    fields = [field for config in CONFIGS for field in dataclasses.fields(config)]
    unchecked = {field.name for field in fields if "check" not in field.metadata}
    assert unchecked == CHECKED_TOGETHER | FREE


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (config, field.name)
        for config in CONFIGS
        for field in dataclasses.fields(config)
        if "check" in field.metadata
    ],
)
def test_checked_fields_refuse_other_types(config: Any, name: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name}: expected .*, got \{{1: 2\}}$"):
        config(**{name: {1: 2}})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stem_channels": (3, 32)}, r"stem_channels: expected 3 values, got \(3, 32\)"),
        ({"stem_strides": (2, 1)}, r"stem_strides: expected 5 values, got \(2, 1\)"),
        ({"stage_num_blocks": (1, 1)}, r"stage_num_blocks: expected 4 values, got \(1, 1\)"),
        ({"stage_light_block": (True,)}, r"stage_light_block: expected 4 values, got \(True,\)"),
    ],
)
def test_wrong_stages_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        HGNetV2Config(**changes)


def test_image_sizes_are_pairs() -> None:
    assert RTDetrV2Config(eval_size=640).eval_size == (640, 640)
    assert RTDetrV2Config(anchor_image_size=[480, 640]).anchor_image_size == (480, 640)
    with pytest.raises(ValueError, match=r"^eval_size: expected 2 values, got \(1, 2, 3\)"):
        RTDetrV2Config(eval_size=(1, 2, 3))


@pytest.mark.parametrize(
    ("make", "typo", "hint"),
    [
        (RTDetrV2Config, "num_label", "num_labels"),
        (RTDetrV2Config, "decoder_points", "decoder_n_points"),
        (ResNetConfig, "depth", "depths"),
        (HGNetV2Config, "stem_channel", "stem_channels"),
    ],
)
def test_unknown_keywords_get_a_suggestion(make: Any, typo: str, hint: str) -> None:
    with pytest.raises(TypeError, match=f'{typo}.*Did you mean "{hint}"'):
        make(**{typo: 1})


def test_unknown_keys_of_a_file_are_left_out() -> None:
    written = RTDetrV2Config.from_preset("rtdetrv2_r18vd").to_dict()
    later = {"transformers_version": "9.0", "use_timm_backbone": False, "new_field": {"a": 1}}
    assert RTDetrV2Config.from_dict(written | later) == RTDetrV2Config.from_dict(written)


def test_other_models_and_backbones_of_a_file_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^model_type: expected 'rt_detr_v2' or .* got 'detr'"):
        RTDetrV2Config.from_dict({"model_type": "detr"})
    with pytest.raises(ValueError, match=r"^backbone_config.model_type: .* got 'swin'"):
        RTDetrV2Config.from_dict({"backbone_config": {"model_type": "swin"}})
    with pytest.raises(ValueError, match=r"^use_timm_backbone: expected a backbone_config"):
        RTDetrV2Config.from_dict({"use_timm_backbone": True, "backbone": "resnet50"})


def test_stages_of_a_file_may_be_named() -> None:
    named = ResNetConfig.from_dict({"out_features": ["stage3", "stage4"]})
    assert named.out_indices == (3, 4)


def test_labels() -> None:
    assert RTDetrV2Config().id2label == {0: "LABEL_0", 1: "LABEL_1"}
    assert RTDetrV2Config(num_labels=3).num_labels == 3
    named = RTDetrV2Config(label2id={"cat": 0, "dog": 1, "bird": 2})
    assert (named.num_labels, named.id2label[1]) == (3, "dog")
    from_file = RTDetrV2Config.from_dict({"id2label": {"1": "dog", "0": "cat"}})
    assert from_file.id2label == {0: "cat", 1: "dog"}
    assert from_file.label2id == {"cat": 0, "dog": 1}
    changed = RTDetrV2Config.from_preset("rtdetrv2-s").replace(num_labels=2)
    assert changed.id2label == {0: "LABEL_0", 1: "LABEL_1"}


def test_configurations_do_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        RTDetrV2Config().d_model = 128  # type: ignore[misc]


def test_equal_points_are_one_number() -> None:
    assert RTDetrV2Config(decoder_n_points=(4, 4, 4)).decoder_n_points == 4
    assert RTDetrV2Config(decoder_n_points=[2, 6, 3]).points_per_level == (2, 6, 3)


def test_lists_of_a_file_equal_tuples_of_python() -> None:
    text = json.dumps(RTDetrV2Config(decoder_n_points=(2, 6, 3)).to_dict())
    assert RTDetrV2Config.from_dict(json.loads(text)) == RTDetrV2Config(decoder_n_points=(2, 6, 3))


def test_presets_are_those_of_the_paper() -> None:
    # Name, decoder layers, layer of evaluation, encoder width, expansion, trained normalization, AP.
    facts = {
        "rtdetrv2_r18vd": (3, 2, 256, 0.5, True, 48.1),
        "rtdetrv2_r34vd": (4, 3, 256, 0.5, True, 49.9),
        "rtdetrv2_r50vd_m": (6, 2, 256, 0.5, False, 51.9),
        "rtdetrv2_r50vd": (6, 5, 256, 1.0, False, 53.4),
        "rtdetrv2_r101vd": (6, 5, 384, 1.0, False, 54.3),
        "rtdetrv2_hgnetv2_l": (6, 5, 256, 1.0, False, 52.9),
        "rtdetrv2_hgnetv2_x": (6, 5, 384, 1.0, False, 54.7),
        "rtdetrv2_hgnetv2_h": (6, 5, 512, 1.0, False, 56.3),
    }
    for name, expected in facts.items():
        config = RTDetrV2Config.from_preset(name)
        trained = not config.freeze_backbone_batch_norms and config.freeze_at == -1
        found = (config.decoder_layers, config.last_layer, config.encoder_hidden_dim)
        found += (config.hidden_expansion, trained, PRESETS[name].ap)
        assert found == expected, name
        assert config.decoder_method == "default"
    discrete = {name for name in PRESETS if name.endswith("_dsp")}
    assert discrete == {f"rtdetrv2_{v}_dsp" for v in ("r18vd", "r34vd", "r50vd_m", "r50vd")}
    assert set(PRESETS) == set(facts) | discrete
    for name in discrete:
        assert RTDetrV2Config.from_preset(name).decoder_method == "discrete"


def test_presets_name_the_classes_of_coco() -> None:
    names = RTDetrV2Config.from_preset("rtdetrv2_r18vd").id2label
    assert len(names) == 80 == len(set(COCO_NAMES))
    assert [names[index] for index in (0, 15, 57, 65, 79)] == [
        *("person", "cat", "couch", "remote", "toothbrush"),
    ]


@pytest.mark.parametrize(
    ("word", "name"),
    [
        *ALIASES.items(),
        ("rtdetrv2-m*", "rtdetrv2_r34vd"),
        ("RTDETRv2-S", "rtdetrv2_r18vd"),
        ("rtdetrv2-s-dsp", "rtdetrv2_r18vd_dsp"),
        ("r50vd_m", "rtdetrv2_r50vd_m"),
        ("rtdetr_v2_r101vd", "rtdetrv2_r101vd"),
    ],
)
def test_presets_have_other_names(word: str, name: str) -> None:
    assert find_preset(word).name == name


def test_unknown_presets_get_a_suggestion() -> None:
    text = 'No model "rtdetr-v2-small". Did you mean "rtdetrv2-s"? See: rtdetr models'
    with pytest.raises(ModelError) as raised:
        RTDetrV2Config.from_preset("rtdetr-v2-small")
    assert str(raised.value) == text
    with pytest.raises(ModelError, match='"rtdetrv2_r50vd"'):
        find_preset("rtdetrv2_r50dv")
    with pytest.raises(ModelError):
        find_preset("rtdetrv2_r101vd_dsp")


def test_preset_takes_changes() -> None:
    config = RTDetrV2Config.from_preset("rtdetrv2_r18vd", decoder_n_points=(2, 6, 3), num_labels=1)
    assert config.points_per_level == (2, 6, 3)
    assert config.id2label == {0: "LABEL_0"}


def test_package_is_light_until_used() -> None:
    code = (
        "import rtdetr, sys; heavy = {'torch', 'transformers', 'numpy', 'huggingface_hub'};"
        "found = heavy & set(sys.modules); assert not found, found;"
        "rtdetr.find_preset('rtdetrv2-s'); import rtdetr.config; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(rtdetr.__file__).parents[1])


def test_package_offers_what_it_lists() -> None:
    for name in rtdetr.__all__:
        assert getattr(rtdetr, name) is not None, name
    with pytest.raises(AttributeError, match="nothing_such"):
        rtdetr.nothing_such  # noqa: B018 - the look-up is the test
