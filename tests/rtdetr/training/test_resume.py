# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from data_sets import TRAIN, draw
from runs import STEPS, At, digest, make_trainer, prepare

import rtdetr
from rtdetr.errors import DataError, RTDetrError, UsageError
from rtdetr.training.checkpoint import LAST, PREVIOUS, read_checkpoint
from rtdetr.training.interruption import InterruptedRunError
from rtdetr.training.loggers import JsonLinesLogger
from rtdetr.training.trainer import Trainer, TrainResult

EPOCHS = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("resume")
    prepare(folder)
    return folder


@pytest.fixture(scope="module")
def undisturbed(folder: Path) -> TrainResult:
    return make_trainer(folder, "undisturbed", epochs=EPOCHS).train()


@pytest.fixture(autouse=True)
def listens() -> Iterator[None]:
    """A shell starts its jobs in the background deaf to SIGINT, and a run stays so: this process may be one."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def signal_to_itself(number: int) -> Callable[[Any], None]:
    return lambda run: os.kill(os.getpid(), number)


def interrupt(folder: Path, out: str, after: int, **options: Any) -> Path:
    """A run that Ctrl-C has stopped after a step."""
    stop = At(after, signal_to_itself(signal.SIGINT))
    with pytest.raises(InterruptedRunError):
        make_trainer(folder, out, epochs=EPOCHS, callbacks=[stop], **options).train()
    return folder / out


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)],
    ids=["Ctrl-C", "SIGTERM", "SIGHUP"],
)
@pytest.mark.parametrize("after", [1, STEPS, STEPS + 1, EPOCHS * STEPS])
def test_an_interrupted_run_ends_with_the_same_bits(
    folder: Path, undisturbed: TrainResult, number: int, code: int, after: int
) -> None:
    handler = signal.getsignal(number)
    stop = At(after, signal_to_itself(number))
    with pytest.raises(InterruptedRunError, match=r"stopped in epoch .*--resume") as error:
        make_trainer(folder, f"stop{number}{after}", epochs=EPOCHS, callbacks=[stop]).train()
    assert error.value.exit_code == code
    assert signal.getsignal(number) is handler
    result = Trainer.resume(folder / f"stop{number}{after}", say=None).train()
    assert_same(result, undisturbed)


def assert_same(result: TrainResult, expected: TrainResult) -> None:
    assert digest(result.best) == digest(expected.best)
    assert [_without_times(row) for row in result.rows] == [
        _without_times(row) for row in expected.rows
    ]
    one, other = (read_checkpoint(r.folder) for r in (result, expected))
    for name, tensor in one["model"].items():
        assert torch.equal(tensor, other["model"][name]), name
    assert (result.ap, result.epoch) == (expected.ap, expected.epoch)
    steps = (result.folder / "log.jsonl").read_text()
    assert steps == (expected.folder / "log.jsonl").read_text()


def _without_times(row: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in row.items() if k not in ("seconds", "waiting", "memory", "evaluation")}


def test_an_evaluation_that_is_interrupted_is_repeated(
    folder: Path, undisturbed: TrainResult
) -> None:
    from rtdetr.training.validator import Validator

    asked = []

    def interrupted(self: Validator, interruption: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        asked.append(interruption.signal_number)
        return until(self, interruption)

    until = Validator._until
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Validator, "_until", interrupted)
        with pytest.raises(InterruptedRunError, match="stopped in epoch 1 after step 3 of 3"):
            make_trainer(folder, "measured", epochs=EPOCHS).train()
    assert_same(Trainer.resume(folder / "measured", say=None).train(), undisturbed)


def test_dropout_and_workers_do_not_keep_a_run_from_its_bits(folder: Path) -> None:
    model = rtdetr.RTDetrV2ForObjectDetection.from_pretrained(
        folder / "model", dropout=0.2, attention_dropout=0.1
    )
    model.save_pretrained(folder / "dropout")
    options = {"model": folder / "dropout", "workers": 2}
    expected = make_trainer(folder, "dropped", epochs=EPOCHS, **options).train()
    stopped = interrupt(folder, "dropped-stopped", 4, **options)
    assert_same(Trainer.resume(stopped, say=None).train(), expected)


def test_a_run_may_get_longer(folder: Path) -> None:
    run = make_trainer(folder, "longer", epochs=1).train().folder
    lines: list[str] = []
    finished = Trainer.resume(run, say=lines.append).train()
    assert len(finished.rows) == 1
    assert any("this run is finished; more epochs let it go on" in line for line in lines)
    assert [row["epoch"] for row in Trainer.resume(run, epochs=3, say=None).train().rows] == [
        1,
        2,
        3,
    ]
    with pytest.raises(UsageError, match="epochs: expected at least 3, which are over, got 2"):
        Trainer.resume(run, epochs=2, say=None).train()


def test_another_recipe_is_refused_unless_asked(folder: Path) -> None:
    run = interrupt(folder, "recipe", 2)
    with pytest.raises(UsageError, match=r"lr was 0.001: start a new run, or go on anyway"):
        Trainer.resume(run, lr=0.1)
    with pytest.raises(UsageError, match=r"imgsz was 64, seed was 0"):
        Trainer.resume(run, seed=1, imgsz=96)
    Trainer.resume(run, lr=0.001, device="cpu", patience=3)
    assert len(Trainer.resume(run, lr=0.1, anyway=True, say=None).train().rows) == EPOCHS


def test_other_data_are_refused_unless_asked(tmp_path: Path) -> None:
    prepare(tmp_path)
    run = interrupt(tmp_path, "run", 2)
    draw(tmp_path / "data" / "train" / TRAIN[0], "another")
    with pytest.raises(UsageError, match=r"the data have changed since this run began: .*train"):
        Trainer.resume(run, say=None).train()
    assert len(Trainer.resume(run, anyway=True, say=None).train().rows) == EPOCHS


def test_a_run_goes_on_wherever_it_data_and_user_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(tmp_path)
    monkeypatch.chdir(tmp_path)
    run = make_trainer(tmp_path, data="data", epochs=1).train().folder
    shutil.rmtree(tmp_path / "model")
    run = run.rename(tmp_path / "moved")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert len(Trainer.resume(run, epochs=2, say=None).train().rows) == 2
    (tmp_path / "data").rename(tmp_path / "moved_data")
    with pytest.raises(DataError, match="data: no such file or folder"):
        Trainer.resume(run, epochs=3, say=None).train()
    assert (
        len(Trainer.resume(run / LAST, data="../moved_data", epochs=3, say=None).train().rows) == 3
    )
    Trainer.resume(run, epochs=4, say=None, dry_run=True).train()
    assert len(read_checkpoint(run)["progress"]["rows"]) == 3


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda state: state.pop("plan"), "no checkpoint of a run; it has no plan"),
        (
            lambda state: state["options"].update(brand_new=1),
            r"rtdetr .* wrote this run, with options that this version does not have: brand_new",
        ),
        (
            lambda state: state["model"].popitem(),
            "checkpoint, written by rtdetr .*, does not fit this version .*Missing key",
        ),
        (lambda state: state["progress"].update(mood=1), "does not fit this version .*mood"),
        (lambda state: state["step"].pop("part"), "does not fit this version .*part"),
    ],
    ids=["parts", "options", "weights", "progress", "step"],
)
def test_a_checkpoint_of_another_version_is_refused_in_words(
    change: Callable[[dict[str, Any]], object], sentence: str, folder: Path
) -> None:
    run = make_trainer(folder, "version", epochs=1).train().folder
    state = torch.load(run / LAST, weights_only=True)
    change(state)
    torch.save(state, run / LAST)
    with pytest.raises(RTDetrError, match=sentence):
        Trainer.resume(run, epochs=2, say=None).train()


def test_a_damaged_checkpoint_names_the_one_before(folder: Path, undisturbed: TrainResult) -> None:
    run = interrupt(folder, "damaged", 7)
    last = run / LAST
    whole = last.read_bytes()
    for data in (b"", whole[: len(whole) // 2], whole[:9000] + b"x" * 64 + whole[9064:]):
        last.write_bytes(data)
        with pytest.raises(RTDetrError, match=rf"{LAST}: damaged.* is whole: mv .*{PREVIOUS}"):
            Trainer.resume(run)
    (run / PREVIOUS).replace(last)
    assert_same(Trainer.resume(run, say=None).train(), undisturbed)
    last.unlink()
    with pytest.raises(RTDetrError, match=f"no {LAST} to go on from"):
        Trainer.resume(run)


def test_a_full_disk_ends_the_run_and_leaves_the_last_checkpoint(
    folder: Path, undisturbed: TrainResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = torch.save

    def full(run: Any) -> None:
        def fail(value: Any, file: Any) -> None:
            file.write(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(torch, "save", fail)

    with pytest.raises(OSError, match=rf"No space left on device: .*{LAST}"):
        make_trainer(folder, "full", epochs=EPOCHS, callbacks=[At(4, full)]).train()
    monkeypatch.setattr(torch, "save", save)
    assert not list((folder / "full").glob(".rtdetr-*"))
    assert_same(Trainer.resume(folder / "full", say=None).train(), undisturbed)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.filterwarnings(
    "ignore:the end of a callback failed"
)  # the file cannot be closed, either
def test_a_full_disk_is_said_of_the_log_too(folder: Path) -> None:
    def fill(_: Any) -> None:
        (log,) = (one for one in trainer._loggers if isinstance(one, JsonLinesLogger))
        log._file = Path("/dev/full").open("w")  # noqa: SIM115 -- the logger closes it

    trainer = make_trainer(folder, "full-log", callbacks=[At(STEPS + 1, fill)])
    with pytest.raises(OSError, match=r"No space left on device: .*log\.jsonl"):
        trainer.train()
    assert len(Trainer.resume(folder / "full-log", say=None).train().rows) == 2


PROGRAM = """
import shutil
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
sys.path[:0] = {paths!r}
from runs import make_trainer
from rtdetr.training.checkpoint import LAST
from rtdetr.training.trainer import Trainer

folder, out, workers = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
if (folder / out / LAST).exists():
    trainer = Trainer.resume(folder / out, say=None)
else:
    # Killed before its first checkpoint, it left nothing to go on from.
    shutil.rmtree(folder / out, ignore_errors=True)
    trainer = make_trainer(folder, out, epochs={epochs}, workers=workers, save_every=1e-6)
trainer.train()
"""


def start(folder: Path, out: str, workers: int) -> subprocess.Popen[bytes]:
    here = Path(__file__).parent
    paths = [str(here), str(here.parent), str(here.parents[2])]
    program = PROGRAM.format(paths=paths, epochs=EPOCHS)
    return subprocess.Popen([sys.executable, "-c", program, str(folder), out, str(workers)])


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_killed_at_any_moment_it_ends_with_the_same_bits(
    folder: Path, undisturbed: TrainResult, workers: int
) -> None:
    """Ten kills, at times drawn anew; a checkpoint is written after every step, so many come while one is."""
    out, kills = f"killed{workers}", 0
    moments = random.Random(workers)
    while kills < 10:
        process = start(folder, out, workers)
        if not wait_for_steps(process, folder / out, moments):
            break
        process.kill()
        process.wait()
        kills += 1
    process = start(folder, out, workers)
    assert process.wait(300) == 0
    assert kills > 0
    assert digest(folder / out / "best.safetensors") == digest(undisturbed.best)


def wait_for_steps(process: subprocess.Popen[bytes], run: Path, moments: random.Random) -> bool:
    """Wait until the run has gone on, and a little longer; whether it still runs."""
    log = run / "log.jsonl"
    before, deadline = (log.stat().st_mtime_ns if log.exists() else 0), time.monotonic() + 300
    while not log.exists() or log.stat().st_mtime_ns == before:
        if process.poll() is not None or time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    time.sleep(moments.uniform(0, 0.5))
    return process.poll() is None
