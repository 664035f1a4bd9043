# SPDX-License-Identifier: Apache-2.0
"""One process for each device of this machine, started and ended together."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.context import SpawnProcess
from types import FrameType
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from ..devices import find_device
from ..errors import RTDetrError, UsageError
from .distributed import BACKENDS, World
from .interruption import SIGNALS

__all__ = ["find_devices", "launch"]

T = TypeVar("T")

PATIENCE = 5.0
"""Seconds that other ranks have to end by themselves when one failed, and again when they were asked to."""

HINTS = {
    -9: ": this machine may have run out of memory",
    1: ': what it printed says why; in a script the call belongs under if __name__ == "__main__"',
}
"""By the exit code of a process that ended without a word."""


def find_devices(devices: str | Sequence[str | int | torch.device]) -> tuple[torch.device, ...]:
    """The devices meant by "0,1" or [0, 1]: CUDA GPUs, each once, or "cpu" as often as there are to be processes.

    Raises:
        UsageError: they are none, of several kinds, or one GPU is named twice.
        RTDetrError: this machine does not have one.
    """
    words = devices.split(",") if isinstance(devices, str) else list(devices)
    words = [word.strip() if isinstance(word, str) else word for word in words]
    resolved = tuple(find_device(word) for word in words if word != "")
    kinds = {device.type for device in resolved}
    gpus = [device.index or 0 for device in resolved if device.type != "cpu"]
    is_several = len(resolved) > 1
    if len(kinds) != 1 or (is_several and not kinds <= set(BACKENDS)) or len(set(gpus)) < len(gpus):
        raise UsageError(
            f'devices: expected CUDA GPUs, each once, such as "0,1", or "cpu,cpu", got {devices!r}'
        )
    return resolved


@dataclass(frozen=True)
class _Outcome:
    """How the function ended on a rank."""

    rank: int
    moment: float  # seconds of a clock that all processes share
    value: Any = None
    error: type[BaseException] | None = None
    message: str = ""
    exit_code: int | None = None  # of an error that has one of its own, not that of its class

    @classmethod
    def of_error(cls, rank: int, error: BaseException) -> _Outcome:
        code = vars(error).get("exit_code")
        return cls(rank, time.monotonic(), None, type(error), str(error), code)

    def raise_error(self) -> None:
        """The error of the rank, as far as its class is one of ours."""
        if self.error is None:
            return
        if issubclass(self.error, KeyboardInterrupt):
            raise KeyboardInterrupt
        if issubclass(self.error, RTDetrError):
            # Past the constructors, which ask for more than the message.
            error = self.error.__new__(self.error, self.message)
            if self.exit_code is not None:
                error.exit_code = self.exit_code  # type: ignore[misc] # the class has a default
            raise error
        raise RTDetrError(f"rank {self.rank} failed with {self.error.__name__}: {self.message}")


@dataclass(frozen=True)
class _Rank:
    process: SpawnProcess
    outcomes: connection.Connection


def launch(devices: Sequence[torch.device], function: Callable[..., T], *args: Any) -> T:
    """Call ``function(world, *args)`` in one new process for each device, and return what rank 0 returned.

    SIGINT, SIGTERM and SIGHUP are passed on to all ranks, once for each time that they come. When a rank fails, the
    others are ended within three times :data:`PATIENCE`, at worst by force.

    Args:
        devices: of :func:`find_devices`.
        function: of a module, since it is pickled, like what it is given, and returns on rank 0.
        *args: given to it after the world.

    Raises:
        UsageError: what they are given cannot be pickled.
        RTDetrError: the one that a rank raised first, or with its message where it was another kind of error.
        KeyboardInterrupt: a rank was interrupted.
    """
    store = dist.TCPStore(  # type: ignore[attr-defined]
        "127.0.0.1", 0, is_master=True, wait_for_workers=False
    )
    ranks: list[_Rank] = []
    try:
        with _passing_on_signals(ranks):
            for rank, device in enumerate(devices):
                environment = _environment(rank, len(devices), device, store.port)
                ranks.append(_start(environment, device, function, args))
            outcomes = _wait(ranks)
    finally:
        _end(ranks)
    for outcome in sorted(outcomes, key=lambda outcome: outcome.moment):
        outcome.raise_error()
    result: T = next(outcome.value for outcome in outcomes if outcome.rank == 0)
    return result


def _environment(rank: int, size: int, device: torch.device, port: int) -> dict[str, str]:
    """What torchrun would set; the store lives in this process, as torchrun's does."""
    return {
        "RANK": str(rank),
        "WORLD_SIZE": str(size),
        "LOCAL_RANK": str(device.index or 0),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }


def _start(
    environment: dict[str, str], device: torch.device, function: Callable[..., T], args: Any
) -> _Rank:
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    # Not a daemon, which could have no workers that load data.
    process = context.Process(
        target=_run_rank, args=(environment, device.type, sender, function, args)
    )
    try:
        process.start()
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise UsageError(
            "devices: what several processes are given (transforms, callbacks, images) has to be picklable, as a "
            f"function of a module is and a lambda is not ({error})"
        ) from error
    sender.close()
    return _Rank(process, receiver)


def _run_rank(
    environment: dict[str, str],
    kind: str,
    sender: connection.Connection,
    function: Callable[..., T],
    args: Any,
) -> None:
    if hasattr(os, "setpgrp"):
        os.setpgrp()  # Ctrl-C reaches the parent alone, which passes it on once
    threading.Thread(target=_die_with_parent, daemon=True).start()
    os.environ.update(environment)
    rank, size = int(environment["RANK"]), int(environment["WORLD_SIZE"])
    torch.set_num_threads(max(1, torch.get_num_threads() // size))
    is_told = False
    try:
        with World.start(kind) as world:
            try:
                value = function(world, *args)
            except BaseException as error:
                # Before the world ends, and with it the other ranks.
                _tell(sender, _Outcome.of_error(rank, error))
                is_told = True
                raise
        _tell(sender, _Outcome(rank, time.monotonic(), value if rank == 0 else None))
    except BaseException as error:
        if not is_told:
            _tell(sender, _Outcome.of_error(rank, error))
        if not isinstance(error, RTDetrError | KeyboardInterrupt):
            traceback.print_exc()
        sys.exit(1)


def _tell(sender: connection.Connection, outcome: _Outcome) -> None:
    sender.send_bytes(
        pickle.dumps(outcome)
    )  # not send(), which leaves tensors in memory of the rank


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)


def _wait(ranks: list[_Rank]) -> list[_Outcome]:
    """Until all ranks ended, or some time after the first one that failed."""
    outcomes: list[_Outcome] = []
    running = dict(enumerate(ranks))
    deadline: float | None = None
    while running and (deadline is None or time.monotonic() < deadline):
        sentinels = [rank.process.sentinel for rank in running.values()]
        pipes = [rank.outcomes for rank in running.values()]
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        connection.wait([*sentinels, *pipes], left)
        for number, rank in list(running.items()):
            outcome = _outcome(number, rank)
            if outcome is not None:
                outcomes.append(outcome)
                del running[number]
                if outcome.error is not None and deadline is None:
                    deadline = time.monotonic() + PATIENCE
    return outcomes


def _outcome(number: int, rank: _Rank) -> _Outcome | None:
    """None while the rank runs. A rank that died without a word did so before any that misses it."""
    is_over = (
        rank.process.exitcode is not None
    )  # asked first: what it had to say is in the pipe then
    if rank.outcomes.poll():
        try:
            outcome: _Outcome = pickle.loads(rank.outcomes.recv_bytes())
        except EOFError:
            rank.process.join()
        else:
            return outcome
    elif not is_over:
        return None
    code = rank.process.exitcode
    assert code is not None
    how = f"by signal {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
    hint = HINTS.get(code, "")
    return _Outcome(number, 0.0, None, RTDetrError, f"rank {number} was ended {how}{hint}")


def _end(ranks: list[_Rank]) -> None:
    """Those that still run: a while to end by themselves, then asked to, then by force."""
    for end in (None, SpawnProcess.terminate, SpawnProcess.kill):
        deadline = time.monotonic() + PATIENCE
        for rank in ranks:
            if end is not None and rank.process.is_alive():
                end(rank.process)
        for rank in ranks:
            rank.process.join(max(0.0, deadline - time.monotonic()))
    for rank in ranks:
        rank.outcomes.close()


@contextmanager
def _passing_on_signals(ranks: list[_Rank]) -> Iterator[None]:
    """Outside of the main thread, which alone gets signals, they stay what they are."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def pass_on(number: int, frame: FrameType | None) -> None:
        for rank in ranks:
            if rank.process.is_alive():
                os.kill(rank.process.pid or 0, number)

    before = {number: signal.signal(number, pass_on) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:  # one of C, which Python cannot put back
                signal.signal(number, handler)
