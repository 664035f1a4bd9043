# SPDX-License-Identifier: Apache-2.0
"""The processes of a run, each with its own device and its own share of every batch.

Gradients are summed once per step, after the whole backward pass and in few large messages, and not by
DistributedDataParallel. All ranks agree first whether memory sufficed everywhere: the hooks of that class exchange
gradients inside the backward pass, where a rank that ran out of memory leaves the others waiting for ever. It counts
neither objects over ranks nor accumulated parts, either. What is lost is the overlap of messages with the backward
pass; what that costs has not been measured on GPUs.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..devices import find_device
from ..errors import RTDetrError, UsageError

__all__ = ["World"]

T = TypeVar("T")

BACKENDS = {"cpu": "cpu:gloo", "cuda": "cpu:gloo,cuda:nccl"}
"""By the device of a rank. Numbers on the CPU go through gloo, which does not wait for the GPU."""

BUCKET = 25 * 2**20
"""Bytes of a message: large enough for the full speed of the wire, small beside the gradients."""

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class World:
    """One process among those of a run. A run of one process needs no ``torch.distributed``.

    Every method but :meth:`start` is collective: all ranks call it, in the same order.

    Args:
        rank: of this process, 0..size-1.
        size: processes of the run, R.
        device: where this one computes.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @classmethod
    @contextmanager
    def start(
        cls,
        device: str | int | torch.device = "auto",
        *,
        timeout: timedelta = timedelta(minutes=30),
    ) -> Iterator[World]:
        """The world that torchrun, or :func:`~rtdetr.training.launch.launch`, describes by environment variables.

        Args:
            device: of this rank. Among several ranks a kind, "auto", "cpu" or "cuda": each takes the GPU of its
                LOCAL_RANK.
            timeout: how long a rank waits for the others, an evaluation on rank 0 included.

        Raises:
            UsageError: variables are missing or no numbers, or ``device`` names one GPU for all ranks.
            RTDetrError: there is no such device, or the processes do not find each other in ``timeout``.
        """
        rank, size, local = _read_environment(os.environ)
        world = cls(rank, size, _device_of(device, local, size))
        if world.device.type == "cuda":
            torch.cuda.set_device(world.device)
        if size == 1:
            yield world
            return
        world._join(timeout)
        try:
            yield world
        except BaseException:
            # With NCCL an orderly end waits for ranks that may be no more; that of the process does not.
            if world.device.type == "cpu":
                dist.destroy_process_group()
            raise
        dist.destroy_process_group()

    @property
    def is_main(self) -> bool:
        """Whether this rank writes files and speaks to the user."""
        return self.rank == 0

    def exchange(self, numbers: Tensor) -> Tensor:
        """[R, n]: the numbers [n] of every rank, of any dtype but bool, on the CPU or this rank's device."""
        if self.size == 1:
            return numbers[None]
        # A sum: torch gathers into a list with a copy for each rank, and into one tensor by names that changed.
        rows = numbers.new_zeros(self.size, *numbers.shape)
        rows[self.rank] = numbers
        with _explained():
            dist.all_reduce(rows)
        return rows

    def any(self, flag: bool) -> bool:
        """Whether ``flag`` is true on any rank."""
        return bool(self.exchange(torch.tensor([int(flag)])).any())

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by their sum over all ranks, bitwise the same on each."""
        if self.size == 1:
            return
        for bucket in _buckets(tensors):
            flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
            with _explained():
                dist.all_reduce(flat)
            _unpack(flat, bucket)

    def broadcast_(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by those of rank 0."""
        if self.size == 1:
            return
        for bucket in _buckets(tensors):
            flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
            with _explained():
                dist.broadcast(flat, 0)
            _unpack(flat, bucket)

    def broadcast(self, value: T) -> T:
        """The value of rank 0, which can be pickled."""
        if self.size == 1:
            return value
        values = [value]
        with _explained():
            dist.broadcast_object_list(values, 0, device=torch.device("cpu"))
        return values[0]

    def gather(self, value: T) -> list[T]:
        """On rank 0 the values of all ranks, in their order, which can be pickled; elsewhere an empty list."""
        if self.size == 1:
            return [value]
        values: list[T] = [value] * self.size if self.is_main else []
        with _explained():
            dist.gather_object(value, values or None)
        return values

    def barrier(self) -> None:
        """Wait until all ranks are here."""
        self.any(False)

    @torch.no_grad()
    def synchronize(self, model: nn.Module) -> None:
        """Give every rank the parameters and buffers of rank 0, and make sure that it has them, bit by bit.

        Raises:
            RTDetrError: models differ in names, shapes or dtypes, or in any bit afterwards.
        """
        if self.size == 1:
            return
        tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        form = [(name, tuple(t.shape), str(t.dtype)) for name, t in tensors.items()]
        self._check_same(zlib.crc32(repr(form).encode()), "names, shapes or dtypes of the model")
        self.broadcast_(list(tensors.values()))
        self._check_same(_checksum(tensors.values()), "weights of the model")

    def _check_same(self, number: int, what: str) -> None:
        numbers = self.exchange(torch.tensor([number])).flatten().tolist()
        others = [rank for rank, other in enumerate(numbers) if other != numbers[0]]
        if others:
            ranks = ", ".join(map(str, others))
            raise RTDetrError(f"{what}: those of ranks {ranks} are not those of rank 0")

    def _join(self, timeout: timedelta) -> None:
        try:
            dist.init_process_group(BACKENDS[self.device.type], timeout=timeout)
            for device in {torch.device("cpu"), self.device}:  # connects, which else waits for use
                self.exchange(torch.tensor([self.rank], device=device))
        except (RuntimeError, ValueError, OSError, RTDetrError) as error:
            if dist.is_initialized() and self.device.type == "cpu":
                dist.destroy_process_group()
            place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
            raise RTDetrError(
                f"rank {self.rank} did not find the {self.size} processes of this run at {place}: {error}"
            ) from error


def _read_environment(environment: Mapping[str, str]) -> tuple[int, int, int]:
    """Rank, size and rank on this machine."""
    if "RANK" not in environment and "WORLD_SIZE" not in environment:
        return 0, 1, 0
    missing = [name for name in VARIABLES if name not in environment]
    if missing:
        raise UsageError(
            f"{', '.join(missing)}: expected beside RANK or WORLD_SIZE in the environment, as torchrun sets them, got "
            "nothing"
        )
    numbers = []
    for name in VARIABLES[:3]:
        if not environment[name].isdecimal():
            raise UsageError(
                f"{name}: expected a number in the environment, got {environment[name]!r}"
            )
        numbers.append(int(environment[name]))
    rank, size, local = numbers
    if not rank < size:
        raise UsageError(
            f"RANK: expected less than WORLD_SIZE={size} in the environment, got {rank}"
        )
    return rank, size, local


def _device_of(device: str | int | torch.device, local: int, size: int) -> torch.device:
    kind = find_device(device)
    if kind.index is not None and size > 1:
        raise UsageError(
            f'device: expected "auto", "cuda" or "cpu" for {size} processes, each of which takes the GPU of its '
            f"LOCAL_RANK, got {device!r}"
        )
    if kind.type not in BACKENDS and size > 1:
        raise UsageError(f"device: expected CUDA GPUs or the CPU for {size} processes, got {kind}")
    is_open = kind.type == "cuda" and kind.index is None
    return find_device(f"cuda:{local}") if is_open else kind


@contextmanager
def _explained() -> Iterator[None]:
    """A message that does not arrive means that its sender is gone, which has the error that counts."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise RTDetrError(
            f"another process of this run has ended, or does not answer: {error}"
        ) from error


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Tensors of one dtype and device, in order, of at most :data:`BUCKET` bytes together or one alone."""
    kinds: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for tensor in tensors:
        kinds.setdefault((tensor.dtype, tensor.device), []).append(tensor)
    for kind in kinds.values():
        bucket: list[Tensor] = []
        for tensor in kind:
            if bucket and sum(t.nbytes for t in bucket) + tensor.nbytes > BUCKET:
                yield bucket
                bucket = []
            bucket.append(tensor)
        yield bucket


def _unpack(flat: Tensor, bucket: list[Tensor]) -> None:
    pieces = torch.split(flat, [tensor.numel() for tensor in bucket])
    views = [piece.view_as(tensor) for piece, tensor in zip(pieces, bucket, strict=True)]
    torch._foreach_copy_(bucket, views)


def _checksum(tensors: Iterable[Tensor]) -> int:
    total = 0
    for tensor in tensors:
        octets = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        total = zlib.crc32(octets.numpy().tobytes(), total)
    return total
