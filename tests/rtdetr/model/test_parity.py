# SPDX-License-Identifier: Apache-2.0
"""Detectors give what transformers gives, from directories that either of both wrote."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from model_cases import image, numbers, partner_distance, tiny_model
from torch import nn

from rtdetr.config import RTDetrV2Config
from rtdetr.model import RTDetrV2ForObjectDetection, RTDetrV2Model

TOLERANCE = 1e-4  # float32 through some fifty layers; 1e-5 is what comes out
RESNET18 = {
    "hidden_sizes": [64, 128, 256, 512],
    "depths": [2, 2, 2, 2],
    "layer_type": "basic",
    "out_indices": [2, 3, 4],
}
SMALL_RESNET = {
    "embedding_size": 8,
    "hidden_sizes": [16, 32, 48, 64],
    "depths": [1, 2, 1, 1],
    "out_indices": [2, 3, 4],
}
SMALL: dict[str, Any] = {
    "encoder_in_channels": [32, 48, 64],
    "encoder_hidden_dim": 32,
    "encoder_ffn_dim": 48,
    "decoder_in_channels": [32, 32, 32],
    "d_model": 64,
    "decoder_ffn_dim": 48,
    "decoder_layers": 2,
    "num_queries": 30,
    "num_labels": 5,
}


def resnet(**options: Any) -> Any:
    return transformers.RTDetrResNetConfig(**options)


def rt_detr_v2(**options: Any) -> Any:
    return transformers.RTDetrV2ForObjectDetection(transformers.RTDetrV2Config(**options))


def r18(**options: Any) -> Any:
    channels = [128, 256, 512]
    return rt_detr_v2(
        backbone_config=resnet(**RESNET18),
        encoder_in_channels=channels,
        hidden_expansion=0.5,
        decoder_layers=3,
        num_labels=80,
        **options,
    )


def small(**options: Any) -> Any:
    return rt_detr_v2(backbone_config=resnet(**SMALL_RESNET), **{**SMALL, **options})


def small_hgnet() -> Any:
    backbone = transformers.HGNetV2Config(
        stem_channels=[3, 8, 8],
        stage_in_channels=[8, 16, 32, 48],
        stage_mid_channels=[8, 8, 16, 16],
        stage_out_channels=[16, 32, 48, 64],
        stage_num_blocks=[1, 1, 2, 1],
        stage_numb_of_layers=[2, 2, 3, 2],
        hidden_sizes=[16, 32, 48, 64],
        use_learnable_affine_block=True,
        out_indices=[2, 3, 4],
    )
    return rt_detr_v2(backbone_config=backbone, **SMALL)


def small_version_1() -> Any:
    config = transformers.RTDetrConfig(
        backbone_config=resnet(**SMALL_RESNET), decoder_method="default", **SMALL
    )
    return transformers.RTDetrForObjectDetection(config)


CASES: dict[str, Callable[[], Any]] = {
    "r18": r18,
    "r18 discrete": lambda: r18(decoder_method="discrete", freeze_backbone_batch_norms=False),
    "small bottleneck": small,
    "small two points": lambda: small(decoder_n_points=2, decoder_offset_scale=0.7),
    "small discrete": lambda: small(decoder_method="discrete"),
    "small four levels": lambda: small(
        num_feature_levels=4, decoder_n_levels=4, encode_proj_layers=[1, 2], encoder_layers=2
    ),
    "small no denoising": lambda: small(num_denoising=0),
    "small hgnet": small_hgnet,
    "small version 1": small_version_1,
}
SIZES = {"square": (160, 160), "wide": (96, 160), "tall": (160, 96)}


def awaken(model: nn.Module) -> nn.Module:
    """Replace initial weights under which outputs hardly depend on anything, by a fixed seed."""
    torch.manual_seed(0)
    for layer in model.modules():
        if type(layer).__name__.endswith("BatchNorm2d"):
            nn.init.uniform_(layer.weight, 0.8, 1.2)
            nn.init.normal_(layer.bias, std=0.1)
            nn.init.normal_(layer.running_mean, std=0.1)
            nn.init.uniform_(layer.running_var, 0.8, 1.2)
        elif isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
        elif isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
    return model.eval()


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    yield
    transformers.utils.logging.enable_progress_bar()
    transformers.utils.logging.set_verbosity_warning()


def assert_same_detections(ours: nn.Module, theirs: nn.Module, size: tuple[int, int]) -> None:
    pixels = image(*size, batch=2)
    if ours.config.decoder_method == "discrete":
        # The last bit of a location in float32 decides which pixel some point takes.
        ours, theirs = (copy.deepcopy(model).double() for model in (ours, theirs))
        pixels = pixels.double()
    with torch.inference_mode():
        found, expected = ours(pixels), theirs(pixels)
    assert len(set(expected.pred_boxes[0, :, 0].tolist())) > 10, "a detector that sees nothing"
    for index in range(2):
        distance = partner_distance(numbers(found, index), numbers(expected, index))
        assert distance.max() < TOLERANCE


@pytest.fixture(params=CASES, scope="module")
def pair(request: Any, tmp_path_factory: Any) -> Any:
    """A detector of transformers, and ours from the directory it wrote."""
    theirs = awaken(CASES[request.param]())
    folder = tmp_path_factory.mktemp("theirs")
    theirs.save_pretrained(folder)
    return RTDetrV2ForObjectDetection.from_pretrained(folder), theirs


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_directories_of_transformers_give_the_same_detections(
    pair: Any, size: tuple[int, int]
) -> None:
    assert_same_detections(*pair, size)


def once(theirs: Any) -> set[str]:
    """Names of the weights, but for those under which version 2 has its heads once more."""
    second = ("class_embed.", "bbox_embed.")
    return {name for name in theirs.state_dict() if not name.startswith(second)}


def test_directories_of_transformers_load_without_a_remark(pair: Any) -> None:
    ours, theirs = pair
    assert ours.load_report.is_complete
    assert ours.config.id2label == theirs.config.id2label
    differing = once(theirs) ^ set(ours.state_dict())
    if theirs.config.model_type == "rt_detr":  # version 1 lacks these
        differing = {name for name in differing if not name.endswith("n_points_scale")}
    assert not differing
    strict = theirs.config.model_type != "rt_detr"
    ours.load_state_dict(theirs.state_dict(), strict=strict)


def test_directories_of_ours_give_the_same_detections_in_transformers(
    pair: Any, tmp_path: Path
) -> None:
    ours, _ = pair
    ours.save_pretrained(tmp_path)
    found, info = transformers.RTDetrV2ForObjectDetection.from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert not any(info.values()), info
    assert_same_detections(ours, found.eval(), (96, 160))


def test_r50_gives_the_same_detections(tmp_path: Path) -> None:
    theirs = awaken(rt_detr_v2(num_labels=80))
    theirs.save_pretrained(tmp_path)
    ours = RTDetrV2ForObjectDetection.from_pretrained(tmp_path)
    assert set(ours.state_dict()) == once(theirs)
    for size in SIZES.values():
        assert_same_detections(ours, theirs, size)


def test_all_outputs_have_the_names_shapes_and_values_of_transformers(tmp_path: Path) -> None:
    theirs = awaken(small())
    theirs.save_pretrained(tmp_path)
    ours = RTDetrV2ForObjectDetection.from_pretrained(tmp_path)
    pixels = image(96, 128, batch=2)
    with torch.inference_mode():
        found = ours(pixels, output_hidden_states=True)
        expected = theirs(pixels, output_hidden_states=True)
    assert list(found) == list(expected.keys())
    for name in found:
        torch.testing.assert_close(found[name], _plain(expected[name]), atol=1e-4, rtol=1e-4)


def test_attention_weights_are_those_of_transformers(tmp_path: Path) -> None:
    theirs = awaken(small(attn_implementation="eager"))
    theirs.save_pretrained(tmp_path)
    theirs.set_attn_implementation("eager")
    ours = RTDetrV2ForObjectDetection.from_pretrained(tmp_path)
    with torch.inference_mode():
        found, expected = (
            model(image(96, 128), output_attentions=True) for model in (ours, theirs)
        )
    for name in ("encoder_attentions", "decoder_attentions", "cross_attentions"):
        torch.testing.assert_close(found[name], tuple(expected[name]), atol=1e-5, rtol=1e-4)


def test_model_without_heads_reads_and_writes_as_transformers(tmp_path: Path) -> None:
    config = transformers.RTDetrV2Config(backbone_config=resnet(**SMALL_RESNET), **SMALL)
    theirs = awaken(transformers.RTDetrV2Model(config))
    theirs.save_pretrained(tmp_path / "theirs")
    ours = RTDetrV2Model.from_pretrained(tmp_path / "theirs")
    ours.save_pretrained(tmp_path / "ours")
    again = transformers.RTDetrV2Model.from_pretrained(tmp_path / "ours").eval()
    with torch.inference_mode():
        results = [model(image(96, 128)) for model in (theirs, ours, again)]
    for result in results[1:]:
        torch.testing.assert_close(
            result.last_hidden_state, results[0].last_hidden_state, atol=1e-4, rtol=1e-4
        )
        assert result.intermediate_logits == () or len(result.intermediate_logits) == 0


def test_configuration_has_the_fields_and_defaults_of_transformers() -> None:
    theirs = json.loads(transformers.RTDetrV2Config().to_json_string(use_diff=False))
    ours = RTDetrV2Config().to_dict()
    about_files = {"dtype", "transformers_version", "_name_or_path", "architectures"}
    general = set(json.loads(transformers.PreTrainedConfig().to_json_string(use_diff=False)))
    for name in set(theirs) - about_files - (general - {"id2label", "label2id"}):
        if name == "backbone_config":
            for key in RTDetrV2Config().backbone_config.to_dict():
                assert ours[name][key] == theirs[name][key], key
        else:
            assert ours[name] == theirs[name], name


def test_configurations_of_ours_are_read_by_transformers(tmp_path: Path) -> None:
    ours = RTDetrV2Config.from_preset("rtdetrv2_hgnetv2_h", decoder_method="discrete")
    ours.save_pretrained(tmp_path)
    theirs = transformers.AutoConfig.from_pretrained(tmp_path)
    assert type(theirs) is transformers.RTDetrV2Config
    assert theirs.backbone_config.model_type == "hgnet_v2"
    assert theirs.decoder_method == "discrete"
    assert theirs.id2label == ours.id2label
    theirs.save_pretrained(tmp_path)
    assert RTDetrV2Config.from_pretrained(tmp_path) == ours


def test_eager_detector_of_one_class_is_understood(tmp_path: Path) -> None:
    ours = tiny_model(num_labels=1)
    ours.save_pretrained(tmp_path)
    theirs = transformers.RTDetrV2ForObjectDetection.from_pretrained(tmp_path).eval()
    assert_same_detections(ours, theirs, (96, 128))


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, list) else value
