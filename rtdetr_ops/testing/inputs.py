# SPDX-License-Identifier: Apache-2.0
"""Seeded calls of both entries, small and awkward, for the shared tester.

A :class:`Case` describes a call in a line; :func:`make_call` draws its tensors. About a third of the sampled
coordinates lie outside the level. None lies on a line where the sampled pixels change (calls that must are made by
hand): two correct roundings of such a point may differ in pixels and gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..ms_deform_attn import ms_deform_attn, ms_deform_attn_fused
from ..ms_deform_attn.reference import locations_from_offsets
from .workloads import BORDER_MARGIN, Workload

__all__ = ["LAYOUTS", "Call", "Case", "Fused", "Storage", "make_call"]


@dataclass(frozen=True)
class Storage:
    """Dtypes of a call.

    Args:
        value: of ``value`` and of the result.
        pairs: of ``locations`` or ``offsets``; None as ``value``.
        scalars: of ``weights`` or ``logits``; None as ``value``.
        reference: of ``reference``; None as ``pairs``.
    """

    value: torch.dtype = torch.float32
    pairs: torch.dtype | None = None
    scalars: torch.dtype | None = None
    reference: torch.dtype | None = None

    def of(self, name: str) -> torch.dtype:
        """The dtype of an argument, by its name."""
        pairs = self.pairs or self.value
        return {
            "value": self.value,
            "locations": pairs,
            "offsets": pairs,
            "weights": self.scalars or self.value,
            "logits": self.scalars or self.value,
            "reference": self.reference or pairs,
        }[name]

    def __str__(self) -> str:
        dtypes = (self.value, self.pairs, self.scalars, self.reference)
        return "_".join(str(dtype).removeprefix("torch.") for dtype in dtypes if dtype is not None)


@dataclass(frozen=True)
class Fused:
    """What only the fused entry has.

    Args:
        coordinates: 2 or 4, the last axis of ``reference``.
        per_level: whether ``reference`` has L points per query instead of 1.
        masked: whether some pixels are masked out.
        offset_scale: factor of a 4-d reference.
    """

    coordinates: int = 4
    per_level: bool = False
    masked: bool = False
    offset_scale: float = 0.5

    def __str__(self) -> str:
        levels = "per_level" if self.per_level else "shared"
        return f"{self.coordinates}d_{levels}{'_masked' if self.masked else ''}_{self.offset_scale}"


@dataclass(frozen=True)
class Case:
    """One call: a shape, the dtypes, the entry and how the tensors lie in memory."""

    workload: Workload
    storage: Storage = Storage()
    fused: Fused | None = None
    layout: str = "contiguous"
    seed: int = 0


@dataclass(frozen=True)
class Call:
    """A call with its tensors.

    Args:
        entry: the public function.
        tensors: differentiable arguments by name, in the order of the entry.
        options: the other arguments by name.
        grad_out: [B, Q, M*D], the gradient of the result.
    """

    entry: Callable[..., Tensor]
    tensors: dict[str, Tensor]
    options: dict[str, Any]
    grad_out: Tensor

    def map(self, function: Callable[[Tensor], Tensor]) -> Call:
        """The same call with every floating-point tensor replaced."""
        tensors = {name: function(tensor) for name, tensor in self.tensors.items()}
        return replace(self, tensors=tensors, grad_out=function(self.grad_out))

    def to(self, device: str) -> Call:
        """The same call with every tensor on ``device``, laid out in memory as it is."""
        options = {
            name: _laid_out_on(device, option) if isinstance(option, Tensor) else option
            for name, option in self.options.items()
        }
        return replace(self.map(partial(_laid_out_on, device)), options=options)

    def with_tensors(self, **tensors: Tensor) -> Call:
        """The same call with the named tensors replaced."""
        return replace(self, tensors={**self.tensors, **tensors})


def _laid_out_on(device: str, tensor: Tensor) -> Tensor:
    """``Tensor.to`` would pack a tensor whose memory has gaps or is shared."""
    if device == tensor.device.type:
        return tensor
    elements = tensor.untyped_storage().nbytes() // tensor.element_size()
    memory = tensor.as_strided((elements,), (1,), 0).to(device)
    return memory.as_strided(tensor.size(), tensor.stride(), tensor.storage_offset())


def make_call(case: Case) -> Call:
    """The call that ``case`` describes; the same numbers, rounded, whatever the dtypes."""
    random = torch.Generator().manual_seed(case.seed)
    call = (
        _plain_call(case, random) if case.fused is None else _fused_call(case, case.fused, random)
    )
    return LAYOUTS[case.layout](call)


def _plain_call(case: Case, random: torch.Generator) -> Call:
    shape, storage = case.workload, case.storage
    taps = (shape.batch, shape.queries, shape.heads, shape.taps)
    locations = _draw_off_borders(
        lambda: _around_level((*taps, 2), random).to(storage.of("locations")), lambda x: x, shape
    )
    tensors = {
        "value": _draw_value(shape, random).to(storage.value),
        "locations": locations,
        "weights": _normal(taps, random).to(storage.of("weights")),
    }
    return Call(ms_deform_attn, tensors, _options(shape), _draw_grad_out(case, random))


def _fused_call(case: Case, fused: Fused, random: torch.Generator) -> Call:
    shape, storage = case.workload, case.storage
    taps = (shape.batch, shape.queries, shape.heads, shape.taps)
    reference_shape = (shape.batch, shape.queries, len(shape.levels) if fused.per_level else 1)
    reference = 0.2 + 0.6 * _uniform((*reference_shape, fused.coordinates), random)
    reference = reference.to(storage.of("reference"))
    locate = partial(_locate, shape, reference.double(), fused.offset_scale)
    origin = locate(torch.zeros(*taps, 2, dtype=torch.float64))
    step = locate(torch.ones(*taps, 2, dtype=torch.float64)) - origin

    def draw() -> Tensor:
        offsets = (_around_level((*taps, 2), random) - origin) / step
        return offsets.to(storage.of("offsets"))

    tensors = {
        "value": _draw_value(shape, random).to(storage.value),
        "reference": reference,
        "offsets": _draw_off_borders(draw, locate, shape),
        "logits": (2 * _normal(taps, random)).to(storage.of("logits")),
    }
    options = _options(shape) | {"offset_scale": fused.offset_scale}
    if fused.masked:
        options["value_mask"] = _uniform((shape.batch, shape.pixels), random) > 0.3
    return Call(ms_deform_attn_fused, tensors, options, _draw_grad_out(case, random))


def _locate(shape: Workload, reference: Tensor, offset_scale: float, offsets: Tensor) -> Tensor:
    return locations_from_offsets(shape.levels, reference, offsets, shape.points, offset_scale)


def _options(shape: Workload) -> dict[str, Any]:
    return {"levels": shape.levels, "points": shape.points, "mode": shape.mode}


def _draw_value(shape: Workload, random: torch.Generator) -> Tensor:
    return _normal((shape.batch, shape.pixels, shape.heads, shape.channels), random)


def _draw_grad_out(case: Case, random: torch.Generator) -> Tensor:
    shape = case.workload
    grad_out = _normal((shape.batch, shape.queries, shape.heads * shape.channels), random)
    return grad_out.to(case.storage.value)


def _around_level(shape: tuple[int, ...], random: torch.Generator) -> Tensor:
    return 1.5 * _uniform(shape, random) - 0.25


def _draw_off_borders(
    draw: Callable[[], Tensor],
    locate: Callable[[Tensor], Tensor],  # float64 pairs -> locations
    shape: Workload,
) -> Tensor:  # [B, Q, M, T, 2]
    """Draw again where a point, after rounding to its dtype, lies on a pixel border of either mode."""
    sizes = [(width, height) for (height, width), count in _levels(shape) for _ in range(count)]
    size = torch.tensor(sizes, dtype=torch.float64).view(-1, 2)  # [T, 2]
    drawn = draw()
    for _ in range(100):
        pixel = locate(drawn.double()) * size - 0.5
        on_border = (pixel - pixel.round()).abs() < BORDER_MARGIN
        if not on_border.any():
            return drawn
        drawn = torch.where(on_border, draw(), drawn)
    raise RuntimeError(f"no locations off the pixel borders for {shape}")


def _levels(shape: Workload) -> zip[tuple[tuple[int, int], int]]:
    return zip(shape.levels, shape.points, strict=True)


def _normal(shape: tuple[int, ...], random: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=random, dtype=torch.float64)


def _uniform(shape: tuple[int, ...], random: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=random, dtype=torch.float64)


def _stored_as(order: tuple[int, ...], tensor: Tensor) -> Tensor:
    """The same tensor, with its axes in memory in another order."""
    back = [order.index(axis) for axis in range(len(order))]
    return tensor.permute(order).contiguous().permute(back)


def _every_second(axis: int, tensor: Tensor) -> Tensor:
    """The same tensor as every second slice of a wider one."""
    wide = tensor.repeat_interleave(2, axis)
    return wide[(slice(None),) * axis + (slice(None, None, 2),)]


def _window(axis: int, tensor: Tensor, before: int = 1) -> Tensor:
    """The same tensor inside a longer one, a slice of NaN behind it and ``before`` of them in front."""
    border = torch.full_like(tensor.narrow(axis, 0, 1), torch.nan)
    longer = torch.cat([*[border] * before, tensor, border], axis)
    return longer.narrow(axis, before, tensor.shape[axis])


def _at_an_odd_address(tensor: Tensor) -> Tensor:
    """The same tensor one element behind where an allocation begins: no wide load may start there."""
    return torch.cat([tensor.new_empty(1), tensor.flatten()])[1:].view_as(tensor)


def _repeated(axis: int, tensor: Tensor) -> Tensor:
    """The first slice for all, in the memory of one."""
    return tensor.narrow(axis, 0, 1).expand_as(tensor)


def _lay(change: Callable[[Tensor], Tensor], *names: str) -> Callable[[Call], Call]:
    def apply(call: Call) -> Call:
        tensors = {n: change(t) if n in names else t for n, t in call.tensors.items()}
        grad_out = change(call.grad_out) if "grad_out" in names else call.grad_out
        options = dict(call.options)
        if "value_mask" in names:
            options["value_mask"] = change(options["value_mask"])
        return replace(call, tensors=tensors, grad_out=grad_out, options=options)

    return apply


_PAIRS = ("locations", "offsets")
_SCALARS = ("weights", "logits")

LAYOUTS: dict[str, Callable[[Call], Call]] = {
    "contiguous": lambda call: call,
    "value_stored_BMDS": _lay(partial(_stored_as, (0, 2, 3, 1)), "value"),
    "value_stored_SBMD": _lay(partial(_stored_as, (1, 0, 2, 3)), "value"),
    "value_stored_BMSD": _lay(partial(_stored_as, (0, 2, 1, 3)), "value"),
    "value_every_second_channel": _lay(partial(_every_second, 3), "value"),
    "value_every_second_head": _lay(partial(_every_second, 2), "value"),
    "value_every_second_pixel": _lay(partial(_every_second, 1), "value"),
    "value_window_of_pixels": _lay(partial(_window, 1), "value"),
    "value_window_of_channels": _lay(partial(_window, 3), "value"),
    "value_first_of_more_channels": _lay(partial(_window, 3, before=0), "value"),
    "value_at_an_odd_address": _lay(_at_an_odd_address, "value"),
    "value_one_image_for_all": _lay(partial(_repeated, 0), "value"),
    "value_one_head_for_all": _lay(partial(_repeated, 2), "value"),
    "pairs_stored_QBMT": _lay(partial(_stored_as, (1, 0, 2, 3, 4)), *_PAIRS),
    "pairs_stored_2BQMT": _lay(partial(_stored_as, (4, 0, 1, 2, 3)), *_PAIRS),
    "pairs_every_second_point": _lay(partial(_every_second, 3), *_PAIRS),
    "pairs_window_of_points": _lay(partial(_window, 3), *_PAIRS),
    "pairs_one_head_for_all": _lay(partial(_repeated, 2), *_PAIRS),
    "scalars_stored_BTQM": _lay(partial(_stored_as, (0, 3, 1, 2)), *_SCALARS),
    "scalars_window_of_points": _lay(partial(_window, 3), *_SCALARS),
    "scalars_one_query_for_all": _lay(partial(_repeated, 1), *_SCALARS),
    "scalars_one_head_for_all": _lay(partial(_repeated, 2), *_SCALARS),
    "reference_stored_4QB": _lay(partial(_stored_as, (3, 1, 0, 2)), "reference"),
    "reference_one_query_for_all": _lay(partial(_repeated, 1), "reference"),
    "mask_stored_SB": _lay(partial(_stored_as, (1, 0)), "value_mask"),
    "grad_out_stored_QBC": _lay(partial(_stored_as, (1, 0, 2)), "grad_out"),
    "grad_out_at_an_odd_address": _lay(_at_an_odd_address, "grad_out"),
    "grad_out_one_number_per_query": _lay(partial(_repeated, 2), "grad_out"),
}
"""Memory layouts by name; letters name the axes from slowest to fastest."""
