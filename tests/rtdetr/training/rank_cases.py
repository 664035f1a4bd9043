# SPDX-License-Identifier: Apache-2.0
"""What ranks do in tests of several processes; each is called by its name in a new process."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from model_cases import image, tiny_config
from torch import Tensor, nn

from rtdetr.data import Batch, shard_batches
from rtdetr.errors import DataError, MissingExtraError
from rtdetr.model import RTDetrV2ForObjectDetection
from rtdetr.training.distributed import World
from rtdetr.training.ema import MovingAverage
from rtdetr.training.interruption import InterruptedRunError
from rtdetr.training.schedule import Schedule
from rtdetr.training.step import StepResult, TrainingStep


class Case(NamedTuple):
    """Some steps of training on joint batches, of which each rank takes its share in order."""

    counts: tuple[int, ...]  # objects of each image of a joint batch
    part: int  # images of all ranks that are computed at once
    frozen_norms: bool = False
    steps: int = 1
    broken: str = ""  # what goes wrong, on the last rank, in the first step


CASES = {
    "frozen": Case((3, 0, 1, 5), 4, frozen_norms=True),
    "synced": Case((3, 0, 1, 5), 4),
    "accumulated": Case((3, 0, 1, 5), 2, frozen_norms=True),
    "many": Case((3, 130, 1, 5), 4, frozen_norms=True),
    "empty rank": Case((3, 2, 0, 0), 4, steps=2),
    "empty": Case((0, 0, 0, 0), 4),
    "nan": Case((3, 0, 1, 5), 4, broken="nan"),
    "halved": Case((3, 0, 1, 5), 2),
    "out of memory forward": Case((3, 0, 1, 5), 4, broken="forward"),
    "out of memory backward": Case((3, 0, 1, 5), 4, broken="backward"),
}


class Outcome(NamedTuple):
    gradients: dict[str, Tensor]  # of the last step
    state: dict[str, Tensor]
    start: dict[str, Tensor]
    results: list[StepResult]


def learn_all(world: World) -> dict[str, tuple[Outcome, bool]]:
    """Of each case the outcome on this rank, and whether all ranks have the same weights."""
    torch.set_num_threads(1)
    outcomes = {}
    for name, case in CASES.items():
        outcome = learn(world, case)
        weights = torch.cat([value.double().flatten() for value in outcome.state.values()])
        everywhere = world.exchange(weights)
        outcomes[name] = outcome, bool((everywhere == everywhere[0]).all())
    return outcomes


def learn(world: World, case: Case) -> Outcome:
    model = make_model(seed=world.rank, frozen_norms=case.frozen_norms)
    gradients: dict[str, Tensor] = {}
    step = make_step(model, world, case.part // world.size)
    step.optimizer.register_step_pre_hook(lambda *_: gradients.update(gradients_of(model)))
    start = clone_state(model)
    results = []
    for number in range(case.steps):
        batch = share_of(draw_batch(*case.counts, seed=number), world)
        is_broken = number == 0 and world.rank == world.size - 1
        with BREAK[case.broken if is_broken else ""](model, batch):
            results.append(step(batch, number))
    return Outcome(gradients, clone_state(model), start, results)


def make_model(seed: int, frozen_norms: bool) -> RTDetrV2ForObjectDetection:
    torch.manual_seed(seed)
    model = RTDetrV2ForObjectDetection(tiny_config()).double().train()
    for module in model.modules():
        if frozen_norms and isinstance(module, nn.BatchNorm2d):
            module.eval()
    return model


def make_step(model: RTDetrV2ForObjectDetection, world: World, part: int) -> TrainingStep:
    """Without clipping."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    schedule = Schedule(steps=100, warmup=1, cosine=0.0, final=1.0)
    average = MovingAverage(model, decay=0.9, tau=1.0)
    return TrainingStep(model, optimizer, schedule, average, part=part, clip=1e9, world=world)


def draw_batch(*counts: int, seed: int = 0) -> Batch:
    random = torch.Generator().manual_seed(seed)
    labels: list[Any] = []
    for index, count in enumerate(counts):
        boxes = 0.2 + 0.3 * torch.rand(count, 4, generator=random, dtype=torch.float64)
        classes = torch.randint(5, (count,), generator=random)
        noise_seed = torch.tensor([100 * seed + index])
        labels.append({"class_labels": classes, "boxes": boxes, "noise_seed": noise_seed})
    return {
        "pixel_values": image(64, 96, batch=len(counts), seed=seed).double(),
        "labels": labels,
    }


def share_of(batch: Batch, world: World) -> Batch:
    size = len(batch["labels"]) // world.size
    own = slice(world.rank * size, (world.rank + 1) * size)
    return {"pixel_values": batch["pixel_values"][own], "labels": batch["labels"][own]}


def clone_state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def gradients_of(model: nn.Module) -> dict[str, Tensor]:
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@contextmanager
def nothing(model: RTDetrV2ForObjectDetection, batch: Batch) -> Iterator[None]:
    yield


@contextmanager
def nan(model: RTDetrV2ForObjectDetection, batch: Batch) -> Iterator[None]:
    batch["pixel_values"].fill_(torch.nan)
    yield


@contextmanager
def out_of_memory_forward(model: RTDetrV2ForObjectDetection, batch: Batch) -> Iterator[None]:
    """In the middle of the network, once."""
    module = model.model.encoder

    def fail(*_: object) -> None:
        handle.remove()
        raise torch.OutOfMemoryError("CUDA out of memory.")

    handle = module.register_forward_pre_hook(fail)
    yield


@contextmanager
def out_of_memory_backward(model: RTDetrV2ForObjectDetection, batch: Batch) -> Iterator[None]:
    """Where the gradient reaches the last stage of the backbone, once."""
    weight = next(
        p for n, p in model.model.backbone.named_parameters() if "stages.3" in n and p.dim() == 4
    )

    def fail(grad: Tensor) -> None:
        handle.remove()
        raise torch.OutOfMemoryError("CUDA out of memory.")

    handle = weight.register_hook(fail)
    yield


BREAK: dict[str, Callable[[RTDetrV2ForObjectDetection, Batch], Any]] = {
    "": nothing,
    "nan": nan,
    "forward": out_of_memory_forward,
    "backward": out_of_memory_backward,
}


def never_fit(world: World) -> None:
    model = make_model(0, frozen_norms=False)
    step = make_step(model, world, 1)
    if world.rank == 1:
        model.model.encoder.register_forward_pre_hook(run_out_of_memory)
    step(share_of(draw_batch(1, 1), world), 0)


def run_out_of_memory(*_: object) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory.")


def fail_on_last_rank(world: World, how: str) -> None:
    """While the others wait for it, or are busy and deaf."""
    if world.rank == world.size - 1:
        FAILURES[how]()
    if how == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(600)
    world.barrier()


def raise_data_error() -> None:
    raise DataError("cat.jpg: cannot be read")


def raise_missing_extra() -> None:
    raise MissingExtraError("Training", "scipy", '"rtdetr-ops[train]"')


def raise_value_error() -> None:
    raise ValueError("it is broken")


def be_killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def leave() -> None:
    os._exit(7)


FAILURES = {
    "data": raise_data_error,
    "deaf": raise_data_error,
    "extra": raise_missing_extra,
    "value": raise_value_error,
    "killed": be_killed,
    "left": leave,
}


def talk(world: World) -> dict[str, Any]:
    """What each way to talk gives on rank 0, or on all ranks where they are to agree."""
    tensors = [torch.full((3,), world.rank + 1.0), torch.tensor(world.rank), torch.ones(2, 2)]
    world.sum_(tensors)
    large = [torch.full((2**22,), 1.0 + world.rank) for _ in range(3)]  # 16 MiB each
    world.sum_(large)
    return {
        "sum": [tensor.tolist() for tensor in tensors],
        "large": {float(value) for tensor in large for value in tensor.unique()},
        "any": (world.any(world.rank == 1), world.any(False)),
        "exchange": world.exchange(torch.tensor([world.rank, 5])).tolist(),
        "broadcast": world.gather(world.broadcast(f"from {world.rank}")),
        "gather": world.gather({"rank": world.rank}),
        "main": world.gather(world.is_main),
        "shards": {
            images: world.gather(shard_batches(images, 2, world.rank, world.size))
            for images in (1, 3, 5, 8)
        },
    }


def give_every_rank_a_model(world: World, classes: int) -> list[bool]:
    """Drawn anew on each rank, with another number of classes on the last."""
    torch.manual_seed(world.rank)
    labels = classes if world.rank == world.size - 1 else 5
    model = RTDetrV2ForObjectDetection(tiny_config(num_labels=labels))
    world.synchronize(model)
    weights = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    return [torch.equal(row, weights) for row in world.exchange(weights)]


def count_signals(world: World, number: int) -> list[int]:
    """Rank 0 sends one to the process that started the ranks."""
    signals: list[int] = []
    signal.signal(number, lambda *_: signals.append(number))
    world.barrier()
    if world.is_main:
        os.kill(os.getppid(), number)
    deadline = time.monotonic() + 20
    while not signals and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    return world.gather(len(signals))


def be_asked_to_stop(world: World) -> None:
    raise InterruptedRunError("stopped", signal.SIGTERM)


def be_interrupted(world: World) -> None:
    if world.is_main:
        raise KeyboardInterrupt
    world.barrier()


def sleep(world: World, folder: str) -> None:
    file = Path(folder) / str(world.rank)
    file.with_suffix(".tmp").write_text(str(os.getpid()))
    file.with_suffix(".tmp").rename(file)
    time.sleep(600)
