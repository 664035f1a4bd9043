# SPDX-License-Identifier: Apache-2.0
"""What a fine-tuning program for transformers does, with its import line changed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from model_cases import image, tiny_model
from torch import Tensor

import rtdetr
import rtdetr.transformers
from rtdetr import RTDetrImageProcessor, RTDetrV2ForObjectDetection

OLD = {0: "person", 1: "car", 2: "bus"}
NEW = {0: "helmet", 1: "vest"}
STEPS, BEST = 3, 1

CLASSES = {
    "rtdetr": RTDetrV2ForObjectDetection,
    "rtdetr.transformers": rtdetr.transformers.RTDetrV2ForObjectDetection,
}


class Images(torch.utils.data.Dataset[dict[str, Any]]):
    """Noise with no, one, two or three objects."""

    def __init__(self, processor: RTDetrImageProcessor) -> None:
        self.processor = processor

    def __len__(self) -> int:
        return 4  # whole batches: of a smaller last one, accelerate cuts every tensor of a label

    def __getitem__(self, index: int) -> dict[str, Any]:
        pixels = np.random.default_rng(index).integers(0, 256, (60, 90, 3), dtype=np.uint8)
        one = {"bbox": [10, 10, 30, 20], "category_id": index % 2, "area": 600, "iscrowd": 0}
        annotation = {"image_id": index, "annotations": [one] * index}
        batch = self.processor(images=[pixels], annotations=[annotation], return_tensors="pt")
        return {name: value[0] for name, value in batch.items()}


def collate(samples: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "pixel_values": torch.stack([sample["pixel_values"] for sample in samples]),
        "labels": [sample["labels"] for sample in samples],
    }


def metrics(processor: RTDetrImageProcessor) -> Callable[[Any], dict[str, float]]:
    """Each evaluation is worse than the one before, so that the first is the best."""
    calls: list[int] = []

    def compute(evaluation: Any) -> dict[str, float]:
        detections = 0
        for batch, targets in zip(evaluation.predictions, evaluation.label_ids, strict=True):
            outputs = rtdetr.model.RTDetrV2ObjectDetectionOutput(
                logits=torch.tensor(batch[1]), pred_boxes=torch.tensor(batch[2])
            )
            sizes = torch.tensor(np.array([target["orig_size"] for target in targets]))
            results = processor.post_process_object_detection(outputs, 0.0, sizes)
            detections += sum(len(result["scores"]) for result in results)
        calls.append(detections)
        return {"rank": -len(calls), "detections": detections}

    return compute


def boxes(model: Any) -> tuple[Tensor, Tensor]:
    with torch.inference_mode():
        outputs = model.eval()(image(64, 64))
    return outputs.logits, outputs.pred_boxes


def assert_same(one: Any, other: Any) -> None:
    for tensor, expected in zip(boxes(one), boxes(other), strict=True):
        torch.testing.assert_close(tensor, expected, rtol=0, atol=1e-4)


def train(model: Any, folder: Path, **options: Any) -> Any:
    processor = RTDetrImageProcessor(size=64)
    arguments = transformers.TrainingArguments(
        str(folder),
        **options,
        max_steps=STEPS,
        per_device_train_batch_size=2,
        per_device_eval_batch_size=2,
        eval_strategy="steps",
        save_strategy="steps",
        eval_steps=1,
        save_steps=1,
        learning_rate=1e-2,
        load_best_model_at_end=True,
        metric_for_best_model="rank",
        greater_is_better=True,
        remove_unused_columns=False,
        eval_do_concat_batches=False,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    return transformers.Trainer(
        model=model,
        args=arguments,
        train_dataset=Images(processor),
        eval_dataset=Images(processor),
        processing_class=processor,
        data_collator=collate,
        compute_metrics=metrics(processor),
    )


@pytest.fixture(scope="module", params=CLASSES)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A Trainer after its run, from weights for other classes."""
    folder = tmp_path_factory.mktemp("trainer")
    tiny_model(num_labels=None, id2label=OLD).save_pretrained(folder / "start")
    model = CLASSES[request.param].from_pretrained(
        folder / "start",
        id2label=NEW,
        label2id={name: index for index, name in NEW.items()},
        ignore_mismatched_sizes=True,
    )
    trainer = train(model, folder / "run")
    trainer.train()
    return trainer


def checkpoint(run: Any, step: int) -> Path:
    return Path(run.args.output_dir) / f"checkpoint-{step}"


def test_it_trains_evaluates_and_restores_the_best(run: Any) -> None:
    history = run.state.log_history
    evaluations = [entry for entry in history if "eval_loss" in entry]
    assert [entry["eval_detections"] for entry in evaluations] == [4 * 30] * STEPS
    assert all(np.isfinite(entry["eval_loss"]) for entry in evaluations)
    assert run.state.best_model_checkpoint == str(checkpoint(run, BEST))
    config = run.model.config
    best, last = (
        RTDetrV2ForObjectDetection.from_pretrained(checkpoint(run, step), config=config)
        for step in (BEST, STEPS)
    )
    assert_same(run.model, best)
    assert not torch.equal(boxes(best)[0], boxes(last)[0])


def test_a_run_goes_on_from_its_checkpoint(run: Any, tmp_path: Path) -> None:
    model = type(run.model)(run.model.config)
    trainer = train(model, tmp_path)
    trainer.train(resume_from_checkpoint=str(checkpoint(run, STEPS - 1)))
    uninterrupted, resumed = (
        RTDetrV2ForObjectDetection.from_pretrained(checkpoint(one, STEPS), config=model.config)
        for one in (run, trainer)
    )
    assert_same(resumed, uninterrupted)


def test_a_checkpoint_loads_anywhere(run: Any, tmp_path: Path) -> None:
    if isinstance(run.model, transformers.PreTrainedModel):
        folder = checkpoint(run, BEST)
    else:  # a Trainer saves its weights alone; the program saves the rest
        folder = tmp_path
        run.model.save_pretrained(folder)
    ours = RTDetrV2ForObjectDetection.from_pretrained(folder)
    theirs = transformers.RTDetrV2ForObjectDetection.from_pretrained(folder)
    assert ours.config.id2label == theirs.config.id2label == NEW
    assert_same(ours, run.model)
    assert_same(ours, theirs)
    theirs.save_pretrained(tmp_path / "theirs")
    assert_same(RTDetrV2ForObjectDetection.from_pretrained(tmp_path / "theirs"), ours)
    assert RTDetrImageProcessor.from_pretrained(checkpoint(run, BEST)).input_size == (64, 64)


def test_weights_of_a_checkpoint_alone_are_recognized(run: Any, tmp_path: Path) -> None:
    weights = checkpoint(run, BEST) / "model.safetensors"
    alone = tmp_path / "model.safetensors"
    alone.write_bytes(weights.read_bytes())
    assert RTDetrV2ForObjectDetection.from_pretrained(alone).config.num_labels == len(NEW)


def test_a_loop_of_torch() -> None:
    model = tiny_model().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    labels = [{"class_labels": torch.tensor([1]), "boxes": torch.tensor([[0.5, 0.5, 0.2, 0.2]])}]
    losses = []
    for _ in range(6):
        torch.manual_seed(0)  # of the denoising noise
        outputs = model(image(64, 64), labels=labels)
        optimizer.zero_grad()
        outputs.loss.backward()
        optimizer.step()
        losses.append(outputs.loss.item())
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", CLASSES)
def test_saving_takes_what_a_trainer_passes(name: str, tmp_path: Path) -> None:
    model = CLASSES[name](tiny_model().config)
    state: Mapping[str, Tensor] = tiny_model().state_dict()
    model.save_pretrained(tmp_path / "no", state_dict=state, is_main_process=False)
    assert not (tmp_path / "no").exists()
    model.save_pretrained(tmp_path, state_dict=state, is_main_process=True, safe_serialization=True)
    assert_same(RTDetrV2ForObjectDetection.from_pretrained(tmp_path), tiny_model())


@pytest.mark.parametrize("name", CLASSES)
def test_what_is_not_there_is_refused_in_words(name: str, tmp_path: Path) -> None:
    model = CLASSES[name](tiny_model().config)
    trainer = train(model, tmp_path, gradient_checkpointing=True)
    with pytest.raises(ValueError, match="gradient_checkpointing: this detector keeps"):
        trainer.train()


def test_state_dicts_of_files_and_of_transformers_are_taken() -> None:
    theirs = transformers.RTDetrV2ForObjectDetection(
        transformers.RTDetrV2Config(**tiny_model().config.to_dict())
    )
    model = tiny_model()
    model.load_state_dict(theirs.state_dict())  # the heads under two names
    assert_same(model, theirs)
    model.load_state_dict(rtdetr.to_original_state_dict(tiny_model()), strict=False)
    assert_same(model, tiny_model())
    with pytest.raises(RuntimeError, match=r'Unexpected key\(s\) in state_dict: "model\.what"'):
        model.load_state_dict({**tiny_model().state_dict(), "model.what": torch.zeros(1)})


def test_nothing_else_imports_transformers() -> None:
    program = (
        "import sys, rtdetr; rtdetr.RTDETR, rtdetr.RTDetrV2ForObjectDetection; "
        "assert 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
