# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import datetime
import io
import json
import logging
import pickle
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy
import pytest
import safetensors.torch
import torch
from huggingface_hub import errors
from model_cases import image, tiny_config, tiny_model
from torch import Tensor, nn

from rtdetr.config import RTDetrV2Config
from rtdetr.config.presets import PRESETS
from rtdetr.errors import ModelError
from rtdetr.model import RTDetrV2ForObjectDetection, RTDetrV2Model
from rtdetr.weights import save_original, to_original_state_dict
from rtdetr.weights.names import from_module_names, to_module_names
from rtdetr.weights.recognize import recognize

load = RTDetrV2ForObjectDetection.from_pretrained
NAMES = dict(enumerate("abcde"))
CHANGES: dict[str, Any] = {"num_labels": None, "id2label": NAMES}


@pytest.fixture
def model() -> RTDetrV2ForObjectDetection:
    return tiny_model(**CHANGES)


@pytest.fixture
def folder(model: RTDetrV2ForObjectDetection, tmp_path: Path) -> Path:
    model.save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def assert_same(loaded: nn.Module, expected: nn.Module) -> None:
    with torch.inference_mode():
        results = [model(image(64, 96)) for model in (loaded, expected)]
    assert torch.equal(results[0].logits, results[1].logits)
    assert torch.equal(results[0].pred_boxes, results[1].pred_boxes)


def shapes_of(config: RTDetrV2Config) -> dict[str, Tensor]:
    """The state dict of a model, without memory for its weights."""
    with torch.device("meta"):
        return RTDetrV2ForObjectDetection(config).state_dict()


def from_original(state: dict[str, Tensor], column: str) -> dict[str, Tensor]:
    return from_module_names(to_module_names(state)[0], column)


def without_second_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    second = ("class_embed.", "bbox_embed.")
    return {name: tensor for name, tensor in state.items() if not name.startswith(second)}


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("column", ["original", "hub"])
@pytest.mark.parametrize("name", PRESETS)
def test_names_survive_the_way_there_and_back(name: str, column: str) -> None:
    state = shapes_of(RTDetrV2Config.from_preset(name))
    there = from_module_names(state, column)
    back, unknown = to_module_names(there)
    expected = without_second_names(state)
    assert not unknown
    assert {key: tensor.shape for key, tensor in back.items()} == {
        key: tensor.shape for key, tensor in expected.items()
    }


def test_names_of_both_transformers_are_read() -> None:
    state = shapes_of(tiny_config())
    for names in (state, from_module_names(state, "hub")):
        assert to_module_names(names)[0].keys() == without_second_names(state).keys()


@pytest.mark.parametrize(
    ("original", "hub", "module"),
    [
        (
            "backbone.conv1.conv1_2.norm.running_var",
            "model.backbone.model.embedder.embedder.1.normalization.running_var",
            None,
        ),
        (
            "backbone.res_layers.2.blocks.0.short.conv.conv.weight",
            "model.backbone.model.encoder.stages.2.layers.0.shortcut.1.convolution.weight",
            None,
        ),
        (
            "backbone.stem.stem2b.conv.1.weight",
            "model.backbone.model.embedder.stem2b.convolution.weight",
            None,
        ),
        (
            "backbone.stages.2.blocks.1.aggregation_excitation_conv.bn.bias",
            "model.backbone.model.encoder.stages.2.blocks.1.aggregation.1.normalization.bias",
            None,
        ),
        (
            "encoder.encoder.0.layers.0.self_attn.out_proj.weight",
            "model.encoder.encoder.0.layers.0.self_attn.out_proj.weight",
            "model.encoder.aifi.0.layers.0.self_attn.o_proj.weight",
        ),
        (
            "decoder.decoder.layers.5.linear2.bias",
            "model.decoder.layers.5.fc2.bias",
            "model.decoder.layers.5.mlp.fc2.bias",
        ),
        (
            "decoder.decoder.layers.5.norm3.bias",
            "model.decoder.layers.5.final_layer_norm.bias",
            None,
        ),
        (
            "decoder.dec_bbox_head.1.layers.2.weight",
            "model.decoder.bbox_embed.1.layers.2.weight",
            None,
        ),
    ],
)
def test_names(original: str, hub: str, module: str | None) -> None:
    module = module or hub
    tensor = torch.zeros(1)
    for name in (original, hub, module):
        assert list(to_module_names({name: tensor})[0]) == [module]
    assert list(from_module_names({module: tensor}, "original")) == [original]
    assert list(from_module_names({module: tensor}, "hub")) == [hub]


def test_packed_attention_is_split_in_order() -> None:
    packed = {"decoder.decoder.layers.0.self_attn.in_proj_bias": torch.arange(6.0)}
    split, _ = to_module_names(packed)
    prefix = "model.decoder.layers.0.self_attn."
    loaded = {name.removeprefix(prefix): tensor.tolist() for name, tensor in split.items()}
    assert loaded == {"q_proj.bias": [0, 1], "k_proj.bias": [2, 3], "v_proj.bias": [4, 5]}
    back = from_module_names(split, "original")
    assert list(back) == list(packed)
    assert torch.equal(*back.values(), *packed.values())


def test_tables_for_one_size_are_dropped() -> None:
    tables = ("decoder.anchors", "decoder.valid_mask", "encoder.pos_embed2")
    assert to_module_names(dict.fromkeys(tables, torch.zeros(1))) == ({}, [])


# --- recognition ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in PRESETS if not name.endswith("_dsp")])
def test_presets_are_recognized(name: str) -> None:
    config = RTDetrV2Config.from_preset(name)
    state = shapes_of(config)
    scales = {
        key: torch.full(tensor.shape, 0.25)
        for key, tensor in state.items()
        if key.endswith("n_points_scale")
    }
    assert recognize(state | scales) == config


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"decoder_n_points": (1, 5, 2)},
        {"encoder_layers": 2, "decoder_layers": 2},
        {"num_feature_levels": 4, "decoder_n_levels": 4},
        {"query_select_method": "agnostic", "num_denoising": 0},
        {"learn_initial_query": True},
        {"freeze_backbone_batch_norms": True, "freeze_at": 0},
    ],
    ids=str,
)
def test_other_shapes_are_recognized(changes: dict[str, Any], tmp_path: Path) -> None:
    eight = {"encoder_attention_heads": 8, "num_queries": 300}  # not to be seen in a file
    model = tiny_model(**eight, **changes)
    save_original(model, tmp_path / "x.pth")
    loaded = load(tmp_path / "x.pth")
    assert loaded.config == model.config
    assert_same(loaded, model)


def test_discrete_sampling_is_read_off_the_name_of_the_file(
    model: RTDetrV2ForObjectDetection, tmp_path: Path, caplog: Any
) -> None:
    save_original(model, tmp_path / "r18vd_dsp_3x.pth")
    with caplog.at_level(logging.WARNING):
        loaded = load(tmp_path / "r18vd_dsp_3x.pth")
    assert loaded.config.decoder_method == "discrete"
    assert "by its name" in caplog.text
    assert load(tmp_path / "r18vd_dsp_3x.pth", config=model.config).config == model.config


# --- files ----------------------------------------------------------------------------------------


def test_directory_survives(model: RTDetrV2ForObjectDetection, folder: Path, caplog: Any) -> None:
    with caplog.at_level(logging.INFO):
        loaded = load(folder)
    assert loaded.config == model.config
    assert loaded.load_report is not None
    assert loaded.load_report.is_complete
    assert not loaded.training
    assert not caplog.records  # nothing to say
    assert_same(loaded, model)
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]


def test_file_carries_its_configuration(
    model: RTDetrV2ForObjectDetection, folder: Path, tmp_path: Path
) -> None:
    (folder / "model.safetensors").rename(tmp_path / "alone.safetensors")
    loaded = load(tmp_path / "alone.safetensors")
    assert loaded.config == model.config
    assert_same(loaded, model)


def test_file_of_others_is_read_with_the_configuration_beside_it(
    model: RTDetrV2ForObjectDetection, folder: Path
) -> None:
    state = safetensors.torch.load_file(folder / "model.safetensors")
    safetensors.torch.save_file(state, folder / "model.safetensors")
    assert load(folder / "model.safetensors").config == model.config


def test_divided_weights_are_put_together(model: RTDetrV2ForObjectDetection, folder: Path) -> None:
    whole = folder / "model.safetensors"
    state = safetensors.torch.load_file(whole)
    names = list(state)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, names in parts.items():
        safetensors.torch.save_file({name: state[name] for name in names}, folder / file)
    index = {"weight_map": {name: file for file, names in parts.items() for name in names}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    whole.unlink()
    assert_same(load(folder), model)
    (folder / "b.safetensors").unlink()
    with pytest.raises(ModelError, match=r"names b\.safetensors, which is not there"):
        load(folder)


def test_index_cannot_name_files_elsewhere(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder.parent / "outside.safetensors")
    index = {"weight_map": {"x": "../outside.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match="which is not there"):
        load(folder)


def test_older_directories_hold_a_bin(model: RTDetrV2ForObjectDetection, folder: Path) -> None:
    state = safetensors.torch.load_file(folder / "model.safetensors")
    heads = {
        name.removeprefix("model.decoder."): tensor.clone()
        for name, tensor in state.items()
        if "_embed." in name and "denoising" not in name
    }
    torch.save(state | heads, folder / "pytorch_model.bin")  # transformers 4 wrote heads twice
    (folder / "model.safetensors").unlink()
    loaded = load(folder)
    assert loaded.load_report is not None
    assert loaded.load_report.is_complete
    assert_same(loaded, model)


def test_dtype_is_chosen_by_the_caller(folder: Path) -> None:
    assert load(folder).dtype == torch.float32
    half = load(folder, dtype=torch.bfloat16)
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}
    half.save_pretrained(folder)
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"
    assert load(folder).dtype == torch.float32


def test_processor_is_saved_too(model: RTDetrV2ForObjectDetection, tmp_path: Path) -> None:
    from rtdetr.processing.image_processor import RTDetrImageProcessor

    model.save_pretrained(tmp_path, processor=RTDetrImageProcessor())
    assert (tmp_path / "preprocessor_config.json").is_file()


def test_failed_save_leaves_the_old_file(
    model: RTDetrV2ForObjectDetection, folder: Path, monkeypatch: Any
) -> None:
    before = (folder / "model.safetensors").read_bytes()

    def fail(state: Any, path: Path, metadata: Any) -> None:
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("rtdetr.weights.save.save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        model.save_pretrained(folder)
    assert (folder / "model.safetensors").read_bytes() == before
    assert len(list(folder.iterdir())) == 2


# --- original checkpoints -------------------------------------------------------------------------


class Odd:
    """An object that a checkpoint may hold; unpickling it would leave a trace."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old format"])
def test_nothing_in_a_checkpoint_is_executed(
    model: RTDetrV2ForObjectDetection, tmp_path: Path, zipped: bool
) -> None:
    trace = tmp_path / "executed"
    state = to_original_state_dict(model)
    checkpoint = {
        "date": datetime.datetime(2024, 7, 1),
        "last_epoch": 71,
        "odd": [Odd(trace), {Odd(trace)}, {"deep": Odd(trace)}],
        "optimizer": torch.optim.AdamW(model.parameters()).state_dict(),
        "model": dict.fromkeys(state, torch.zeros(1)),
        "ema": {"module": state, "updates": 9},
    }
    path = tmp_path / "last.pth"
    torch.save(checkpoint, path, _use_new_zipfile_serialization=zipped)
    assert_same(load(path, config=model.config), model)  # and ema was preferred
    assert not trace.exists()


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"model": state},
        lambda state: {"state_dict": state},
        lambda state: {"model": {f"module.{name}": value for name, value in state.items()}},
        lambda state: {"ema": None, "model": state},
        lambda state: {"model_state_dict": state, "epoch": torch.tensor(3)},
        lambda state: {"ema": state, "model": dict.fromkeys(state, torch.zeros(1))},
        lambda state: {"weights": state},
        lambda state: {"state_dict": {"model": {"module": state}}},
        lambda state: {f"_orig_mod.{name}": value for name, value in state.items()},
        lambda state: {f"module._orig_mod.module.{name}": value for name, value in state.items()},
        lambda state: {"state_dict": {f"model.{name}": value for name, value in state.items()}},
        lambda state: {f"net.detector._orig_mod.{name}": value for name, value in state.items()},
        lambda state: {
            f"model.{name}": value for name, value in from_original(state, "hub").items()
        },
        lambda state: {
            name.replace("layers.0.", "layers.0._checkpoint_wrapped_module."): value
            for name, value in state.items()
        },
    ],
    ids=[
        *("plain", "model", "state_dict", "distributed", "no ema", "model_state_dict", "plain ema"),
        *("weights", "nested", "compiled", "compiled and distributed", "lightning", "attributes"),
        *("lightning with names of the hub", "activation checkpoints"),
    ],
)
def test_weights_are_found_in_a_checkpoint(
    wrap: Callable[[Any], Any], model: RTDetrV2ForObjectDetection, tmp_path: Path
) -> None:
    torch.save(wrap(to_original_state_dict(model)), tmp_path / "x.pth")
    assert_same(load(tmp_path / "x.pth", config=model.config), model)


def test_tables_of_a_checkpoint_are_no_surprise(
    model: RTDetrV2ForObjectDetection, tmp_path: Path
) -> None:
    tables = {"decoder.anchors": torch.zeros(1, 9, 4), "decoder.valid_mask": torch.ones(1, 9, 1)}
    torch.save({"model": to_original_state_dict(model) | tables}, tmp_path / "x.pth")
    loaded = load(tmp_path / "x.pth", config=model.config)
    assert loaded.load_report is not None
    assert loaded.load_report.is_complete


def test_version_1_of_the_original_is_read(
    model: RTDetrV2ForObjectDetection, tmp_path: Path
) -> None:
    renamed = (
        (".input_proj.0.conv.", ".input_proj.0.0."),
        (".input_proj.1.conv.", ".input_proj.1.0."),
        (".input_proj.2.conv.", ".input_proj.2.0."),
        (".input_proj.0.norm.", ".input_proj.0.1."),
        (".input_proj.1.norm.", ".input_proj.1.1."),
        (".input_proj.2.norm.", ".input_proj.2.1."),
        ("enc_output.proj", "enc_output.0"),
        ("enc_output.norm", "enc_output.1"),
    )
    older = {}
    for name, tensor in to_original_state_dict(model).items():
        if name.endswith("num_points_scale"):
            continue
        for new, old in renamed:
            if not name.startswith("decoder.input_proj"):  # as in version 2
                name = name.replace(new, old)
        older[name] = tensor
    torch.save({"model": older}, tmp_path / "x.pth")
    assert_same(load(tmp_path / "x.pth", config=model.config), model)


def test_original_file_is_what_the_original_reads(
    model: RTDetrV2ForObjectDetection, tmp_path: Path
) -> None:
    save_original(model, tmp_path / "x.pth")
    stored = torch.load(tmp_path / "x.pth", weights_only=True)
    assert list(stored) == ["model"]
    assert all(name.startswith(("backbone.", "encoder.", "decoder.")) for name in stored["model"])


# --- what does not fit ----------------------------------------------------------------------------


def test_other_classes_need_a_word(folder: Path) -> None:
    with pytest.raises(ModelError) as raised:
        load(folder, num_labels=2)
    text = str(raised.value)
    assert "9 weights have another shape" in text
    assert "model.denoising_class_embed.weight [6, 64] in the file, [3, 64] in the model" in text
    assert "ignore_mismatched_sizes=True" in text


def test_heads_for_other_classes_start_anew(
    model: RTDetrV2ForObjectDetection, folder: Path, caplog: Any
) -> None:
    with caplog.at_level(logging.WARNING):
        loaded = load(folder, id2label={0: "cat", 1: "dog"}, ignore_mismatched_sizes=True)
    assert loaded.config.label2id == {"cat": 0, "dog": 1}
    assert loaded.class_embed[0].out_features == 2
    report = loaded.load_report
    assert report is not None
    assert len(report.reinitialized) == len(report.mismatched) == 9
    assert not report.missing
    assert "9 reinitialized: model.denoising_class_embed.weight" in caplog.text
    assert torch.equal(loaded.bbox_embed[1].layers[0].weight, model.bbox_embed[1].layers[0].weight)
    assert loaded.class_embed[0].weight is loaded.model.decoder.class_embed[0].weight


def test_weights_do_not_go_missing_in_silence(folder: Path) -> None:
    state = safetensors.torch.load_file(folder / "model.safetensors")
    lost = ("model.enc_output.0.bias", "model.decoder.layers.1.fc1.weight")
    kept = {name: tensor for name, tensor in state.items() if name not in lost}
    safetensors.torch.save_file(
        kept | {"extra.weight": torch.zeros(1)}, folder / "model.safetensors"
    )
    with pytest.raises(
        ModelError, match=r"2 weights are missing: model\.enc_output\.0\.bias, model"
    ):
        load(folder)
    report = load(folder, ignore_mismatched_sizes=True).load_report
    assert report is not None
    assert set(report.missing) == {lost[0], "model.decoder.layers.1.mlp.fc1.weight"}
    assert report.unexpected == ("extra.weight",)
    assert not report.is_complete


def test_other_points_of_the_same_number_are_noticed(
    model: RTDetrV2ForObjectDetection, tmp_path: Path
) -> None:
    save_original(tiny_model(decoder_n_points=(3, 6, 3)), tmp_path / "x.pth")
    with pytest.raises(ModelError, match=r"decoder_n_points: .*\[3, 3, 3, 6, 6"):
        load(tmp_path / "x.pth", config=model.config)


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("decoder.integral.project", "D-FINE"),
        ("decoder.pre_bbox_head.layers.0.weight", "D-FINE"),
        ("model.decoder.lqe_layers.0.reg_conf.layers.0.weight", "D-FINE"),
        ("transformer.enc_out_bbox_embed.0.layers.0.weight", "RF-DETR"),
        ("transformer.level_embed", "Deformable DETR"),
        ("query_embed.weight", "DETR"),
        ("model.0.conv.weight", "YOLO"),
        ("roi_heads.box_head.fc6.weight", "torchvision's detectors"),
    ],
)
def test_other_detectors_are_called_by_their_names(
    name: str, family: str, model: RTDetrV2ForObjectDetection, tmp_path: Path
) -> None:
    shared = to_original_state_dict(model) if family == "D-FINE" else {}
    torch.save({"model": {**shared, name: torch.zeros(1)}}, tmp_path / "best.pth")
    with pytest.raises(ModelError) as raised:
        load(tmp_path / "best.pth")
    expected = f"best.pth looks like {family} (keys {name}). Supported: RT-DETR v1/v2 (lyuwenyu, HF, ours)."
    assert str(raised.value) == expected


def test_unknown_weights_are_described(tmp_path: Path) -> None:
    torch.save({"fc.weight": torch.zeros(1), "fc.bias": torch.zeros(1)}, tmp_path / "net.pth")
    with pytest.raises(ModelError, match=r"no detector known here \(keys fc\.weight, fc\.bias\)"):
        load(tmp_path / "net.pth")
    torch.save({"epoch": 3, "score": 0.5}, tmp_path / "log.pth")
    with pytest.raises(ModelError, match=r"log\.pth holds no weights \(epoch, score\)"):
        load(tmp_path / "log.pth")
    torch.save({"model": datetime.date(2024, 1, 1)}, tmp_path / "object.pth")
    with pytest.raises(ModelError, match=r"holds no weights \(model: datetime\.date\)"):
        load(tmp_path / "object.pth")


def pickled(value: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def holding_itself() -> dict[str, Any]:
    loop: dict[str, Any] = {}
    loop["model"] = loop
    return loop


JUNK = {
    "nothing": b"",
    "text": b"hello",
    "words": b"not weights at all",
    "half a pickle": pickle.dumps({"a": 1})[:-2],
    "a number": pickle.dumps(5),
    "half a zip": pickled({"model": {"a": torch.ones(99)}})[:300],
    "a list": pickled([torch.ones(1)]),
    "names that are none": pickled({5: torch.ones(1), None: torch.ones(1)}),
    "itself": pickled(holding_itself()),
    "a sparse weight": pickled({"decoder.enc_output.proj.weight": torch.ones(1).to_sparse()}),
    "a packed scalar": pickled({"decoder.decoder.layers.0.self_attn.in_proj_bias": torch.ones(())}),
    "a torn pack": pickled({"decoder.decoder.layers.0.self_attn.in_proj_bias": torch.ones(2)}),
    "one layer": pickled({"decoder.decoder.layers.0.norm1.bias": torch.ones(2)}),
}


@pytest.mark.parametrize("name", ["x.pth", "x.safetensors", "x.bin", "x", "x.jpg"])
@pytest.mark.parametrize("content", JUNK.values(), ids=JUNK.keys())
def test_damaged_files_are_refused(content: bytes, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match="x"):
        load(tmp_path / name)


def test_flipped_bytes_are_refused_or_read(
    model: RTDetrV2ForObjectDetection, tmp_path: Path
) -> None:
    small = {"model": {"decoder.decoder.layers.0.norm1.bias": torch.ones(2)}, "epoch": 3}
    random = numpy.random.default_rng(0)
    for zipped in (True, False):
        torch.save(small, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
        whole = (tmp_path / "x.pth").read_bytes()
        for _ in range(150):
            content = bytearray(whole)
            content[random.integers(len(content))] ^= int(random.integers(1, 256))
            (tmp_path / "x.pth").write_bytes(content)
            with pytest.raises(ModelError, match="x"):
                load(tmp_path / "x.pth")


@pytest.mark.parametrize("scale", [0.0, 1e9, -1.0, float("nan"), float("inf"), 0.3], ids=str)
def test_points_that_cannot_be_are_refused(
    scale: float, model: RTDetrV2ForObjectDetection, tmp_path: Path
) -> None:
    state = to_original_state_dict(model)
    for name in state:
        if name.endswith("num_points_scale"):
            state[name] = torch.full_like(state[name], scale)
    torch.save(state, tmp_path / "x.pth")
    for config in (None, model.config):
        with pytest.raises(ModelError, match=r"^x\.pth: (not a whole RT-DETR|decoder_n_points)"):
            load(tmp_path / "x.pth", config=config)


@pytest.mark.parametrize(
    "index",
    [
        *("null", "[]", "{}", '{"weight_map": null}', '{"weight_map": {"a": 3}}', "[" * 100_000),
        *('{"weight_map": ["model.safetensors"]}', '{"weight_map": {}}'),
    ],
    ids=lambda text: text[:30],
)
def test_indices_of_junk_are_refused(index: str, folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(index)
    with pytest.raises(ModelError, match=r"model\.safetensors\.index\.json: "):
        load(folder)


@pytest.mark.parametrize(
    "stored", ["null", "[]", "{", "[" * 100_000, '{"id2label": 5}', '{"d_model": "x"}'], ids=str
)
def test_metadata_of_junk_is_refused(stored: str, folder: Path) -> None:
    state = safetensors.torch.load_file(folder / "model.safetensors")
    path = folder.parent / "alone.safetensors"
    safetensors.torch.save_file(state, path, {"rtdetr_config": stored})
    with pytest.raises(ModelError, match=r"alone\.safetensors: "):
        load(path)


def test_ids_with_gaps_are_loaded_and_told(
    model: RTDetrV2ForObjectDetection, folder: Path, caplog: Any
) -> None:
    names = dict(enumerate("abcde", start=1))
    settings = json.loads((folder / "config.json").read_text())
    for id2label in (names, ["a"]):
        settings["id2label"] = id2label
        (folder / "config.json").write_text(json.dumps(settings))
        assert load(folder, id2label=NAMES).config.id2label == NAMES
    assert not caplog.records
    assert load(folder, num_labels=5).config.id2label == {n: f"LABEL_{n}" for n in range(5)}
    settings["id2label"] = names
    (folder / "config.json").write_text(json.dumps(settings))
    with caplog.at_level(logging.WARNING):
        loaded = load(folder)
    assert loaded.config.id2label == names
    assert "5 classes by the ids 1..5, and the model counts them 0..4" in caplog.text
    assert_same(loaded, model)


def test_heads_are_counted(tmp_path: Path) -> None:
    heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "num_queries": 300}
    model = tiny_model(decoder_n_points=(1, 5, 2), **heads)
    save_original(model, tmp_path / "x.pth")
    loaded = load(tmp_path / "x.pth")
    assert loaded.config == model.config
    assert_same(loaded, model)


@pytest.mark.parametrize("name", ["model.onnx", "model.engine", "model.xml", "a/best.TFLITE"])
def test_files_of_other_programs_are_called_so(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    with pytest.raises(ModelError, match=r"files are not read\. Pass a \.safetensors or \.pth"):
        load(path)
    path.parent.mkdir(exist_ok=True)
    path.touch()
    with pytest.raises(ModelError, match="files are not read"):
        load(path)


def test_directory_without_weights_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(
        ModelError, match=r"found neither model\.safetensors nor pytorch_model\.bin"
    ):
        load(folder)


def test_missing_files_are_refused(tmp_path: Path) -> None:
    for source in (tmp_path / "none", str(tmp_path / "none.pth"), "none.safetensors"):
        with pytest.raises(ModelError, match="no such file or folder"):
            load(source)
    with pytest.raises(ModelError, match=r'No model "rtdetr-v2-small"\. Did you mean "rtdetrv2-s"'):
        load("rtdetr-v2-small")


# --- models without heads -------------------------------------------------------------------------


def test_model_without_heads_reads_a_detector(
    model: RTDetrV2ForObjectDetection, folder: Path, tmp_path: Path
) -> None:
    bare = RTDetrV2Model.from_pretrained(folder)
    assert bare.load_report is not None
    assert bare.load_report.is_complete
    with torch.inference_mode():
        loaded, expected = bare(image(64, 96)), model(image(64, 96))
    assert torch.equal(loaded.enc_outputs_class, expected.enc_outputs_class)
    bare.save_pretrained(tmp_path / "bare")
    again = RTDetrV2Model.from_pretrained(tmp_path / "bare")
    assert torch.equal(again.enc_score_head.weight, bare.enc_score_head.weight)
    with pytest.raises(ModelError, match=r"weights are missing: model\.decoder\.class_embed"):
        load(tmp_path / "bare")


# --- the hub and other places, without a network --------------------------------------------------


def pretend_hub(monkeypatch: Any, folder: Path | None, asked: list[Any]) -> None:
    def download(repository: str, name: str, **options: Any) -> str:
        asked.append((repository, name, options))
        if folder is None:
            raise errors.LocalEntryNotFoundError("offline")
        if not (folder / name).is_file():
            raise errors.EntryNotFoundError("absent")
        return str(folder / name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)


def test_hub_gives_what_a_directory_gives(
    model: RTDetrV2ForObjectDetection, folder: Path, monkeypatch: Any
) -> None:
    asked: list[Any] = []
    pretend_hub(monkeypatch, folder, asked)
    options = {"revision": "v1", "cache_dir": "c", "token": "t", "local_files_only": True}
    assert_same(load("someone/detector", **options), model)  # type: ignore[arg-type]
    assert [(name, file) for name, file, _ in asked] == [
        ("someone/detector", "config.json"),
        ("someone/detector", "model.safetensors"),
    ]
    assert asked[0][2] == options
    assert RTDetrV2Config.from_pretrained("someone/detector") == model.config


def test_hub_out_of_reach_is_said_so(monkeypatch: Any) -> None:
    pretend_hub(monkeypatch, None, [])
    with pytest.raises(ModelError, match=r"^Could not download someone/detector \(no network\)\. "):
        load("someone/detector")
    with pytest.raises(ModelError, match=r"\(not in the cache\)"):
        load("someone/detector", local_files_only=True)


def test_repository_that_does_not_exist_is_said_so(monkeypatch: Any) -> None:
    def refuse(*_: Any, **__: Any) -> str:
        response = type("Response", (), {"headers": {}, "request": None, "status_code": 404})()
        raise errors.RepositoryNotFoundError("404", response=response)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    with pytest.raises(ModelError, match=r'^No model "someone/nothing" on the Hugging Face hub'):
        load("someone/nothing")


def tiny_preset(monkeypatch: Any, **changes: Any) -> None:
    """Stand a tiny configuration behind the names of published models."""
    monkeypatch.setattr(RTDetrV2Config, "from_preset", lambda _: tiny_config(**CHANGES, **changes))


def test_preset_comes_from_the_hub_with_its_own_configuration(
    model: RTDetrV2ForObjectDetection, folder: Path, monkeypatch: Any, tmp_path: Path
) -> None:
    asked: list[Any] = []
    pretend_hub(monkeypatch, folder, asked)
    tiny_preset(monkeypatch, freeze_at=0)
    loaded = load("rtdetrv2-s", cache_dir=tmp_path)
    assert asked[0][0] == "PekingU/rtdetr_v2_r18vd"
    assert loaded.config.freeze_at == 0
    assert_same(loaded, model)


def test_preset_comes_from_the_original_file_where_it_lies(
    model: RTDetrV2ForObjectDetection, monkeypatch: Any, tmp_path: Path
) -> None:
    tiny_preset(monkeypatch)
    for name in ("rtdetrv2_r18vd", "rtdetrv2_r50vd_m_dsp"):
        url = PRESETS[name].url
        assert url is not None
        save_original(model, tmp_path / url.rsplit("/", 1)[1])
        assert_same(load(name, cache_dir=tmp_path), model)


def test_preset_without_the_hub_is_downloaded_once(
    model: RTDetrV2ForObjectDetection, monkeypatch: Any, tmp_path: Path
) -> None:
    asked = []

    def download(url: str, path: str) -> None:
        asked.append(url)
        save_original(model, path)

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    tiny_preset(monkeypatch)
    for _ in range(2):
        assert_same(load("rtdetrv2-m", cache_dir=tmp_path), model)
    assert asked == [PRESETS["rtdetrv2_r50vd_m"].url]


def test_preset_out_of_reach_says_where_to_put_it(monkeypatch: Any, tmp_path: Path) -> None:
    def fail(url: str, path: str) -> None:
        raise urllib.error.URLError("no route")

    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    pretend_hub(monkeypatch, None, [])
    for name, file in (
        ("rtdetrv2-s", "rtdetrv2_r18vd_120e_coco_rerun_48.1.pth"),
        ("rtdetrv2-m", "rtdetrv2_r50vd_m_7x_coco_ema.pth"),
    ):
        with pytest.raises(ModelError) as raised:
            load(name, cache_dir=tmp_path)
        assert str(raised.value) == (
            f"Could not download {name} (no network). Put the file at {tmp_path / file} or pass the path of its "
            "weights."
        )
    with pytest.raises(ModelError, match=r"^rtdetrv2_hgnetv2_l: its publisher offers no weights"):
        load("rtdetrv2_hgnetv2_l")
    with pytest.raises(
        ModelError, match=r"^tiny: has no weights before it is trained: rtdetr train"
    ):
        load("tiny")
