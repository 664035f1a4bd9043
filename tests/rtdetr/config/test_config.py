# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import rtdetr
from rtdetr.coco import COCO_NAMES
from rtdetr.config import HGNetV2Config, ResNetConfig, RTDetrV2Config
from rtdetr.config.presets import ALIASES, PRESETS, find_preset
from rtdetr.errors import ModelError
from rtdetr.model import RTDetrV2ForObjectDetection


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
        ({"decoder_layers": 0}, r"decoder_layers: expected an int in 1\.\.64, got 0"),
        ({"num_queries": 1.5}, r"num_queries: expected an int in 1\.\.100000, got 1\.5"),
        ({"freeze_at": -2}, r"freeze_at: expected an int in -1\.\.64, got -2"),
        ({"eval_idx": 6}, r"eval_idx: expected a layer in -6\.\.5, got 6"),
        ({"dropout": 1.5}, r"dropout: expected a number in 0\.\.1, got 1\.5"),
        ({"decoder_method": "nearest"}, "decoder_method: expected 'default' or 'discrete', got"),
        ({"query_select_method": "best"}, "query_select_method: expected 'default' or"),
        ({"activation_function": "tanh"}, "activation_function: expected 'relu' or"),
        ({"normalize_before": True}, "normalize_before: expected False, got True"),
        ({"with_box_refine": False}, "with_box_refine: expected True, got False"),
        ({"encoder_in_channels": (1, 2, 3)}, r"encoder_in_channels: expected \(512, 1024, 2048\)"),
        (
            {"feat_strides": (8, 16, 7)},
            r"feat_strides: expected rising powers of 2, at most 32, got",
        ),
        ({"feat_strides": (8, 16, 64)}, "feat_strides: expected rising powers of 2"),
        ({"feat_strides": (16, 16, 32)}, "feat_strides: expected rising powers of 2"),
        ({"decoder_in_channels": (256, 256)}, "decoder_in_channels: expected 3 values, got"),
        ({"encoder_hidden_dim": 384}, "decoder_in_channels: expected encoder_hidden_dim=384 for"),
        ({"decoder_n_levels": 4}, "decoder_n_levels: expected num_feature_levels=3, got 4"),
        ({"decoder_n_points": (4, 4)}, "decoder_n_points: expected a positive int or 3 counts"),
        ({"decoder_n_points": (0, 0, 0)}, "decoder_n_points: expected"),
        (
            {"decoder_n_points": (4, -1, 4)},
            r"decoder_n_points: expected an int in 0\.\.256, got -1",
        ),
        ({"encode_proj_layers": (3,)}, r"encode_proj_layers: expected levels in 0\.\.2, got"),
        ({"d_model": 100}, "d_model: expected a multiple of decoder_attention_heads=8, got 100"),
        ({"id2label": ["a", "b"]}, r"id2label: expected names by id, got \['a', 'b'\]"),
        ({"id2label": {"a": 0}}, r"id2label: expected ids in 0\.\.1000000000, got 'a'"),
        ({"id2label": {}}, r"id2label: expected at least one name, got \{\}"),
        ({"label2id": {"a": "b"}}, r"label2id: expected ids in 0\.\.1000000000, got 'b'"),
        (
            {"id2label": {0: "a"}, "num_labels": 2},
            "num_labels: expected 1, the number of names in id2label",
        ),
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


@pytest.mark.parametrize("config", CONFIGS)
def test_every_field_is_documented_once(config: Any) -> None:
    arguments = config.__doc__.split("Args:\n")[1].split("\n    Raises:")[0]
    documented = re.findall(r"^ {8}(\w+): \S", arguments, re.MULTILINE)
    assert sorted(documented) == sorted(field.name for field in dataclasses.fields(config))


ALL_FIELDS = [(config, field.name) for config in CONFIGS for field in dataclasses.fields(config)]


@pytest.mark.parametrize(("config", "name"), ALL_FIELDS)
@pytest.mark.parametrize(
    "junk",
    ["x", [], [[]], {"a": "b"}, float("nan"), float("inf"), 2**70, -(2**70), "9" * 99],
    ids=["text", "list", "lists", "dict", "nan", "inf", "large", "small", "digits"],
)
def test_fields_refuse_junk(config: Any, name: str, junk: Any) -> None:
    if isinstance(junk, list) and name in LISTS:
        junk = [None]  # an empty list may be one of no levels
    if isinstance(junk, dict) and name == "backbone_config":
        junk = {"depths": junk}  # unknown keys of a file are left out
    changed = config()
    with pytest.raises(ValueError, match=rf"^({name}|depths): expected "):
        setattr(changed, name, junk)
    assert changed == config()


LISTS = {name for config, name in ALL_FIELDS if isinstance(getattr(config(), name), tuple)} | {
    "decoder_n_points"
}


@pytest.mark.parametrize(
    "changes",
    [
        {"decoder_layers": 10**9},
        {"encoder_layers": 10**9},
        {"decoder_n_points": 10**9},
        {"decoder_n_points": [10**9] * 3},
        {"d_model": 2**70},
        {"num_queries": 10**9},
        {"num_labels": 10**9},
        {"encode_proj_layers": [2] * 10**4},
        {"encoder_in_channels": [2**40] * 3},
        {"eval_size": 10**9},
    ],
    ids=str,
)
def test_fields_have_upper_bounds(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=rf"^{next(iter(changes))}: expected "):
        RTDetrV2Config(**changes)


def test_scalars_of_numpy_and_torch_are_numbers() -> None:
    config = RTDetrV2Config(
        num_labels=np.int64(3), num_queries=torch.tensor(7), dropout=np.float32(0)
    )
    assert [type(value) for value in (config.num_labels, config.num_queries, config.dropout)] == [
        *(int, int, float),
    ]
    json.dumps(config.to_dict())


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
    for named in (
        ResNetConfig.from_dict({"out_features": ["stage3", "stage4"]}),
        ResNetConfig(out_features=["stage3", "stage4"]),  # type: ignore[call-arg]
    ):
        assert named.out_indices == (3, 4)
        assert named.out_features == ["stage3", "stage4"]
    with pytest.raises(ValueError, match=r"out_features=\['stage1'\] and out_indices=\[2\] differ"):
        ResNetConfig(out_features=["stage1"], out_indices=[2])  # type: ignore[call-arg, arg-type]
    with pytest.raises(ValueError, match=r"^out_indices: expected an int in"):
        ResNetConfig(out_features=["layer1"])  # type: ignore[call-arg]


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


def test_fields_can_be_set_and_are_checked() -> None:
    config = RTDetrV2Config()
    config.hidden_size = 128  # type: ignore[misc]
    config.update({"num_queries": 7, "backbone_config": {"depths": [1, 1, 1, 1]}})
    assert (config.d_model, config.num_queries, config.backbone_config.depths) == (
        *(128, 7, (1, 1, 1, 1)),
    )
    with pytest.raises(ValueError, match=r"^d_model: expected an int in 1\.\.16384, got 'x'"):
        config.d_model = "x"  # type: ignore[assignment]
    with pytest.raises(AttributeError, match=r"no field 'num_query'\. Did you mean .num_queries."):
        config.num_query = 5  # type: ignore[attr-defined]


def test_setting_labels_sets_all_of_them() -> None:
    config = RTDetrV2Config(id2label={0: "cat", 1: "dog"})
    config.num_labels = 2
    assert config.id2label == {0: "cat", 1: "dog"}
    config.num_labels = 3
    assert config.id2label == {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}
    assert config.label2id == {"LABEL_0": 0, "LABEL_1": 1, "LABEL_2": 2}
    config.id2label = {0: "cat"}
    assert (config.num_labels, config.label2id) == (1, {"cat": 0})
    config.id2label[1] = "dog"
    with pytest.raises(
        ValueError, match=r"^num_labels: expected 2, the number of names in id2label"
    ):
        config.validate()
    with pytest.raises(ValueError, match=r"^num_labels: expected 2"):
        RTDetrV2ForObjectDetection(config)


def test_fields_that_do_not_fit_are_refused_when_a_model_is_built() -> None:
    config = RTDetrV2Config()
    config.d_model = 100
    with pytest.raises(
        ValueError, match=r"^d_model: expected a multiple of decoder_attention_heads"
    ):
        RTDetrV2ForObjectDetection(config)
    config = RTDetrV2Config()
    config.backbone_config.depths = (1, 2)
    with pytest.raises(ValueError, match=r"^depths: expected 4 counts"):
        RTDetrV2ForObjectDetection(config)


def test_the_same_count_keeps_the_names() -> None:
    config = RTDetrV2Config(id2label={0: "cat", 1: "dog"})
    assert config.replace(num_labels=2) == config
    assert RTDetrV2Config.from_dict(config.to_dict(), num_labels=2) == config
    assert config.replace(num_labels=3).id2label[0] == "LABEL_0"


def test_ids_may_leave_gaps() -> None:
    config = RTDetrV2Config(id2label={"1": "cat", "3": "dog"})
    assert (config.num_labels, config.id2label) == (2, {1: "cat", 3: "dog"})
    assert RTDetrV2Config.from_dict({"id2label": ["junk"]}, id2label={0: "cat"}).num_labels == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("null", "expected a JSON object, got NoneType"),
        ("[]", "expected a JSON object, got list"),
        ("[" * 100_000, "not JSON"),
        ("{", "not JSON"),
        ("\xff", "not a readable JSON file"),
        ('{"matcher_gamma": "x"}', r"matcher_gamma: expected a number in 0\.\.100, got 'x'"),
        ('{"box_noise_scale": null}', "box_noise_scale: expected a number"),
        ('{"backbone_config": {"depths": "x"}}', "depths: expected a list of ints, got 'x'"),
        ('{"backbone_config": []}', "backbone_config: expected ResNetConfig or"),
        ('{"backbone_config": {"model_type": []}}', r"backbone_config\.model_type: expected"),
        ('{"model_type": {}}', "model_type: expected"),
    ],
    ids=lambda text: text[:40],
)
def test_files_of_junk_are_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(ModelError, match=rf"^{re.escape(str(path))}: {message}"):
        RTDetrV2Config.from_pretrained(tmp_path)


def test_changes_of_a_file(tmp_path: Path) -> None:
    RTDetrV2Config(id2label={0: "cat", 1: "dog"}, anchor_image_size=64).save_pretrained(tmp_path)
    load = RTDetrV2Config.from_pretrained
    assert load(tmp_path, num_labels=5).num_labels == 5
    assert load(tmp_path, id2label={0: "x"}).id2label == {0: "x"}
    assert load(tmp_path, num_queries=7, anchor_image_size=None).anchor_image_size is None
    with pytest.raises(TypeError, match=r'num_querys.*Did you mean "num_queries"'):
        load(tmp_path, num_querys=7)
    assert load(tmp_path.parent, subfolder=tmp_path.name) == load(tmp_path)


def test_json_forms(tmp_path: Path) -> None:
    config = RTDetrV2Config(num_queries=7, num_labels=3)
    assert set(config.to_diff_dict()) == {"model_type", "num_queries", "id2label", "label2id"}
    for use_diff in (True, False):
        config.to_json_file(tmp_path / "x.json", use_diff)
        text = (tmp_path / "x.json").read_text(encoding="utf-8")
        assert text == config.to_json_string(use_diff)
        assert RTDetrV2Config.from_json_file(tmp_path / "x.json") == config
    assert RTDetrV2Config(**config.to_dict()) == config


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
    assert set(PRESETS) == set(facts) | discrete | {"rtdetrv2_tiny"}
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
        ("tiny", "rtdetrv2_tiny"),
        ("rtdetrv2-tiny", "rtdetrv2_tiny"),
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
