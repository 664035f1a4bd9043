# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from data_sets import NAMES, TRAIN, coco_folder
from PIL import Image
from runs import STEPS, At, digest, make_trainer, prepare, weights

from rtdetr.data import Augmentation
from rtdetr.detector import RTDETR
from rtdetr.errors import DataError, RTDetrError, UsageError
from rtdetr.model import RTDetrV2ForObjectDetection
from rtdetr.training.callbacks import Callback
from rtdetr.training.failures import describe_batch
from rtdetr.training.replay import replay
from rtdetr.training.trainer import Trainer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("training")
    prepare(folder)
    return folder


def test_a_run_leaves_a_detector_and_its_numbers(folder: Path) -> None:
    lines: list[str] = []
    result = make_trainer(folder, "leaves", say=lines.append).train()
    assert result.folder == folder / "leaves"
    assert len(result.rows) == 2

    detector = RTDETR(result.best, device="cpu")
    assert tuple(detector.names.values()) == NAMES
    assert detector.imgsz == (64, 64)
    assert detector.model.config.category_ids == (1, 2)
    assert len(detector(Image.new("RGB", (64, 48)), threshold=0.0)) == 20

    with (result.folder / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert float(rows[1]["loss"]) == result.rows[1]["loss"]
    assert float(rows[0]["ap"]) == result.rows[0]["ap"]
    steps = [json.loads(line) for line in (result.folder / "log.jsonl").open()]
    assert [step["step"] for step in steps] == list(range(2 * STEPS))
    terms = [value for name, value in steps[0].items() if name.startswith("loss_")]
    assert sum(terms) == pytest.approx(steps[0]["loss"], rel=1e-5)
    config = yaml.safe_load((result.folder / "config.yaml").read_text())
    assert config["epochs"] == 2
    assert config["data"] == str(folder / "data")
    described = json.loads((result.folder / "run.json").read_text())
    assert described["versions"]["torch"] == torch.__version__

    text = "\n".join(lines)
    assert "train 12 images, 12 boxes   val 2 images, 2 boxes" in text
    assert f"classes 2: {', '.join(NAMES)}" in text
    assert "2 epochs x 3 = 6 steps of 4 images (4 x 1 accumulated)" in text
    assert "1/2" in text
    assert "2/2" in text


def test_the_best_epoch_is_what_is_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[torch.Tensor] = []

    class Watcher(Callback):
        def epoch(self, run: Any, row: Mapping[str, Any]) -> None:
            kept.append(weights(run.average))

    aps = iter([0.2, 0.4, 0.3])
    monkeypatch.setattr("rtdetr.training.validator.evaluate", lambda *_, **__: Rated(next(aps)))
    result = make_trainer(folder, "best", epochs=3, callbacks=[Watcher()]).train()
    assert (result.ap, result.epoch) == (0.4, 2)
    assert [row["best"] for row in result.rows] == [1, 1, 0]
    best = RTDetrV2ForObjectDetection.from_pretrained(result.best)
    assert torch.equal(weights(best), kept[1])
    assert not torch.equal(kept[1], kept[2])


class Rated:
    """An evaluation of one number."""

    def __init__(self, ap: float) -> None:
        self.ap = ap

    def numbers(self) -> dict[str, float]:
        return {"ap": self.ap}


def test_patience_ends_a_run_that_gets_no_better(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    aps = iter([0.2, 0.4, 0.3, 0.4, 0.1, 0.5])
    monkeypatch.setattr("rtdetr.training.validator.evaluate", lambda *_, **__: Rated(next(aps)))
    result = make_trainer(folder, "patient", epochs=6, patience=2).train()
    assert (len(result.rows), result.epoch) == (4, 2)


def test_callbacks_are_told_of_each_moment_and_may_stop(folder: Path) -> None:
    moments: list[str] = []

    class Recorder(Callback):
        def start(self, run: Any) -> None:
            moments.append(f"start {run.number}")

        def step(self, run: Any, result: Any) -> None:
            moments.append(f"step {run.number}")

        def epoch(self, run: Any, row: Any) -> None:
            moments.append(f"epoch {row['epoch']}")
            run.stop()

        def end(self, run: Any) -> None:
            moments.append("end")

    make_trainer(folder, "told", callbacks=[Recorder()]).train()
    assert moments == ["start 0", "step 1", "step 2", "step 3", "epoch 1", "end"]


@pytest.mark.parametrize("changes", [{"workers": 2}, {"save_every": 1e-6}], ids=str)
def test_workers_and_checkpoints_do_not_change_the_result(
    folder: Path, changes: dict[str, Any]
) -> None:
    expected = make_trainer(folder, "plain").train()
    result = make_trainer(folder, "changed", **changes).train()
    assert digest(result.best) == digest(expected.best)


@pytest.mark.parametrize(
    ("options", "expected", "line"),
    [
        ({}, Augmentation(), "strong augmentation but for the last epoch"),
        ({"flip": False}, Augmentation(flip=0), "strong augmentation but for the last epoch"),
        ({"augment": False}, Augmentation(0, 0, 0, 0.5), "no strong augmentation"),
        ({"augment": False, "flip": False}, Augmentation(0, 0, 0, 0), "no strong augmentation"),
    ],
    ids=["recipe", "no-flip", "flip-alone", "none"],
)
def test_augmentation_is_chosen(
    options: dict[str, bool],
    expected: Augmentation,
    line: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn = []

    def draw(sample: Any, rng: np.random.Generator, augmentation: Augmentation) -> Any:
        drawn.append(augmentation)
        return sample

    monkeypatch.setattr("rtdetr.data.dataset.augment", draw)
    lines: list[str] = []
    make_trainer(folder, "augmented", say=lines.append, **options).train()
    assert f"images  64x64 px, {line}" in lines
    assert set(drawn) == {expected, expected.weak()}


def test_frozen_parts_keep_weights_and_statistics(folder: Path) -> None:
    before = RTDetrV2ForObjectDetection.from_pretrained(folder / "model").model.backbone
    result = make_trainer(folder, "frozen", freeze=["backbone"]).train()
    after = RTDetrV2ForObjectDetection.from_pretrained(result.best).model
    own = dict(after.backbone.state_dict())
    assert all(torch.equal(tensor, own[name]) for name, tensor in before.state_dict().items())
    assert not torch.equal(
        weights(after.encoder),
        weights(RTDetrV2ForObjectDetection.from_pretrained(folder / "model").model.encoder),
    )


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["bakbone"], 'freeze: expected backbone, encoder, decoder or .*Did you mean "backbone"'),
        (["model"], "freeze: nothing is left to train"),
    ],
)
def test_what_cannot_be_frozen_is_said(folder: Path, words: list[str], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        make_trainer(folder, "unfrozen", freeze=words).train()


def test_out_of_memory_goes_on_with_smaller_parts(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = RTDetrV2ForObjectDetection.forward

    def limited(self: Any, pixels: torch.Tensor, *args: Any, **options: Any) -> Any:
        if self.training and len(pixels) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return forward(self, pixels, *args, **options)

    lines: list[str] = []
    monkeypatch.setattr(RTDetrV2ForObjectDetection, "forward", limited)
    result = make_trainer(folder, "memory", say=lines.append).train()
    assert [row["batch"] for row in result.rows] == [2, 2]
    assert [line for line in lines if "out of memory" in line] == [
        "          out of memory: 2 images at once from here on, 2 times a step; the step was repeated"
    ]


class Poisoned:
    """Images from memory, one of which spoils the run where it comes."""

    def __init__(self, spoilt: int | None = None) -> None:
        self.spoilt = spoilt

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> tuple[Image.Image, dict[str, Any]]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        array = np.random.default_rng(index).integers(0, 255, (48, 64, 3), dtype=np.uint8)
        return Image.fromarray(array), {"boxes": [[8, 6, 30, 20]], "class_labels": [index % 2]}


def test_images_from_memory_train_too(folder: Path) -> None:
    data = {"train": Poisoned(), "val": Poisoned()}
    result = make_trainer(folder, "python", data=data, names=NAMES).train()
    assert len(result.rows) == 2
    with pytest.raises(UsageError, match="data: the images of this run were in memory"):
        Trainer.resume(result.folder)


def test_steps_that_stay_not_finite_leave_their_batch(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(run: Any) -> None:
        with torch.no_grad():
            run.model.model.encoder_input_proj[1][0].weight[0, 0] = torch.inf

    with pytest.raises(RTDetrError, match=r"epoch 2: .* not finite 5 steps in a row .*nan_batch"):
        make_trainer(folder, "nan", epochs=3, callbacks=[At(1, spoil)]).train()
    replayed = replay(folder / "nan" / "nan_batch.pt")
    assert replayed.first == "the weight model.encoder_input_proj.1.0.weight"
    assert len(replayed.images) == 4
    assert set(replayed.images) <= set(TRAIN)
    assert replayed.lines()[0].startswith("first not finite: the weight")


def test_a_step_that_is_not_finite_is_passed_over_and_counted(folder: Path) -> None:
    def spoil(run: Any) -> None:
        weight = run.model.class_embed[0].weight
        handle = weight.register_hook(lambda gradient: handle.remove() or gradient * torch.inf)

    lines: list[str] = []
    result = make_trainer(folder, "once", callbacks=[At(2, spoil)], say=lines.append).train()
    assert [row["skipped"] for row in result.rows] == [1, 0]
    assert any("step 3: loss or gradient not finite, passed over" in line for line in lines)


def test_replay_finds_the_image_and_the_module(folder: Path) -> None:
    """Of numbers that are finite in float32, it says that too."""
    content: dict[str, Any] = {}

    def keep(run: Any) -> None:
        content.update(describe_batch(run, next(iter(run.loader)), run.names))

    make_trainer(folder, "kept", callbacks=[At(2 * STEPS, keep)]).train()
    path = folder / "batch.pt"
    torch.save(content, path)
    assert "all numbers are finite in float32" in replay(path).lines()[0]
    pixels = content["pixel_values"].float()
    pixels[2, 0, 5, 5] = torch.nan
    torch.save({**content, "pixel_values": pixels}, path)
    replayed = replay(path)
    assert replayed.first == "the pixels"
    assert replayed.images == (content["names"][2],)
    with pytest.raises(RTDetrError, match="not a batch of a failed step"):
        replay(folder / "model" / "config.json")


def test_a_data_set_without_val_is_trained_to_the_last_epoch(folder: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    result = make_trainer(
        folder, "noval", data={"train": Poisoned()}, names=NAMES, val_fraction=0, say=lines.append
    ).train()
    assert (result.ap, result.epoch) == (None, 2)
    assert result.best.is_file()
    assert any("nothing is measured" in line for line in lines)


def test_broken_images_are_replaced_and_counted_if_asked(folder: Path, tmp_path: Path) -> None:
    data = coco_folder(tmp_path / "data")
    image = data / "train" / TRAIN[3]
    image.write_bytes(image.read_bytes()[:60])
    with pytest.raises(DataError, match=TRAIN[3]):
        make_trainer(folder, "broken", data=data).train()
    result = make_trainer(folder, "replaced", data=data, skip_broken=True).train()
    assert [row["broken"] for row in result.rows] == [1, 1]


def test_a_dry_run_says_all_and_writes_nothing(folder: Path) -> None:
    lines: list[str] = []
    result = make_trainer(folder, "dry", say=lines.append, dry_run=True).train()
    assert not (folder / "dry").exists()
    assert result.rows == ()
    assert any(line.startswith("steps") for line in lines)


def test_a_folder_that_exists_is_left_alone(folder: Path) -> None:
    names = [make_trainer(folder, "again", epochs=1).train().folder.name for _ in range(2)]
    assert names == ["again", "again-2"]


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"epoch": 3}, TypeError, "no (argument|option) 'epoch'.* Did you mean \"epochs\""),
        ({"batch_size": 3}, TypeError, 'Did you mean "batch"'),
        ({"epochs": 0}, UsageError, "epochs: expected at least 1, got 0"),
        ({"batch": 0}, UsageError, "batch: expected at least 1, got 0"),
        ({"lr": -1}, UsageError, "lr: expected a number above 0, got -1"),
        ({"lr": 10**400}, UsageError, "lr: expected a number above 0, got 10000"),
        ({"amp": np.ones(2)}, UsageError, "amp: expected auto, bf16, fp16, off, got array"),
        ({"freeze": torch.tensor(3)}, UsageError, "freeze: expected a list of words, got tensor"),
        (
            {"multi_scale": True, "imgsz": (64, 96)},
            UsageError,
            "multi_scale: expected a square imgsz, got 64,96",
        ),
        ({"imgsz": 100}, UsageError, "imgsz: expected multiples of 32, got 100. Try 96"),
        ({"amp": "fp16"}, UsageError, "amp: expected off or bf16 on cpu"),
        ({"amp": "half"}, UsageError, "amp: expected auto, bf16, fp16, off, got 'half'"),
        ({"recipe": "papers"}, UsageError, 'recipe: .*Did you mean "paper"'),
        ({"loggers": ["wand"]}, UsageError, 'loggers: .*Did you mean "wandb"'),
        ({"device": "cuda:7"}, RTDetrError, "device|cuda|CUDA"),
        ({"val_fraction": 2}, UsageError, "val_fraction: expected a number in 0..0.9"),
        ({"seed": 1.5}, UsageError, "seed: expected a whole number"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_wrong_options_are_named_before_any_work(
    folder: Path, options: dict[str, Any], error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        make_trainer(folder, "wrong", **options).train()
    assert not (folder / "wrong").exists()
