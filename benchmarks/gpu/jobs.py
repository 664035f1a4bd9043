# SPDX-License-Identifier: Apache-2.0
"""What a plan is made of: jobs, each of which a process may die in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from core.devices import Device, Limits

from gpu.result_file import Key, Measurement

__all__ = ["Job", "Plan"]


class Job(Protocol):
    """One contender on one case."""

    @property
    def keys(self) -> Sequence[Key]:
        """The entries of a result file that it yields."""

    def prepare(self, device: Device, limits: Limits) -> Callable[[Key], Measurement]:
        """Make what the measurements of all its keys share; then each is checked and timed."""


@dataclass(frozen=True)
class Plan:
    """What is measured, in the order of how much it matters: time may run out.

    Args:
        versions: of those who take part; None where one is not installed.
        jobs: in order.
        limits: of one measurement.
        hangs: seconds after which a job counts as hung, and its process ends.
    """

    versions: dict[str, str | None]
    jobs: Iterable[Job]
    limits: Limits
    hangs: float
