# SPDX-License-Identifier: Apache-2.0
"""What is exported computes the right numbers also for another batch, other queries and other level sizes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any, NamedTuple

import pytest
import torch
from exporters import EXPORTERS, Axes, Inputs, onnx_of_opset
from torch import Tensor, nn

from rtdetr_ops import (
    FusedMSDeformAttnFunction,
    MSDeformAttn,
    MSDeformAttnFunction,
    export_form,
    ms_deform_attn,
    ms_deform_attn_fused,
)
from rtdetr_ops.testing.tester import Target

pytestmark = pytest.mark.filterwarnings(
    "ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning"
)

HEADS, CHANNELS, POINTS = 2, 16, (3, 1)
T = sum(POINTS)

Letters = tuple[tuple[str, str], ...]
"""Name of an input, and a letter for each of its axes: B, Q, S, H, W, or "-" where the length never changes."""


class Shape(NamedTuple):
    """The lengths that may change from call to call."""

    batch: int
    queries: int
    levels: tuple[tuple[int, int], tuple[int, int]]

    @property
    def pixels(self) -> int:
        return sum(height * width for height, width in self.levels)


EXPORTED = Shape(2, 5, ((6, 5), (3, 4)))
OTHERS = (
    Shape(1, 7, ((4, 7), (2, 3))),
    Shape(3, 4, ((5, 6), (4, 3))),  # as many pixels as at export
)


class Entry(nn.Module):
    """One way to call the operator.

    ``inputs`` makes what ``call`` takes beside the pyramid; ``axes`` are those that may change.
    """

    axes: Letters

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.mode = mode

    def inputs(self, shape: Shape) -> dict[str, Tensor]:
        raise NotImplementedError

    def call(self, features: Tensor, levels: Any, *taps: Tensor) -> Tensor:
        raise NotImplementedError


def per_head(features: Tensor) -> Tensor:
    """[B, S, C] to [B, S, M, D]."""
    return features.reshape(features.shape[0], features.shape[1], HEADS, CHANNELS // HEADS)


class Plain(Entry):
    axes = (("locations", "BQ"), ("weights", "BQ"))

    def inputs(self, shape: Shape) -> dict[str, Tensor]:
        lengths = (shape.batch, shape.queries, HEADS, T)
        return {"locations": torch.rand(*lengths, 2), "weights": torch.rand(lengths)}

    def call(self, features: Tensor, levels: Any, *taps: Tensor) -> Tensor:
        return ms_deform_attn(per_head(features), levels, *taps, points=POINTS, mode=self.mode)


class PlainFunction(Plain):
    def call(self, features: Tensor, levels: Any, *taps: Tensor) -> Tensor:
        return MSDeformAttnFunction.apply(per_head(features), levels, *taps, POINTS, self.mode)


class ClassicFunction(Plain):
    def inputs(self, shape: Shape) -> dict[str, Tensor]:
        lengths = (shape.batch, shape.queries, HEADS, 2, 2)
        return {"locations": torch.rand(*lengths, 2), "weights": torch.rand(lengths)}

    def call(self, features: Tensor, levels: Any, *taps: Tensor) -> Tensor:
        if not isinstance(levels, Tensor):
            sides = [torch.full((1,), side, dtype=torch.int64) for size in levels for side in size]
            levels = torch.cat(sides).view(-1, 2)
        area = levels.prod(1)
        return MSDeformAttnFunction.apply(
            per_head(features), levels, area.cumsum(0) - area, *taps, 64
        )


class Fused(Entry):
    axes = (("reference", "BQ"), ("offsets", "BQ"), ("logits", "BQ"), ("mask", "BS"))

    def inputs(self, shape: Shape) -> dict[str, Tensor]:
        lengths = (shape.batch, shape.queries, HEADS, T)
        return {
            "reference": torch.rand(shape.batch, shape.queries, 2, 2),
            "offsets": torch.randn(*lengths, 2),
            "logits": torch.randn(lengths),
            "mask": torch.rand(shape.batch, shape.pixels) > 0.3,
        }

    def call(self, features: Tensor, levels: Any, *taps: Tensor) -> Tensor:
        *taps, mask = taps
        options = {"points": POINTS, "mode": self.mode, "value_mask": mask}
        return ms_deform_attn_fused(per_head(features), levels, *taps, **options)


class FusedFunction(Fused):
    def call(self, features: Tensor, levels: Any, *taps: Tensor) -> Tensor:
        *taps, mask = taps
        arguments = (per_head(features), levels, *taps, POINTS, self.mode, 0.5, mask)
        return FusedMSDeformAttnFunction.apply(*arguments)


class Layer(Entry):
    axes = (("query", "BQ"), ("boxes", "BQ"))

    def __init__(self, mode: str) -> None:
        super().__init__(mode)
        self.attention = MSDeformAttn(CHANNELS, 2, HEADS, POINTS, mode=mode)
        for parameter in self.attention.parameters():
            nn.init.normal_(parameter, std=0.3)

    def inputs(self, shape: Shape) -> dict[str, Tensor]:
        lengths = (shape.batch, shape.queries)
        return {"query": torch.randn(*lengths, CHANNELS), "boxes": torch.rand(*lengths, 1, 4)}

    def call(self, features: Tensor, levels: Any, *taps: Tensor) -> Tensor:
        return self.attention(*taps, features, levels)


class PaddedLayer(Layer):
    axes = (("query", "BQ"), ("reference", "BQ"), ("padding", "BS"))

    def inputs(self, shape: Shape) -> dict[str, Tensor]:
        lengths = (shape.batch, shape.queries)
        return {
            "query": torch.randn(*lengths, CHANNELS),
            "reference": torch.rand(*lengths, 2, 2),
            "padding": torch.rand(shape.batch, shape.pixels) < 0.3,
        }

    def call(self, features: Tensor, levels: Any, *taps: Tensor) -> Tensor:
        query, reference, padding = taps
        return self.attention(query, reference, features, levels, None, padding)


ENTRIES = {
    "plain": Plain,
    "fused": Fused,
    "layer": Layer,
    "padded_layer": PaddedLayer,
    "function": PlainFunction,
    "classic_function": ClassicFunction,
    "fused_function": FusedFunction,
}


class Constant(nn.Module):
    """Features [B, S, C] at levels that are part of the model."""

    axes: Letters = (("features", "BS"),)
    varying = "BQ"

    def __init__(self, entry: Entry) -> None:
        super().__init__()
        self.entry = entry

    def inputs(self, shape: Shape) -> Inputs:
        shape = shape._replace(levels=EXPORTED.levels)
        features = torch.randn(shape.batch, shape.pixels, CHANNELS)
        return {"features": features, **self.entry.inputs(shape)}

    def dynamic_axes(self) -> Axes:
        return {
            name: [axis for axis, letter in enumerate(letters) if letter in self.varying]
            for name, letters in (*self.axes, *self.entry.axes)
        }

    def forward(self, *tensors: Tensor) -> Tensor:
        features, *taps = tensors
        return self.entry.call(features, EXPORTED.levels, *taps)


class Maps(Constant):
    """Maps [B, C, H, W], whose sizes are the levels."""

    axes = (("fine", "B-HW"), ("coarse", "B-HW"))
    varying = "BQSHW"

    def inputs(self, shape: Shape) -> Inputs:
        fine, coarse = (torch.randn(shape.batch, CHANNELS, *size) for size in shape.levels)
        return {"fine": fine, "coarse": coarse, **self.entry.inputs(shape)}

    def forward(self, *tensors: Tensor) -> Tensor:
        maps = tensors[:2]
        features = torch.cat([x.flatten(2) for x in maps], 2).transpose(1, 2)
        return self.entry.call(features, [(x.shape[2], x.shape[3]) for x in maps], *tensors[2:])


class Sizes(Constant):
    """Features [B, S, C], and the levels as an input, int64 [L, 2]."""

    varying = "BQSHW"

    def inputs(self, shape: Shape) -> Inputs:
        levels = torch.tensor(shape.levels)
        features = torch.randn(shape.batch, shape.pixels, CHANNELS)
        return {"features": features, "levels": levels, **self.entry.inputs(shape)}

    def forward(self, *tensors: Tensor) -> Tensor:
        features, levels, *taps = tensors
        return self.entry.call(features, levels, *taps)


PYRAMIDS = {"constant": Constant, "maps": Maps, "sizes": Sizes}
FORMS = {
    "gather": ("gather", "bilinear"),
    "grid_sample": ("grid_sample", "bilinear"),
    "discrete": ("gather", "discrete"),
}


QUICK = ("jit_trace", "export", "onnx_of_trace")
HARDEST = ("layer", "classic_function", "fused_function")


def is_possible(exporter: str, entry: str, pyramid: str, form: str) -> bool:
    if entry == "classic_function" and form == "discrete":
        return False  # its argument list has no mode
    # A number in a tensor is no size for GridSample, unless torch.jit.trace follows it.
    in_tensor = pyramid == "sizes" or entry == "classic_function"
    symbolic = exporter in ("export", "export_strict", "onnx")
    return not (form == "grid_sample" and in_tensor and symbolic)


def every_case() -> Iterator[Any]:
    """Each exporter and entry with each pyramid and with each form, in pairs; one of the three pairs is fast."""
    for (i, exporter), (j, entry) in product(enumerate(EXPORTERS), enumerate(ENTRIES)):
        square = [
            (list(PYRAMIDS)[(i + j + k) % 3], list(FORMS)[(i + 2 * j + 2 * k) % 3])
            for k in range(3)
        ]
        cases = [it for it in square if is_possible(exporter, entry, *it)]
        is_fast = exporter in QUICK or entry in HARDEST
        for case in cases:
            marks = () if case == cases[0] and is_fast else pytest.mark.slow
            name = "-".join((exporter, entry, *case))
            yield pytest.param(exporter, entry, *case, id=name, marks=marks)


def model_of(entry: str, pyramid: str, mode: str) -> Any:
    torch.manual_seed(0)
    return PYRAMIDS[pyramid](ENTRIES[entry](mode)).eval().requires_grad_(False)


def assert_same(run: Any, model: Any, shapes: Sequence[Shape] = OTHERS) -> None:
    for shape in shapes:
        inputs = model.inputs(shape)
        expected = model(*inputs.values())
        torch.testing.assert_close(run(inputs), [expected], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("exporter", "entry", "pyramid", "form"), list(every_case()))
def test_other_shapes(exporter: str, entry: str, pyramid: str, form: str) -> None:
    name, mode = FORMS[form]
    model = model_of(entry, pyramid, mode)
    with export_form(name):
        run = EXPORTERS[exporter](model, model.inputs(EXPORTED), model.dynamic_axes())
    assert_same(run, model)


@pytest.mark.parametrize(
    "exporter",
    [
        "jit_trace",
        "onnx_of_trace",
        pytest.param("onnx", marks=pytest.mark.slow),
        pytest.param("openvino", marks=pytest.mark.slow),
    ],
)
def test_batch_of_one_may_grow(exporter: str) -> None:
    model = model_of("layer", "constant", "bilinear")
    inputs = model.inputs(EXPORTED._replace(batch=1))
    run = EXPORTERS[exporter](model, inputs, model.dynamic_axes())
    assert_same(run, model)


@pytest.mark.parametrize("opset", [11, 12, 17])
def test_opsets_of_the_layer(opset: int) -> None:
    model = model_of("layer", "maps", "bilinear")
    run = onnx_of_opset(opset)(model, model.inputs(EXPORTED), model.dynamic_axes())
    assert_same(run, model)


@pytest.mark.parametrize("pyramid", PYRAMIDS)
def test_trace_follows_the_levels_into_every_backend(target: Target, pyramid: str) -> None:
    class Named(Plain):
        def call(self, features: Tensor, levels: Any, *taps: Tensor) -> Tensor:
            value, backend = per_head(features), target.backend
            return ms_deform_attn(value, levels, *taps, points=POINTS, backend=backend)

    torch.manual_seed(0)
    model = PYRAMIDS[pyramid](Named("bilinear"))
    with target.selected():
        run = EXPORTERS["jit_trace"](model, model.inputs(EXPORTED), {})
        assert_same(run, model)


@pytest.mark.slow
def test_strict_export_of_functions_that_are_differentiated() -> None:
    for entry in ("function", "classic_function", "fused_function"):
        model = model_of(entry, "maps", "bilinear")
        inputs = {
            name: x.requires_grad_()
            for name, x in model.inputs(EXPORTED).items()
            if x.is_floating_point()
        }
        assert_same(
            EXPORTERS["export_strict"](
                model, {**model.inputs(EXPORTED), **inputs}, model.dynamic_axes()
            ),
            model,
        )
