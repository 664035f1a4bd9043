# SPDX-License-Identifier: Apache-2.0
"""The operator on a GPU: which contenders on which cases, in which order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch
from core.devices import Device, Limits
from core.peers import OURS, PEERS, Contender, Kernel, bind_ours, bind_ours_fused
from core.timed_cases import Case, bind

from gpu.jobs import Plan
from gpu.result_file import Key, Measurement
from gpu.suites import SUITES
from rtdetr_ops.testing.workloads import Offsets, Workload, find_workload

__all__ = ["CLASSIC", "DRY_PLAN", "PLAN", "OperatorJob", "contenders", "jobs", "plan"]

LIMITS = {False: Limits(0.25, 5, 60), True: Limits(0, 2, 2)}
"""By whether it is a dry run."""

CLASSIC = "torch-ms-deform-attn"
"""The contender that carries the CUDA kernels of Deformable DETR."""

BOTH = ("forward", "forward+backward")
BACKWARD = ("backward", "backward, deterministic")
FUSED = ("fused forward", "fused forward+backward")
GRAPHS = ("fused forward, graph", "fused forward+backward, graph")


@dataclass(frozen=True)
class OperatorJob:
    """One contender on one case, bound once, then checked and timed in some suites."""

    case: Case
    contender: Contender
    suites: tuple[str, ...]

    @property
    def keys(self) -> list[Key]:
        """One for each suite."""
        return [Key(suite, self.case.id, self.contender.name) for suite in self.suites]

    def prepare(self, device: Device, limits: Limits) -> Callable[[Key], Measurement]:
        """Bind the contender to the tensors of the case."""
        bound = bind(self.case, self.contender)

        def measure(key: Key) -> Measurement:
            seconds = SUITES[key.suite].run(bound, self.case, device, limits)
            return seconds, {"gather_bytes": self.case.gather_bytes}

        return measure


@dataclass(frozen=True)
class Item:
    """A line of the plan: every contender on these cases.

    Args:
        workload: by name.
        suites: of one entry.
        dtypes: of the storage, one case for each.
        offsets: how the points are spread.
        compiled: whether the contender that ``torch.compile`` makes takes part; it takes long to start.
    """

    workload: str
    suites: tuple[str, ...]
    dtypes: tuple[torch.dtype, ...] = (torch.float32, torch.bfloat16)
    offsets: Offsets = "ring"
    compiled: bool = False

    def cases(self, device: Device) -> Iterator[Case]:
        workload, fused = find_workload(self.workload), SUITES[self.suites[0]].fused
        for dtype in self.dtypes:
            yield Case(workload, dtype, self.offsets, device.type, fused)


PLAN = (
    Item("encoder_800x1333", BOTH + BACKWARD),
    Item("decoder_b1", FUSED + GRAPHS),
    Item("decoder_b1", BOTH + BACKWARD),
    Item("tiny", ("call",), dtypes=(torch.float32,)),
    Item("mask2former_1024", BOTH),
    Item("decoder_b8", BOTH),
    Item("encoder_800x1333", BOTH, offsets="uniform"),
    Item("decoder_b32", BOTH),
    Item("bevformer_temporal", BOTH),
    Item("bevformer_spatial", BOTH),
    Item("encoder_800x1333_b2", BOTH),
    Item("decoder_b1", BOTH, offsets="uniform"),
    Item("encoder_800x1333", FUSED),
    Item("encoder_800x1333", BOTH, compiled=True),
    Item("decoder_b1", BOTH, compiled=True),
)

DRY_PLAN = (
    Item("tiny", BOTH + BACKWARD, dtypes=(torch.float32,)),
    Item("tiny", FUSED + GRAPHS, dtypes=(torch.bfloat16,)),
    Item("tiny", ("call",), dtypes=(torch.float32,)),
    Item("tiny", ("forward",), dtypes=(torch.float32,), offsets="uniform", compiled=True),
)


REFERENCE = Contender(
    "reference",
    partial(bind_ours, "reference"),
    modes=("bilinear", "discrete"),
    mixed=True,
    bind_fused=partial(bind_ours_fused, "reference"),
)


def contenders() -> tuple[Contender, ...]:
    """Ours, the classic operator, the definition, then the other peers."""
    peers = sorted(PEERS, key=lambda contender: contender.name != CLASSIC)
    return (*OURS, *peers[:1], REFERENCE, *peers[1:])


def plan(device: Device, dry_run: bool) -> Plan:
    """Everything that can run on ``device``."""
    candidates = (*contenders(), compiled_reference(device))
    return Plan(
        versions={c.name: c.version() for c in candidates if c.runs_on(device.type)},
        jobs=jobs(device, dry_run),
        limits=LIMITS[dry_run],
        hangs=120,
    )


def jobs(device: Device, dry_run: bool) -> Iterator[OperatorJob]:
    """In order."""
    for item in DRY_PLAN if dry_run else PLAN:
        candidates = (compiled_reference(device),) if item.compiled else contenders()
        for case in item.cases(device):
            for contender in candidates:
                suites = tuple(
                    s for s in item.suites if contender in OURS or not SUITES[s].ours_only
                )
                if suites and contender.why_not(case.workload, device.type) is None:
                    yield OperatorJob(case, contender, suites)


def compiled_reference(device: Device) -> Contender:
    """What torch makes of the definition by itself."""

    def compiled(workload: Workload) -> Kernel:
        return torch.compile(bind_ours("reference", workload), backend=device.compiler)

    return replace(REFERENCE, name="reference, torch.compile", bind=compiled, bind_fused=None)
