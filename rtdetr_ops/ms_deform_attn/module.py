# SPDX-License-Identifier: Apache-2.0
"""The layer around the operator: four linear projections, parameter for parameter those of Deformable DETR."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NoReturn, Protocol

import torch
from torch import Tensor, nn

from ..levels import Levels, as_counts, as_integer, check_level_start_index
from ..tensors import describe
from .checks import check_mode, check_scale
from .op import ms_deform_attn_fused

__all__ = ["MSDeformAttn", "Projections", "attend"]


class Projections(Protocol):
    """What :func:`attend` needs of a module: the projection names that every library of this family shares."""

    @property
    def sampling_offsets(self) -> nn.Module: ...
    @property
    def attention_weights(self) -> nn.Module: ...
    @property
    def value_proj(self) -> nn.Module: ...
    @property
    def output_proj(self) -> nn.Module: ...


def attend(
    layer: Projections,
    query: Tensor,  # [B, Q, C]
    reference: Tensor,  # [1|B, 1|Q, 1|L, 2|4]
    features: Tensor,  # [B, S, C]
    levels: Levels,  # L pairs (H, W)
    padding_mask: Tensor | None,  # [1|B, 1|S] or [S], True = padded
    *,
    heads: int,
    points: int | Sequence[int],
    mode: str = "bilinear",
    offset_scale: float = 0.5,
    project: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None,
) -> Tensor:  # [B, Q, C]
    """Project, attend, project. The mask zeroes the projected value, so a padded pixel loses the bias too.

    ``project`` computes offsets and logits from the query; None takes the two projections of ``layer``.
    """
    keep = None if padding_mask is None else ~padding_mask.bool()
    if keep is not None and (keep.dim() == 1 or keep.shape[1] == 1):
        # The originals mask by ``masked_fill``, which broadcasts.
        keep = keep.expand(features.shape[:2])
    offsets, logits = _project(layer, query) if project is None else project(query)
    attended = ms_deform_attn_fused(
        _split_heads(layer.value_proj(features), heads),  # [B, S, M, D]
        levels,
        reference,
        _split_heads(offsets, heads, 2),  # [B, Q, M, T, 2]
        _split_heads(logits, heads),  # [B, Q, M, T]
        points=points,
        mode=mode,
        offset_scale=offset_scale,
        value_mask=keep,
    )
    output: Tensor = layer.output_proj(attended)
    return output


def _split_heads(
    x: Tensor,  # [B, N, M*X]
    heads: int,
    *last: int,
) -> Tensor:  # [B, N, M, X], or with ``last`` = 2 [B, N, M, X/2, 2]
    """Not ``unflatten``: torch's TorchScript exporter takes the shape of what that returns for a constant."""
    return x.reshape(*x.shape[:-1], heads, x.shape[-1] // (heads * math.prod(last)), *last)


def _project(layer: Projections, query: Tensor) -> tuple[Tensor, Tensor]:
    return layer.sampling_offsets(query), layer.attention_weights(query)


class MSDeformAttn(nn.Module):
    """Multi-scale deformable attention layer, a drop-in for Deformable DETR's ``MSDeformAttn``.

    Constructor order, parameter names and shapes, state dict and initialization are those of Deformable DETR, so its
    checkpoints load and one seed gives the same weights. Beyond it: one point count per level, discrete sampling, no
    constraint on the batch size; ``im2col_step`` is there for code that sets it, and is not read.

    Args:
        d_model: C, channels of the query, of the features and of the result; a multiple of ``n_heads``.
        n_levels: L, levels of the feature pyramid.
        n_heads: M, attention heads.
        n_points: sampling points of a head on each level: an int, or one count per level.
        mode: ``"bilinear"``, or RT-DETRv2's ``"discrete"``. Discrete sampling has no gradient to the locations, so the
            parameters of ``sampling_offsets`` are frozen (``requires_grad=False``), as RT-DETRv2 does.
        offset_scale: factor of the box size for 4-d reference points.

    Raises:
        TypeError: a number is not an integer.
        ValueError: ``d_model`` is not a multiple of ``n_heads``, a count is out of range, or ``mode`` is unknown.

    Source: Deformable DETR (Zhu et al., 2021), sec. 4.1 and app. A.3; RT-DETRv2 (Lv et al., 2024), sec. 3.
    """

    im2col_step: int = 64

    def __init__(
        self,
        d_model: int = 256,
        n_levels: int = 4,
        n_heads: int = 8,
        n_points: int | Sequence[int] = 4,
        *,
        mode: str = "bilinear",
        offset_scale: float = 0.5,
    ) -> None:
        super().__init__()
        d_model = _positive("d_model", d_model)
        n_levels = _positive("n_levels", n_levels)
        n_heads = _positive("n_heads", n_heads)
        counts = _point_counts(n_points, n_levels)
        if d_model % n_heads:
            raise ValueError(f"d_model: expected a multiple of n_heads={n_heads}, got {d_model}")
        check_mode(mode)
        check_scale(offset_scale)
        self.d_model = d_model
        self.n_levels = n_levels
        self.n_heads = n_heads
        shared = as_integer(n_points)
        self.n_points = list(counts) if shared is None else shared
        self.mode = mode
        self.offset_scale = offset_scale
        self.sampling_offsets = nn.Linear(d_model, n_heads * sum(counts) * 2)
        self.attention_weights = nn.Linear(d_model, n_heads * sum(counts))
        self.value_proj = nn.Linear(d_model, d_model)
        self.output_proj = nn.Linear(d_model, d_model)
        self.reset_parameters()
        self.sampling_offsets.requires_grad_(mode != "discrete")

    def reset_parameters(self) -> None:
        """Uniform attention over a star of points: head m looks along angle 2*pi*m/M, point p lies p + 1 steps out."""
        angle = torch.arange(self.n_heads, dtype=torch.float32) * (2.0 * math.pi / self.n_heads)
        direction = torch.stack([angle.cos(), angle.sin()], -1)  # [M, 2]
        direction = direction / direction.abs().amax(-1, keepdim=True)
        counts = _point_counts(self.n_points, self.n_levels)
        steps = torch.cat([torch.arange(1.0, count + 1) for count in counts])  # [T]
        with torch.no_grad():
            self.sampling_offsets.bias.copy_((direction[:, None] * steps[:, None]).flatten())
        nn.init.zeros_(self.sampling_offsets.weight)
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)
        for projection in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(projection.weight)
            nn.init.zeros_(projection.bias)

    def _reset_parameters(self) -> None:
        """Deformable DETR's name of it, which the transformers of this family call on each of their layers."""
        self.reset_parameters()

    def forward(
        self,
        query: Tensor,
        reference_points: Tensor,
        input_flatten: Tensor,
        input_spatial_shapes: Levels,
        input_level_start_index: Tensor | None = None,
        input_padding_mask: Tensor | None = None,
    ) -> Tensor:
        """Attend from every query to ``n_points`` points per head and level.

        Args:
            query: [B, Q, C].
            reference_points: [B, Q, L, 2 or 4], (x, y) or (cx, cy, w, h) in 0..1 over the image; each of the first
                three axes may be 1 and then serves all.
            input_flatten: [B, S, C], the flattened feature pyramid.
            input_spatial_shapes: L pairs (H, W), or an integer tensor [L, 2].
            input_level_start_index: [L], the first pixel of each level, or None: the shapes imply it. Another one is
                refused where it can be read.
            input_padding_mask: [B or 1, S] bool, True where a pixel is padding.

        Returns:
            [B, Q, C].

        Raises:
            TypeError, ValueError: an argument is malformed; see :func:`rtdetr_ops.ms_deform_attn_fused`.
        """
        self._check_inputs(query, input_flatten, input_padding_mask)
        check_level_start_index(input_spatial_shapes, input_level_start_index)
        return attend(
            self,
            query,
            reference_points,
            input_flatten,
            input_spatial_shapes,
            input_padding_mask,
            heads=self.n_heads,
            points=self.n_points,
            mode=self.mode,
            offset_scale=self.offset_scale,
            project=self.project,
        )

    def project(self, query: Tensor) -> tuple[Tensor, Tensor]:
        """Offsets and attention logits of each query; a subclass may compute them in another way.

        Args:
            query: [B, Q, C].

        Returns:
            [B, Q, M*T*2] and [B, Q, M*T], where T is the number of points of all levels.
        """
        return _project(self, query)

    def _check_inputs(self, query: Tensor, features: Tensor, padding_mask: Tensor | None) -> None:
        mask = {} if padding_mask is None else {"input_padding_mask": padding_mask}
        for name, tensor in {"query": query, "input_flatten": features, **mask}.items():
            if not isinstance(tensor, Tensor):
                raise TypeError(f"{name}: expected a tensor, got {type(tensor).__name__}")
        if query.dim() != 3 or query.shape[2] != self.d_model:
            raise ValueError(
                f"query: expected shape [B, Q, C={self.d_model}], got {list(query.shape)}"
            )
        if features.dim() != 3 or features.shape[::2] != query.shape[::2]:
            expected = f"[B={query.shape[0]}, S, C={self.d_model}]"
            raise ValueError(
                f"input_flatten: expected shape {expected}, got {list(features.shape)}"
            )

    def __prepare_scriptable__(self) -> NoReturn:
        """torch.jit.script asks here first, also for a layer deep in a model."""
        raise TypeError(
            f"{type(self).__name__}: torch.jit.script does not take it; use torch.jit.trace or torch.export.export"
        )

    def extra_repr(self) -> str:
        return (
            f"d_model={self.d_model}, n_levels={self.n_levels}, n_heads={self.n_heads}, "
            f"n_points={self.n_points}, mode={self.mode!r}"
        )


def _positive(name: str, number: int) -> int:
    integer = as_integer(number)
    if integer is None:
        raise TypeError(f"{name}: expected an int, got {describe(number)}")
    if integer < 1:
        raise ValueError(f"{name}: expected an int >= 1, got {integer}")
    return integer


def _point_counts(n_points: int | Sequence[int], n_levels: int) -> tuple[int, ...]:
    counts = as_counts("n_points", n_points, n_levels)
    if sum(counts) < 1:
        raise ValueError(f"n_points: expected counts that are not all 0, got {n_points}")
    return counts
