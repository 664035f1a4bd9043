# SPDX-License-Identifier: Apache-2.0
"""Who takes part: our backends and every other implementation, as contenders of one table.

Each contender turns a workload into a function of (value, locations, weights). What its callers would
have at hand (shape tensors, start indices) is made there, outside the timing, on torch's default
device. A contender that computes in float32 only is given float32, and the casts from and to 16-bit
storage are timed: its users pay them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from importlib import metadata
from itertools import accumulate

import torch
from torch import Tensor
from torch.nn import functional

import rtdetr_ops
from rtdetr_ops.ms_deform_attn.op import BACKENDS
from rtdetr_ops.testing.workloads import Workload

__all__ = [
    "CONTENDERS",
    "OURS",
    "PEERS",
    "Contender",
    "Kernel",
    "bind_ours",
    "bind_ours_fused",
    "ours_name",
]

Kernel = Callable[..., Tensor]
"""(value [B, S, M, D], locations, weights) -> [B, Q, M*D], or the fused entry's
(value, reference, offsets, logits) -> [B, Q, M*D]."""


@dataclass(frozen=True)
class Contender:
    """One implementation.

    Args:
        name: as reports print it.
        bind: makes the kernel for a workload; heavy imports happen here.
        distribution: the installed package it comes from, None when it is this repository's.
        classic: whether it takes locations [B, Q, M, L, P, 2], hence one count for all levels.
        modes: sampling modes it has.
        mixed: whether it takes 16-bit values beside float32 locations as they are.
        devices: device types it runs on, None for any.
        missing: why it cannot run here at all, None when it can.
        bind_fused: makes its kernel for the fused entry, None when it has none.
    """

    name: str
    bind: Callable[[Workload], Kernel]
    distribution: str | None = None
    classic: bool = False
    modes: tuple[str, ...] = ("bilinear",)
    mixed: bool = False
    devices: tuple[str, ...] | None = None
    missing: str | None = None
    bind_fused: Callable[[Workload], Kernel] | None = None

    def version(self) -> str | None:
        """Distribution and version, or None when it is not installed."""
        return "this repository" if self.distribution is None else _installed(self.distribution)

    def runs_on(self, device: str) -> bool:
        """Whether it is made for tensors of this device type."""
        return self.devices is None or device in self.devices

    def why_not(self, workload: Workload, device: str = "cpu") -> str | None:
        """One sentence saying why it cannot run ``workload`` on ``device``, or None when it can."""
        if self.missing is not None:
            return self.missing
        if self.version() is None:
            return "not installed"
        if self.devices is not None and not self.runs_on(device):
            return f"runs on {' or '.join(self.devices)} tensors only"
        if workload.mode not in self.modes:
            return f"has no {workload.mode} mode"
        if self.classic and workload.is_ragged:
            return "takes the same number of points on every level only"
        return None


@cache
def _installed(distribution: str) -> str | None:
    """Its name and version; looking takes long, and nothing is installed meanwhile."""
    installed = metadata.packages_distributions().values()
    if not any(distribution in names for names in installed):
        return None
    return f"{distribution} {metadata.version(distribution)}"


def ours_name(backend: str) -> str:
    """How reports call one of our backends."""
    return f"rtdetr_ops {backend}"


def bind_ours(backend: str, workload: Workload) -> Kernel:
    """One of our backends."""
    return partial(_call_ours, backend, workload)


def bind_ours_fused(backend: str, workload: Workload) -> Kernel:
    """The fused entry of one of our backends."""
    return partial(_call_ours_fused, backend, workload)


def _call_ours(
    backend: str, workload: Workload, value: Tensor, locations: Tensor, weights: Tensor
) -> Tensor:
    return rtdetr_ops.ms_deform_attn(
        value,
        workload.levels,
        locations,
        weights,
        points=workload.points,
        mode=workload.mode,
        backend=backend,
    )


def _call_ours_fused(
    backend: str,
    workload: Workload,
    value: Tensor,
    reference: Tensor,
    offsets: Tensor,
    logits: Tensor,
) -> Tensor:
    return rtdetr_ops.ms_deform_attn_fused(
        value,
        workload.levels,
        reference,
        offsets,
        logits,
        points=workload.points,
        mode=workload.mode,
        backend=backend,
    )


def _bind_grid_sample(workload: Workload) -> Kernel:
    """The form that detectors fall back to: one ``grid_sample`` per level, then a weighted sum."""
    sizes = [height * width for height, width in workload.levels]

    def kernel(value: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
        batch, _, heads, channels = value.shape
        maps = value.permute(0, 2, 3, 1).flatten(0, 1).split(sizes, -1)  # L of [B*M, D, H*W]
        grids = (2 * locations - 1).transpose(1, 2).flatten(0, 1)  # [B*M, Q, T, 2]
        sampled = [
            functional.grid_sample(level.unflatten(-1, size), grid, align_corners=False)
            for level, size, grid in zip(
                maps, workload.levels, grids.split(workload.points, 2), strict=True
            )
        ]  # L of [B*M, D, Q, P_l]
        weighted = torch.cat(sampled, -1) * weights.transpose(1, 2).flatten(0, 1)[:, None]
        out = weighted.sum(-1)  # [B*M, D, Q]
        return out.view(batch, heads * channels, -1).transpose(1, 2).contiguous()

    return kernel


def _bind_transformers(workload: Workload) -> Kernel:
    from transformers.models.deformable_detr.modeling_deformable_detr import (
        MultiScaleDeformableAttention,
    )

    module = MultiScaleDeformableAttention()
    shapes, starts = _classic_shapes(workload)
    sizes = list(workload.levels)
    return lambda value, locations, weights: module(
        value, shapes, sizes, starts, locations, weights, 64
    )


def _bind_transformers_ragged(workload: Workload) -> Kernel:
    from transformers.models.rt_detr_v2.modeling_rt_detr_v2 import (
        multi_scale_deformable_attention_v2,
    )

    sizes, points = list(workload.levels), list(workload.points)
    method = {"bilinear": "default", "discrete": "discrete"}[workload.mode]
    return lambda value, locations, weights: multi_scale_deformable_attention_v2(
        value, sizes, locations, weights, points, method
    )


def _bind_torch_ms_deform_attn(workload: Workload) -> Kernel:
    from torch_ms_deform_attn import ms_deform_attn

    shapes, starts = _classic_shapes(workload)
    return lambda value, locations, weights: ms_deform_attn(
        value, shapes, starts, locations, weights
    )


def _bind_msda_triton(workload: Workload) -> Kernel:
    # The public function turns every error of the kernels into a silent run of grid_sample.
    from msda_triton.frontend import triton_multiscale_deformable_attention

    shapes, _ = _classic_shapes(workload)
    return lambda value, locations, weights: triton_multiscale_deformable_attention(
        value, shapes, locations, weights, "zeros", False
    ).flatten(2)


def _classic_shapes(workload: Workload) -> tuple[Tensor, Tensor]:
    """The pyramid as int64 tensors: sizes [L, 2] and the first pixel of each level [L]."""
    sizes = [height * width for height, width in workload.levels]
    return torch.tensor(workload.levels), torch.tensor([0, *accumulate(sizes)][:-1])


OURS = tuple(
    Contender(
        ours_name(backend.name),
        partial(bind_ours, backend.name),
        modes=("bilinear", "discrete"),
        mixed=True,
        devices=backend.support.devices,
        missing=backend.support.missing,
        bind_fused=partial(bind_ours_fused, backend.name),
    )
    for backend in BACKENDS
    if backend.name != "reference"  # the others are checked against it
)

PEERS = (
    Contender("grid_sample", _bind_grid_sample, "torch"),
    Contender("transformers deformable_detr", _bind_transformers, "transformers", classic=True),
    Contender(
        "transformers rt_detr_v2",
        _bind_transformers_ragged,
        "transformers",
        modes=("bilinear", "discrete"),
    ),
    Contender(
        "torch-ms-deform-attn",
        _bind_torch_ms_deform_attn,
        "torch-ms-deform-attn",
        classic=True,
    ),
    Contender("msda-triton", _bind_msda_triton, "msda-triton", classic=True, devices=("cuda",)),
)

CONTENDERS = (*OURS, *PEERS)
