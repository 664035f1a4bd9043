# SPDX-License-Identifier: Apache-2.0
"""Two processes with gloo: one result, one decision, one end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from rank_cases import (
    CASES,
    Outcome,
    be_asked_to_stop,
    be_interrupted,
    count_signals,
    fail_on_last_rank,
    give_every_rank_a_model,
    learn,
    learn_all,
    never_fit,
    talk,
)
from torch import Tensor

from rtdetr.data import shard_batches
from rtdetr.errors import DataError, MissingExtraError, RTDetrError, UsageError
from rtdetr.training.distributed import World
from rtdetr.training.interruption import InterruptedRunError
from rtdetr.training.launch import find_devices, launch

TWO = [torch.device("cpu")] * 2
VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@pytest.fixture(autouse=True, scope="module")
def no_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@contextmanager
def hang_fails() -> Iterator[None]:
    def fail(*_: object) -> None:
        raise TimeoutError("two processes hang")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(240)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(autouse=True)
def hangs_fail() -> Iterator[None]:
    with hang_fails():
        yield


@pytest.fixture(scope="module")
def learned() -> dict[str, tuple[Outcome, bool]]:
    with hang_fails():
        return launch(TWO, learn_all)


def assert_close(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    """To 1e-12 of the largest number of each tensor."""
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        scale = float(value.double().abs().max())
        torch.testing.assert_close(
            ours[name],
            value,
            rtol=0,
            atol=1e-12 * max(scale, 1e-3),
            msg=lambda text, n=name: f"{n}: {text}",
        )


@pytest.mark.parametrize("name", ["frozen", "synced", "accumulated", "many", "empty rank", "empty"])
def test_two_processes_learn_what_one_learns_from_the_joint_batch(
    name: str, learned: dict[str, tuple[Outcome, bool]]
) -> None:
    """Denoising included, whose noise belongs to the image, and the statistics of trained normalization."""
    two, is_same = learned[name]
    whole = CASES[name]._replace(part=4)
    one = learn(World(), whole)
    assert is_same
    assert_close(two.start, one.start)
    assert_close(two.gradients, one.gradients)
    assert_close(two.state, one.state)
    for ours, theirs in zip(two.results, one.results, strict=True):
        assert not ours.skipped
        assert ours.losses == pytest.approx(theirs.losses, rel=1e-12, abs=1e-15)
        assert ours.gradient_norm == pytest.approx(theirs.gradient_norm, rel=1e-12)


def test_every_parameter_gets_a_gradient_beside_an_empty_rank(
    learned: dict[str, tuple[Outcome, bool]],
) -> None:
    for name in ("empty rank", "empty"):
        outcome, _ = learned[name]
        assert outcome.gradients.keys() == learned["synced"][0].gradients.keys()
        assert all(gradient.isfinite().all() for gradient in outcome.gradients.values())


def test_a_step_that_is_not_finite_on_one_rank_changes_nothing_on_any(
    learned: dict[str, tuple[Outcome, bool]],
) -> None:
    outcome, is_same = learned["nan"]
    assert outcome.results[0].skipped
    assert is_same
    assert all(torch.equal(value, outcome.start[name]) for name, value in outcome.state.items())


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_out_of_memory_on_one_rank_halves_the_parts_of_all(
    where: str, learned: dict[str, tuple[Outcome, bool]]
) -> None:
    """Amid the messages of synchronized normalization; the step is as if it had begun so."""
    outcome, is_same = learned[f"out of memory {where}"]
    expected, _ = learned["halved"]
    assert is_same
    assert outcome.results[0].part == 1
    assert outcome.results == expected.results
    for name, value in expected.state.items():
        assert torch.equal(outcome.state[name], value), name


def test_an_image_that_does_not_fit_on_one_rank_ends_all() -> None:
    with pytest.raises(RTDetrError, match=r"out of memory with one image of 96x64 .*imgsz"):
        launch(TWO, never_fit)


@pytest.fixture(scope="module")
def said() -> dict[str, object]:
    with hang_fails():
        return launch(TWO, talk)


@pytest.mark.parametrize(
    ("way", "expected"),
    [
        ("sum", [[3.0, 3.0, 3.0], 1, [[2.0, 2.0], [2.0, 2.0]]]),
        ("large", {3.0}),
        ("any", (True, False)),
        ("exchange", [[0, 5], [1, 5]]),
        ("broadcast", ["from 0", "from 0"]),
        ("gather", [{"rank": 0}, {"rank": 1}]),
        ("main", [True, False]),
    ],
)
def test_ranks_talk(way: str, expected: object, said: dict[str, object]) -> None:
    assert said[way] == expected


def test_two_processes_evaluate_every_image_once(said: dict[str, object]) -> None:
    shards = said["shards"]
    assert isinstance(shards, dict)
    for images, ranks in shards.items():
        assert sorted(i for rank in ranks for batch in rank for i in batch) == list(range(images))


@pytest.mark.parametrize("images", [0, 1, 2, 7, 8, 33])
@pytest.mark.parametrize(("batch", "ranks"), [(1, 1), (1, 3), (4, 2), (16, 8)])
def test_shards_have_every_image_once(images: int, batch: int, ranks: int) -> None:
    shards = [shard_batches(images, batch, rank, ranks) for rank in range(ranks)]
    assert sorted(i for shard in shards for b in shard for i in b) == list(range(images))
    assert all(0 < len(b) <= batch for shard in shards for b in shard)


def test_one_process_needs_no_others() -> None:
    world = World()
    tensor = torch.ones(3)
    world.sum_([tensor])
    world.broadcast_([tensor])
    world.barrier()
    assert tensor.tolist() == [1.0, 1.0, 1.0]
    assert (world.any(True), world.any(False)) == (True, False)
    assert world.exchange(tensor).tolist() == [[1.0, 1.0, 1.0]]
    assert (world.gather(3), world.broadcast("x"), world.is_main) == ([3], "x", True)
    assert not torch.distributed.is_initialized()


def test_every_rank_starts_from_the_weights_of_rank_0() -> None:
    assert launch(TWO, give_every_rank_a_model, 5) == [True, True]


def test_models_of_different_shapes_do_not_start() -> None:
    with pytest.raises(RTDetrError, match=r"shapes .* of the model: those of ranks 1 are not"):
        launch(TWO, give_every_rank_a_model, 6)


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ("data", DataError, "^cat.jpg: cannot be read$"),
        pytest.param("deaf", DataError, "^cat.jpg: cannot be read$", marks=pytest.mark.slow),
        ("extra", MissingExtraError, "^Training needs the package scipy"),
        ("value", RTDetrError, "^rank 1 failed with ValueError: it is broken$"),
        ("killed", RTDetrError, "^rank 1 was ended by signal SIGKILL.*memory"),
        ("left", RTDetrError, "^rank 1 was ended with exit code 7$"),
    ],
)
def test_a_rank_that_fails_ends_all_with_its_message(
    how: str, error: type[Exception], message: str
) -> None:
    start = time.monotonic()
    with pytest.raises(error, match=message):
        launch(TWO, fail_on_last_rank, how)
    assert time.monotonic() - start < 30


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda s: s.name)
def test_signals_reach_every_rank_once(number: signal.Signals) -> None:
    handler = signal.getsignal(number)
    assert launch(TWO, count_signals, int(number)) == [1, 1]
    assert signal.getsignal(number) is handler


def test_an_interrupted_rank_interrupts_the_run() -> None:
    with pytest.raises(KeyboardInterrupt):
        launch(TWO, be_interrupted)


def test_a_run_of_several_processes_ends_with_the_exit_code_of_its_signal() -> None:
    with pytest.raises(InterruptedRunError, match="stopped") as error:
        launch(TWO, be_asked_to_stop)
    assert error.value.exit_code == 143


def test_what_cannot_be_pickled_is_said() -> None:
    with pytest.raises(UsageError, match=r"devices: what several processes are given .* picklable"):
        launch(TWO, be_interrupted, lambda image: image)


def test_ranks_do_not_outlive_the_process_that_started_them(tmp_path: Path) -> None:
    parent = start_script(
        "from rank_cases import sleep\n"
        "from rtdetr.training.launch import find_devices, launch\n"
        "import sys\n"
        "if __name__ == '__main__':\n"
        "    launch(find_devices('cpu,cpu'), sleep, sys.argv[1])\n",
        tmp_path,
    )
    files = [tmp_path / "0", tmp_path / "1"]
    wait_for(lambda: all(file.exists() for file in files))
    parent.kill()
    parent.wait()
    wait_for(lambda: not any(is_running(int(file.read_text())) for file in files))


SCRIPT = """
import sys
from rank_cases import fail_on_last_rank
from rtdetr.training.distributed import World
import torch

with World.start("auto" if sys.argv[1] == "sum" else "cpu") as world:
    if sys.argv[1] == "sum":
        total = torch.tensor([world.rank + 1])
        world.sum_([total])
        print(f"{world.size} ranks, sum {int(total)}\\n", end="", flush=True)
    else:
        fail_on_last_rank(world, "data")
"""


@pytest.mark.parametrize(
    ("word", "code", "text"),
    [("sum", 0, "2 ranks, sum 3"), ("fail", 1, "DataError: cat.jpg: cannot be read")],
)
def test_torchrun_starts_the_same_world(word: str, code: int, text: str, tmp_path: Path) -> None:
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    script = start_script(SCRIPT, tmp_path, *torchrun, word=word)
    output, _ = script.communicate()
    assert script.returncode == code, output
    assert output.count(text) == (2 if word == "sum" else 1), output


def start_script(
    code: str, folder: Path, *options: str, word: str | None = None
) -> subprocess.Popen[str]:
    path = folder / "script.py"
    path.write_text(code)
    here = Path(__file__).parent
    places = [str(here), str(here.parent), str(here.parents[2]), os.environ.get("PYTHONPATH", "")]
    return subprocess.Popen(
        [sys.executable, *options, str(path), word or str(folder)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(places), "CUDA_VISIBLE_DEVICES": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for(condition: object) -> None:
    assert callable(condition)
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # One whose parent died and that nobody waited for is left as a zombie in a container without init.
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rsplit(")", 1)[1].split()[0] != "Z"


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"RANK": "0"}, "^WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT: expected"),
        ({"WORLD_SIZE": "2"}, "^RANK, LOCAL_RANK, MASTER_ADDR, MASTER_PORT: expected"),
        (dict.fromkeys(VARIABLES, "two"), "^RANK: expected a number .*'two'"),
        (dict.fromkeys(VARIABLES, "2"), "^RANK: expected less than WORLD_SIZE=2 .* got 2"),
    ],
)
def test_an_environment_that_describes_no_world(
    variables: dict[str, str], message: str, environment: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        environment.setenv(name, value)
    with pytest.raises(UsageError, match=message), World.start("cpu"):
        pass


def test_processes_that_do_not_come_are_an_error(environment: pytest.MonkeyPatch) -> None:
    for name, value in zip(VARIABLES, ("0", "2", "0", "127.0.0.1", "0"), strict=True):
        environment.setenv(name, value)
    message = "rank 0 did not find the 2 processes of this run at 127.0.0.1:0"
    with (
        pytest.raises(RTDetrError, match=message),
        World.start("cpu", timeout=timedelta(seconds=2)),
    ):
        pass
    assert not torch.distributed.is_initialized()


def test_without_variables_there_is_one_process(environment: pytest.MonkeyPatch) -> None:
    with World.start("cpu") as world:
        assert (world.rank, world.size, str(world.device)) == (0, 1, "cpu")
    assert not torch.distributed.is_initialized()


def test_devices_by_name() -> None:
    assert find_devices("cpu") == (torch.device("cpu"),)
    assert find_devices("cpu, cpu") == (torch.device("cpu"),) * 2
    assert find_devices(["cpu", torch.device("cpu")]) == (torch.device("cpu"),) * 2


@pytest.mark.parametrize("devices", ["", [], "cpu,nothing", ",", "cpu,0x"])
def test_devices_that_are_none(devices: str | list[str | int | torch.device]) -> None:
    with pytest.raises(UsageError, match="device"):
        find_devices(devices)


def test_devices_that_do_not_fit_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [str(device) for device in find_devices("0,1")] == ["cuda:0", "cuda:1"]
    for devices in ("0,0", "0,cpu", "cuda,cuda:0"):
        with pytest.raises(UsageError, match=r"devices: expected CUDA GPUs, each once"):
            find_devices(devices)
    with pytest.raises(RTDetrError, match="there are 2 CUDA GPUs"):
        find_devices("0,2")


def test_one_gpu_for_all_ranks_is_refused(
    environment: pytest.MonkeyPatch,
) -> None:
    for name, value in zip(VARIABLES, ("0", "2", "1", "127.0.0.1", "1"), strict=True):
        environment.setenv(name, value)
    environment.setattr(torch.cuda, "is_available", lambda: True)
    environment.setattr(torch.cuda, "device_count", lambda: 2)
    with (
        pytest.raises(UsageError, match=r"device: .* LOCAL_RANK, got 'cuda:0'"),
        World.start("cuda:0"),
    ):
        pass
