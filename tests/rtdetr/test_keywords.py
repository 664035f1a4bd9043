# SPDX-License-Identifier: Apache-2.0
"""Each documented keyword of transformers' classes is a parameter here, a synonym, without effect, or refused."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tiny_detector import tiny_config

from rtdetr import RTDetrResNetConfig, RTDetrV2Config, RTDetrV2ForObjectDetection, RTDetrV2Model
from rtdetr.errors import UsageError
from rtdetr.keywords import BACKBONE, CONFIG, LOADING, SAVING, Keywords

load = RTDetrV2ForObjectDetection.from_pretrained

# What transformers itself passes from one of its functions to the next.
INTERNAL = {"_from_auto", "_from_pipeline", "_commit_hash", "_configuration_file"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved")
    RTDetrV2ForObjectDetection(tiny_config()).to(torch.bfloat16).save_pretrained(path)
    return path


def parameters(function: Callable[..., Any]) -> set[str]:
    named = inspect.signature(function).parameters.values()
    kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return {p.name for p in named if p.kind not in kinds} - {"self", "cls"}


def popped(function: Callable[..., Any]) -> set[str]:
    """Names that a function takes out of its ``**kwargs``."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(function))))
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call) and node.args)
    return {
        str(call.args[0].value)
        for call in calls
        if ast.unparse(call.func) in ("kwargs.pop", "kwargs.get")
        and isinstance(call.args[0], ast.Constant)
    }


def field_names(cls: Any) -> set[str]:
    return {field.name for field in fields(cls) if not field.name.startswith("_")}


def theirs() -> list[tuple[str, set[str], set[str], Keywords]]:
    model, config = transformers.RTDetrV2ForObjectDetection, transformers.RTDetrV2Config
    resnet = transformers.RTDetrResNetConfig
    ours = RTDetrV2ForObjectDetection
    configured = {"num_labels", "output_attentions", "attn_implementation", "torch_dtype"}
    return [
        ("config", field_names(config) | configured, field_names(RTDetrV2Config), CONFIG),
        (
            "backbone",
            field_names(resnet) | {"out_features", "out_indices"},
            field_names(RTDetrResNetConfig),
            BACKBONE,
        ),
        (
            "model.from_pretrained",
            parameters(model.from_pretrained) | popped(model.from_pretrained),
            parameters(ours.from_pretrained),
            LOADING,
        ),
        (
            "config.from_pretrained",
            parameters(config.from_pretrained) | popped(config._get_config_dict),
            parameters(RTDetrV2Config.from_pretrained),
            LOADING,
        ),
        (
            "model.save_pretrained",
            parameters(model.save_pretrained),
            parameters(ours.save_pretrained),
            SAVING,
        ),
        (
            "config.save_pretrained",
            parameters(config.save_pretrained),
            parameters(RTDetrV2Config.save_pretrained),
            SAVING,
        ),
        ("forward", parameters(model.forward), parameters(ours.forward), Keywords()),
    ]


@pytest.mark.parametrize(
    ("name", "documented", "own", "table"),
    theirs(),
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_keyword_has_a_meaning(
    name: str, documented: set[str], own: set[str], table: Keywords
) -> None:
    known = own | table.synonyms.keys() | table.without_effect | table.refused.keys()
    assert documented - INTERNAL - known == set()


def test_attributes_of_transformers_are_there() -> None:
    public = {"num_parameters", "main_input_name", "base_model_prefix", "device", "dtype"}
    public |= {"from_pretrained", "save_pretrained", "forward"}
    for model in (RTDetrV2ForObjectDetection, RTDetrV2Model):
        assert {name for name in public if not hasattr(model, name)} == set()
    expected = {"to_dict", "to_diff_dict", "to_json_string", "to_json_file", "from_dict", "update"}
    expected |= {"from_json_file", "hidden_size", "num_attention_heads", "use_return_dict"}
    assert {name for name in expected if not hasattr(RTDetrV2Config, name)} == set()


def test_numbers_of_parameters_are_those_of_transformers() -> None:
    ours = RTDetrV2ForObjectDetection(tiny_config())
    theirs = transformers.RTDetrV2ForObjectDetection(
        transformers.RTDetrV2Config(**tiny_config().to_dict())
    )
    for options in ({}, {"only_trainable": True}, {"exclude_embeddings": True}):
        assert ours.num_parameters(**options) == theirs.num_parameters(**options)
    assert ours.main_input_name == theirs.main_input_name


@pytest.mark.parametrize(
    "options",
    [
        {"attn_implementation": "eager"},
        {"low_cpu_mem_usage": True},
        {"use_safetensors": True},
        {"weights_only": True},
        {"state_dict": None, "quantization_config": None, "load_in_8bit": False},
        {"device_map": "cpu"},
        {"device_map": {"": "cpu"}},
        {"device_map": torch.device("cpu")},
        {"subfolder": ""},
    ],
    ids=str,
)
def test_keywords_without_effect(options: dict[str, Any], folder: Path) -> None:
    model = load(folder, **options)
    assert model.config == tiny_config()
    assert (model.device.type, model.dtype) == ("cpu", torch.float32)


@pytest.mark.parametrize(
    ("options", "dtype"),
    [
        ({"torch_dtype": torch.float16}, torch.float16),
        ({"dtype": "float16"}, torch.float16),
        ({"torch_dtype": "bf16"}, torch.bfloat16),
        ({"dtype": "auto"}, torch.bfloat16),  # as in the file
        ({"dtype": None}, torch.float32),
    ],
    ids=str,
)
def test_words_for_dtypes(options: dict[str, Any], dtype: torch.dtype, folder: Path) -> None:
    assert {p.dtype for p in load(folder, **options).parameters()} == {dtype}


def test_fields_are_changed_while_loading(folder: Path) -> None:
    model = load(pretrained_model_name_or_path=folder, num_queries=7, anchor_image_size=None)
    assert model.config == tiny_config().replace(num_queries=7)
    assert load(folder, num_labels=3).config.id2label == tiny_config().id2label
    for config in (str(folder), folder, folder / "config.json", tiny_config()):
        assert load(folder, config=config).config == tiny_config()


def test_loading_info(folder: Path) -> None:
    model, info = load(folder, num_labels=2, ignore_mismatched_sizes=True, output_loading_info=True)
    assert isinstance(model, RTDetrV2ForObjectDetection)
    assert info["missing_keys"] == info["unexpected_keys"] == set()
    names = {name for name, _, _ in info["mismatched_keys"]}
    assert "model.decoder.class_embed.0.weight" in names
    assert ("model.enc_score_head.bias", (3,), (2,)) in info["mismatched_keys"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"quantization_config": {}},
            TypeError,
            "does not take 'quantization_config': weights are",
        ),
        ({"state_dict": {"a": 1}}, TypeError, "does not take 'state_dict': call load_state_dict"),
        ({"num_querys": 7}, TypeError, 'num_querys.*Did you mean "num_queries"'),
        ({"torch_dtype": "float16", "dtype": "float32"}, ValueError, "and dtype='float32' differ"),
        ({"dtype": "int8"}, UsageError, "^dtype: expected"),
        ({"dtype": torch.int8}, UsageError, "^dtype: expected a floating dtype, got torch.int8"),
        ({"device_map": "balanced"}, UsageError, "^device_map: expected one device"),
        ({"device_map": {"a": "cpu", "b": 0}}, UsageError, "^device_map: expected one device"),
        ({"num_queries": "x"}, ValueError, "num_queries: expected an int"),
    ],
    ids=str,
)
def test_keywords_that_are_refused(
    options: dict[str, Any], error: type[Exception], message: str, folder: Path
) -> None:
    with pytest.raises(error, match=message):
        load(folder, **options)


def test_nothing_is_loaded_on_the_meta_device(folder: Path) -> None:
    with torch.device("meta"), pytest.raises(RuntimeError, match=r"^from_pretrained: nothing"):
        load(folder)


def test_saving_takes_the_words_of_transformers(folder: Path, tmp_path: Path) -> None:
    model = load(folder)
    model.save_pretrained(save_directory=tmp_path, safe_serialization=True, push_to_hub=False)
    assert (tmp_path / "model.safetensors").is_file()
    with pytest.raises(TypeError, match="does not take 'push_to_hub': upload the directory"):
        model.save_pretrained(tmp_path, push_to_hub=True)


def test_configurations_take_what_cannot_matter() -> None:
    config = RTDetrV2Config(disable_custom_kernels=True, backbone=None, use_timm_backbone=False)  # type: ignore[call-arg]
    assert config == RTDetrV2Config()
    config.architectures = ["x"]  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match="does not take 'backbone': pass backbone_config="):
        RTDetrV2Config(backbone="resnet50")  # type: ignore[call-arg]
    nested = RTDetrV2Config(backbone_config={"depths": [1, 1, 1, 1]})  # type: ignore[arg-type]
    assert nested.backbone_config.depths == (1, 1, 1, 1)
