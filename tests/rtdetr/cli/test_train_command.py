# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from command import Command
from data_sets import NAMES, coco_folder, yolo_folder
from PIL import Image

from rtdetr.training.checkpoint import LAST

ROOT = Path(__file__).parents[3]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return coco_folder(tmp_path / "data")


@pytest.fixture
def short(model: Path) -> tuple[object, ...]:
    """Flags of a run of seconds: three steps an epoch."""
    return (
        *("--model", model, "--imgsz", 64, "--batch", 4, "--accum", 1, "--workers", 0),
        *("--device", "cpu", "--epochs", 1, "--no-plots"),
    )


def test_from_a_folder_to_a_prediction(
    rtdetr: Command, data: Path, short: tuple[object, ...], tmp_path: Path
) -> None:
    result = rtdetr("train", data, *short[:-1])  # with plots
    assert result.code == 0, result.err
    assert "done    1 epoch" in result.out
    assert "next    rtdetr predict IMAGE --model runs/train/best.safetensors" in result.out
    assert "\x1b" not in result.out + result.err
    assert {path.name for path in (tmp_path / "runs" / "train").iterdir()} == {
        *("best.safetensors", "config.yaml", "confusion.png", "curves.png", "labels.jpg", LAST),
        *("log.jsonl", "metrics.json", "pr.png", "results.csv", "run.json", "train_batch.jpg"),
        "val_samples.jpg",
    }
    for name in ("curves.png", "labels.jpg", "train_batch.jpg", "val_samples.jpg"):
        assert Image.open(tmp_path / "runs" / "train" / name).size > (200, 200)
    best = "runs/train/best.safetensors"
    image = data / "val" / "val_0.png"
    found = rtdetr("predict", image, "--model", best, "--conf", "0", "--no-save", "--json")
    names = {one["name"] for one in found.json["results"][0]["objects"]}
    assert names
    assert names <= set(NAMES)
    measured = rtdetr("val", data, "--model", best, "--device", "cpu", "--no-plots", "--json")
    metrics = json.loads((tmp_path / "runs" / "train" / "metrics.json").read_text())
    assert measured.json["ap"] == pytest.approx(metrics["ap"], abs=1e-6)


def test_the_ids_of_the_file_come_back(
    rtdetr: Command, short: tuple[object, ...], tmp_path: Path
) -> None:
    yolo = yolo_folder(tmp_path / "yolo")
    assert rtdetr("train", yolo, *short).code == 0
    told = rtdetr("info", "runs/train/best.safetensors")
    assert all(name in told.out for name in NAMES)


def test_options_of_a_file_and_flags_before_it(
    rtdetr: Command, data: Path, short: tuple[object, ...], tmp_path: Path
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"data: {data}\nepochs: 7\nlr: 0.002\nfreeze: [backbone]\n")
    assert rtdetr("train", "--config", config, *short, "--dry-run").code == 0
    assert rtdetr("train", "--config", config, *short).code == 0
    used = yaml.safe_load((tmp_path / "runs" / "train" / "config.yaml").read_text())
    assert (used["epochs"], used["lr"], used["freeze"]) == (1, 0.002, ["backbone"])
    again = rtdetr("train", "--config", tmp_path / "runs" / "train" / "config.yaml", "--dry-run")
    assert again.code == 0, again.err


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        ((), 2, "DATA: expected a folder of annotated images, or --resume"),
        (("nowhere",), 3, "nowhere"),
        (("data", "--epochs", 0), 2, "--epochs: expected at least 1, got 0"),
        (("data", "--batch", "many"), 2, '--batch: expected a whole number or auto, got "many"'),
        (("data", "--lr", -1), 2, "--lr: expected a number above 0"),
        (("data", "--imgsz", 100), 2, "--imgsz: expected multiples of 32, got 100. Try 96"),
        (("data", "--amp", "fp16"), 2, "--amp: expected off or bf16 on cpu"),
        (("data", "--device", "cuda:9"), 1, "cuda"),
        (("data", "--devices", "0,1"), 1, "cuda"),
        (("data", "--freeze", "neck"), 2, "--freeze: expected backbone, encoder, decoder"),
        (("data", "--loggers", "wandb"), 2, "wandb"),
        (("data", "--loggers", "visdom"), 2, "--loggers: expected tensorboard, wandb, mlflow"),
        (("data", "--model", "rtdetrv2_r18v"), 4, 'Did you mean "rtdetrv2_r18vd"'),
        (("data", "--val-fraction", 2), 2, "--val-fraction: expected a number in 0..0.9"),
        (("data", "--out", "data/data.yaml"), 2, "--out: expected a folder"),
        (("--resume",), 2, "--resume: no run with a last.ckpt"),
        (("data", "--resume"), 1, "no last.ckpt to go on from; expected the folder of a run"),
        (
            ("data", "--config", "unknown.yaml"),
            2,
            'unknown.yaml line 2: unknown key "epoches". Did',
        ),
        (("data", "--config", "list.yaml"), 2, "list.yaml: expected lines such as epochs: 30"),
        (("data", "--config", "none.yaml"), 2, "none.yaml: No such file"),
        (("--replay", "list.yaml"), 1, "list.yaml: not a batch of a failed step"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_bad_input_ends_in_a_sentence(
    rtdetr: Command,
    data: Path,
    short: tuple[object, ...],
    tmp_path: Path,
    flags: tuple[object, ...],
    code: int,
    words: str,
) -> None:
    (tmp_path / "unknown.yaml").write_text("lr: 0.1\nepoches: 3\n")
    (tmp_path / "list.yaml").write_text("- 1\n- 2\n")
    (data / "data.yaml").write_text("names: [a]\n") if "--out" in flags else None
    own = {flag for flag in flags if str(flag).startswith("--")}
    pairs = [short[index : index + 2] for index in range(0, len(short) - 1, 2)]
    rest = [word for pair in pairs if pair[0] not in own for word in pair]
    rest = [] if own & {"--resume", "--replay"} else rest
    result = rtdetr("train", *flags, *rest)
    assert (result.code, words in result.err) == (code, True), result.err
    assert not (tmp_path / "runs").exists() or "--freeze" in own


def test_findings_name_flags(rtdetr: Command, short: tuple[object, ...], tmp_path: Path) -> None:
    data = yolo_folder(tmp_path / "yolo", first="0 .5 .5 .1 0")
    refused = rtdetr("train", data, *short)
    assert refused.code == 3
    assert "(--drop-bad-boxes)" in refused.err
    assert rtdetr("train", data, *short, "--drop-bad-boxes").code == 0


def test_ctrl_c_keeps_the_run_and_resume_ends_it(
    data: Path, short: tuple[object, ...], rtdetr: Command, tmp_path: Path
) -> None:
    flags = [str(flag) for flag in short]
    flags[flags.index("--epochs") + 1] = "200"
    process = subprocess.Popen(
        [sys.executable, "-m", "rtdetr", "train", str(data), *flags, "--out", "run"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None,
    )
    log, deadline = tmp_path / "run" / "log.jsonl", time.monotonic() + 120
    while not log.exists() or len(log.read_text().splitlines()) < 4:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "stopped in epoch" in err
    assert "rtdetr train --resume run" in err
    assert "Traceback" not in err
    dry = rtdetr("train", "run", "--resume", "--dry-run")
    assert "resume  epoch" in dry.out
    assert "done" not in dry.out
    refused = rtdetr("train", "run", "--resume", "--lr", 0.5)
    assert (refused.code, "(--resume-anyway)" in refused.err) == (2, True), refused.err
    done = torch.load(tmp_path / "run" / LAST, weights_only=True)["progress"]["epoch"]
    resumed = rtdetr("train", "--resume", "--out", "run", "--epochs", done + 1)
    assert resumed.code == 0, resumed.err
    assert f"done    {done + 1} epochs" in resumed.out


def test_data_that_have_moved_are_named(
    rtdetr: Command, data: Path, short: tuple[object, ...]
) -> None:
    assert rtdetr("train", "--data", data, *short).code == 0
    moved = data.rename(data.with_name("moved"))
    lost = rtdetr("train", "runs/train", "--resume", "--epochs", 2)
    assert (lost.code, "no such file or folder" in lost.err) == (3, True), lost.err
    assert rtdetr("train", "runs/train", "--resume", "--epochs", 2, "--data", moved).code == 0
    # The file of a run names its data too, which are no run.
    file = "runs/train/config.yaml"
    assert rtdetr("train", "--resume", "--config", file, "--epochs", 3).code == 0
    both = rtdetr("train", data, "--data", data, *short)
    assert (both.code, "--data: expected it with --resume alone" in both.err) == (2, True)


@pytest.mark.slow
def test_two_processes_train_one_model(
    data: Path, short: tuple[object, ...], tmp_path: Path
) -> None:
    """Started by the command itself, and by torchrun."""
    flags = [str(flag) for flag in short]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    losses = []
    for name, before, after in (
        ("own", [], ["--devices", "cpu,cpu"]),
        ("torchrun", torchrun, []),
    ):
        command = [sys.executable, *before, "-m", "rtdetr", "train", str(data), *flags, *after]
        done = subprocess.run(
            [*command, "--out", name],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "4 x 1 accumulated x 2 processes" in done.stdout
        assert done.stdout.count("1/1") == 1
        rows = (tmp_path / name / "log.jsonl").read_text().splitlines()
        losses.append([json.loads(row)["loss"] for row in rows])
    assert losses[0] == losses[1]
