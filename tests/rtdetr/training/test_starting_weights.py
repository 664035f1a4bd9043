# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from model_cases import image, tiny_model
from torch import Tensor

from rtdetr import RTDetrImageProcessor, RTDetrV2ForObjectDetection
from rtdetr.errors import ModelError, UsageError
from rtdetr.training.starting_weights import load_for_training
from rtdetr.weights import save_checkpoint, save_original, to_original_state_dict

OLD = ["person", "car", "traffic light"]
EMBEDDING = "model.denoising_class_embed.weight"
HEADS = (
    *(f"model.decoder.class_embed.{n}.{part}" for n in range(3) for part in ("weight", "bias")),
    *(f"model.enc_score_head.{part}" for part in ("weight", "bias")),
)


def model_of(names: list[str], **changes: Any) -> RTDetrV2ForObjectDetection:
    return tiny_model(num_labels=None, id2label=dict(enumerate(names)), **changes)


def save(model: RTDetrV2ForObjectDetection, folder: Path) -> Path:
    path = folder / "best.safetensors"
    save_checkpoint(model, path, RTDetrImageProcessor(size=96))
    return path


def tensors(model: RTDetrV2ForObjectDetection) -> dict[str, Tensor]:
    state = model.state_dict()
    return {name: state[name] for name in state if name.startswith("model.")}


@pytest.mark.parametrize(
    ("names", "rows", "sentence"),
    [
        (OLD, {0: 0, 1: 1, 2: 2}, "class heads: all 3 classes keep their weights"),
        (
            ["car", "helmet", "person"],
            {0: 1, 2: 0},
            "class heads: 2 of 3 classes keep their weights (car, person), 1 is new (helmet)",
        ),
        (
            ["a", "Traffic_Light", "b", "c"],
            {1: 2},
            "class heads: 1 of 4 classes keep their weights (Traffic_Light), 3 are new (a, b, c)",
        ),
        (["helmet"], {}, "class heads: reinitialized, 3 -> 1 classes"),
    ],
    ids=["same", "some", "spelling", "none"],
)
def test_classes_of_the_same_name_keep_their_weights(
    names: list[str], rows: dict[int, int], sentence: str, tmp_path: Path
) -> None:
    old = model_of(OLD)
    start = load_for_training(save(old, tmp_path), names)
    assert start.report.adapted == (sentence,)
    assert start.report.is_complete
    before, after = tensors(old), tensors(start.model)
    for name in (*HEADS, EMBEDDING):
        padding = {len(names): len(OLD)} if name == EMBEDDING else {}
        kept = rows | padding
        for row, tensor in enumerate(after[name]):
            same = [bool(torch.equal(tensor, one)) for one in before[name]]
            assert same.index(True) == kept[row] if row in kept else not any(same)
    others = before.keys() - {*HEADS, EMBEDDING}
    assert all(torch.equal(before[name], after[name]) for name in others)


def test_new_rows_are_those_of_a_new_model(tmp_path: Path) -> None:
    """Score heads start at the prior, and padding is not trained."""
    start = load_for_training(save(model_of(OLD), tmp_path), ["helmet", "car"])
    fresh = RTDetrV2ForObjectDetection(start.model.config)
    after, expected = tensors(start.model), tensors(fresh)
    for name in HEADS:
        if name.endswith("bias"):
            assert after[name][0] == expected[name][0]
        else:
            assert after[name][0].std() == pytest.approx(float(expected[name].std()), rel=0.3)
    assert after[EMBEDDING][0].std() == pytest.approx(1, rel=0.3)
    assert start.model.model.denoising_class_embed.padding_idx == 2


def test_the_start_is_a_function_of_the_seed(tmp_path: Path) -> None:
    path = save(model_of(OLD), tmp_path)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    one, same, other = (
        tensors(load_for_training(path, ["a", "car"], seed=seed).model) for seed in (0, 0, 1)
    )
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one[HEADS[0]][0], other[HEADS[0]][0])
    assert torch.equal(one[HEADS[0]][1], other[HEADS[0]][1])


@pytest.mark.parametrize("learned", [False, True], ids=["selected", "learned"])
@pytest.mark.parametrize("queries", [10, 50])
def test_queries(learned: bool, queries: int, tmp_path: Path) -> None:
    old = model_of(OLD, learn_initial_query=learned)
    start = load_for_training(save(old, tmp_path), OLD, queries=queries)
    assert start.report.adapted[1:] == (f"queries: 30 -> {queries}",)
    assert start.model.config.num_queries == queries
    if learned:
        before = tensors(old)["model.weight_embedding.weight"]
        after = tensors(start.model)["model.weight_embedding.weight"]
        both = min(queries, 30)
        assert len(after) == queries
        assert torch.equal(before[:both], after[:both])
    with torch.inference_mode():
        outputs = start.model.eval()(image(96, 96))
    assert outputs.logits.shape == (1, queries, 3)


def test_what_is_returned_is_ready_to_train(tmp_path: Path) -> None:
    path = save(model_of(OLD).half(), tmp_path)
    start = load_for_training(path, ["x", "car"], category_ids=[7, 3])
    assert start.model.training
    assert start.model.dtype == torch.float32
    assert start.model.config.category_ids == (7, 3)
    assert start.processor.input_size == (96, 96)
    assert start.model.load_report is start.report
    labels = [{"class_labels": torch.tensor([1]), "boxes": torch.tensor([[0.5, 0.5, 0.2, 0.2]])}]
    start.model(image(96, 96), labels=labels).loss.backward()


def test_the_average_of_an_original_checkpoint_is_taken(tmp_path: Path) -> None:
    """Its classes have no names: as many are taken to be the same ones."""
    average = to_original_state_dict(model_of(OLD))
    last = {name: torch.zeros_like(tensor) for name, tensor in average.items()}
    path = tmp_path / "checkpoint0011.pth"
    torch.save({"last_epoch": 11, "model": last, "ema": {"module": average, "updates": 4}}, path)
    start = load_for_training(path, ["a", "b", "c"])
    assert start.report.adapted == (
        "class heads: all 3 classes keep their weights, by their order: the file does not name them",
    )
    expected = tensors(model_of(OLD))
    assert all(torch.equal(tensor, expected[name]) for name, tensor in tensors(start.model).items())
    other = load_for_training(path, ["a", "b"])
    assert other.report.adapted == ("class heads: reinitialized, 3 -> 2 classes",)


def test_learned_queries_of_an_original_checkpoint_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "learned.pth"
    save_original(model_of(OLD, learn_initial_query=True), path)
    start = load_for_training(path, OLD, queries=40)
    assert start.report.adapted[1:] == ("queries: 30 -> 40",)


def test_weights_without_a_label_embedding(tmp_path: Path) -> None:
    """What was exported for inference alone lacks it; a recognized file then says so."""
    path = save(model_of(OLD, num_denoising=0), tmp_path)
    assert load_for_training(path, OLD).model.config.num_denoising == 0
    start = load_for_training(path, OLD, changes={"num_denoising": 50})
    assert start.report.adapted[1:] == ("label embedding: not in the file, reinitialized",)
    assert len(tensors(start.model)[EMBEDDING]) == 4


def test_a_class_free_encoder_head_is_kept(tmp_path: Path) -> None:
    old = model_of(["one"], query_select_method="agnostic")
    start = load_for_training(save(old, tmp_path), ["a", "b"])
    name = "model.enc_score_head.weight"
    assert torch.equal(tensors(old)[name], tensors(start.model)[name])


def test_from_scratch(tmp_path: Path) -> None:
    path = save(model_of(OLD), tmp_path)
    start = load_for_training(path, ["a", "b"], queries=9, pretrained=False, seed=3)
    assert start.report.adapted == ("all weights are drawn with seed 3, 2 classes",)
    assert start.model.config.num_queries == 9
    again = load_for_training(path, ["a", "b"], queries=9, pretrained=False, seed=3)
    expected = tensors(again.model)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in tensors(start.model).items())


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("decoder.integral.project", "D-FINE"),
        ("transformer.enc_out_bbox_embed.0.layers.0.weight", "RF-DETR"),
        ("model.22.cv2.0.0.conv.weight", "YOLO"),
    ],
)
def test_another_family_is_refused(name: str, family: str, tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    torch.save({"model": {name: torch.zeros(1)}}, path)
    with pytest.raises(ModelError, match=rf"other\.pth looks like {family} ") as caught:
        load_for_training(path, ["a"])
    assert caught.value.exit_code == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"names": []}, "names: expected a list of class names, each once"),
        ({"names": "cat"}, "names: expected a list of class names, each once, got 'cat'"),
        ({"names": ["a", "a"]}, "names: expected a list of class names, each once"),
        ({"names": ["a"], "queries": 0}, "num_queries: expected an int in"),
        ({"names": ["a"], "category_ids": [1, 2]}, "category_ids: expected 1 values"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
@pytest.mark.parametrize("pretrained", [True, False])
def test_wrong_arguments(
    options: dict[str, Any], message: str, pretrained: bool, tmp_path: Path
) -> None:
    path = save(model_of(OLD), tmp_path)
    with pytest.raises(UsageError, match=f"^{message}"):
        load_for_training(path, **options, pretrained=pretrained)


def test_other_shapes_are_refused(tmp_path: Path) -> None:
    path = save(model_of(OLD), tmp_path)
    with pytest.raises(ModelError, match="weights are missing"):
        load_for_training(path, OLD, changes={"decoder_layers": 4})


def test_a_preset_that_nobody_published_starts_at_random() -> None:
    start, again = (load_for_training("tiny", ["helmet"], seed=seed) for seed in (3, 3))
    assert start.report.adapted == ("all weights are drawn with seed 3, 1 classes",)
    assert sum(p.numel() for p in start.model.parameters()) < 4_000_000
    after, same = tensors(start.model), tensors(again.model)
    assert all(torch.equal(after[name], same[name]) for name in after)
