# SPDX-License-Identifier: Apache-2.0
"""Exported graphs hold portable operators only, and compute what the reference computes."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from portable_cases import RAGGED, assert_as_exact, fused_inputs, plain_inputs
from torch import Tensor, nn

from rtdetr_ops import export_form, ms_deform_attn, ms_deform_attn_fused, use_backend
from rtdetr_ops.ms_deform_attn import reference
from rtdetr_ops.ms_deform_attn.export_form import is_exporting
from rtdetr_ops.ms_deform_attn.op import BACKENDS
from rtdetr_ops.testing.workloads import Workload, find_workload

DYNAMIC = torch.export.Dim.DYNAMIC

each_lowering = pytest.mark.parametrize(
    ("form", "mode"),
    [("gather", "bilinear"), ("grid_sample", "bilinear"), ("gather", "discrete")],
    ids=["gather", "grid_sample", "discrete"],
)
each_form = pytest.mark.parametrize("form", ["gather", "grid_sample"])
ignore_tracer_advice = pytest.mark.filterwarnings(
    "ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning"
)


class Plain(nn.Module):
    """The plain entry at the levels, points and mode of a case."""

    dynamic_axes = (("value", 1), ("locations", 2), ("weights", 2))
    """Inputs, and how many of their leading axes (B, Q) may change."""

    def __init__(self, case: Workload) -> None:
        super().__init__()
        self.case = case

    def forward(self, value: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
        case = self.case
        return ms_deform_attn(
            value, case.levels, locations, weights, points=case.points, mode=case.mode
        )

    def reference(self, value: Tensor, *taps: Tensor) -> Tensor:
        case = self.case
        return reference.run(value, case.levels, *taps, case.points, case.mode)

    def inputs(self, batch: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
        return plain_inputs(replace(self.case, batch=batch), dtype)


class Fused(Plain):
    """The fused entry, with a mask."""

    dynamic_axes = (("value", 1), ("reference", 2), ("offsets", 2), ("logits", 2), ("mask", 1))

    def forward(
        self, value: Tensor, reference: Tensor, offsets: Tensor, logits: Tensor, mask: Tensor
    ) -> Tensor:
        case = self.case
        options = {"points": case.points, "mode": case.mode, "value_mask": mask}
        return ms_deform_attn_fused(value, case.levels, reference, offsets, logits, **options)

    def reference(self, value: Tensor, *rest: Tensor) -> Tensor:
        case, (*taps, mask) = self.case, rest
        return reference.run_fused(value, case.levels, *taps, case.points, case.mode, 0.5, mask)

    def inputs(self, batch: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
        return fused_inputs(replace(self.case, batch=batch), dtype)


class Pyramid(nn.Module):
    """Feature maps of any size in, levels taken from their shapes."""

    def forward(self, fine: Tensor, coarse: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
        maps = (fine, coarse)  # [B, D, H, W]
        value = torch.cat([plane.flatten(2) for plane in maps], 2).transpose(1, 2).unsqueeze(2)
        levels = [(plane.shape[2], plane.shape[3]) for plane in maps]
        return ms_deform_attn(value, levels, locations, weights)


each_entry = pytest.mark.parametrize("entry", [Plain, Fused], ids=["plain", "fused"])


def _export(
    model: Plain, inputs: tuple[Tensor, ...], **options: Any
) -> torch.export.ExportedProgram:
    shapes = tuple(dict.fromkeys(range(axes), DYNAMIC) for _, axes in model.dynamic_axes)
    return torch.export.export(model, inputs, dynamic_shapes=shapes, **options)


def _targets(program: torch.export.ExportedProgram) -> list[Any]:
    return [node.target for node in program.graph.nodes if node.op == "call_function"]


def _namespaces(program: torch.export.ExportedProgram) -> set[str]:
    """Where the operators come from; arithmetic on symbolic sizes is Python's ``_operator``."""
    return {getattr(target, "namespace", target.__module__) for target in _targets(program)}


def _names(program: torch.export.ExportedProgram) -> set[str]:
    return {target.__name__.split(".")[0] for target in _targets(program)}


@each_lowering
@pytest.mark.parametrize(
    ("entry", "strict"),
    [(Plain, False), (Fused, False), (Fused, True)],
    ids=["plain", "fused", "fused_strict"],
)
def test_graph_is_portable(entry: type[Plain], strict: bool, form: str, mode: str) -> None:
    model = entry(replace(RAGGED, mode=mode))
    with export_form(form):
        program = _export(model, model.inputs(batch=2), strict=strict)
    assert _namespaces(program) <= {"aten", "_operator"}
    assert ("grid_sampler" in _names(program)) == (form == "grid_sample")
    for batch in (1, 3):
        inputs = model.inputs(batch)
        assert_as_exact(program.module()(*inputs), model.reference, inputs, model.case)


def test_gather_is_the_default_and_serves_discrete_mode_in_both_forms() -> None:
    bilinear, discrete = Plain(RAGGED), Plain(replace(RAGGED, mode="discrete"))
    assert "grid_sampler" not in _names(_export(bilinear, bilinear.inputs(2)))
    with export_form("grid_sample"):
        assert "grid_sampler" not in _names(_export(discrete, discrete.inputs(2)))


@each_form
def test_storage_of_sixteen_bits(form: str) -> None:
    model = Fused(RAGGED)
    inputs = model.inputs(2, torch.bfloat16)
    with export_form(form):
        program = _export(model, inputs)
    assert_as_exact(program.module()(*inputs), model.reference, inputs, model.case)


def _pyramid_inputs(fine: tuple[int, int], coarse: tuple[int, int]) -> tuple[Tensor, ...]:
    random = torch.Generator().manual_seed(0)
    maps = (torch.randn(2, 4, *size, generator=random) for size in (fine, coarse))
    locations = torch.rand(2, 3, 1, 4, 2, generator=random)
    return (*maps, locations, torch.rand(2, 3, 1, 4, generator=random))


@each_form
def test_level_sizes_may_be_dynamic(form: str) -> None:
    sides = {2: DYNAMIC, 3: DYNAMIC}
    with export_form(form):
        program = torch.export.export(
            Pyramid(), _pyramid_inputs((6, 9), (3, 4)), dynamic_shapes=(sides, sides, None, None)
        )
    other = _pyramid_inputs((5, 7), (2, 6))
    torch.testing.assert_close(program.module()(*other), Pyramid()(*other), rtol=1e-5, atol=1e-5)


@ignore_tracer_advice
@each_form
def test_traced_level_sizes_are_dynamic(form: str) -> None:
    with export_form(form):
        traced = torch.jit.trace(Pyramid(), _pyramid_inputs((6, 9), (3, 4)), check_trace=False)
    other = _pyramid_inputs((5, 7), (2, 6))
    torch.testing.assert_close(traced(*other), Pyramid()(*other), rtol=1e-5, atol=1e-5)


def test_levels_may_be_an_input() -> None:
    class Model(nn.Module):
        def forward(self, value: Tensor, levels: Tensor, *taps: Tensor) -> Tensor:
            return ms_deform_attn(value, levels, *taps)

    random = torch.Generator().manual_seed(0)
    value = torch.randn(2, 16, 1, 4, generator=random)
    taps = (
        torch.rand(2, 3, 1, 4, 2, generator=random),
        torch.rand(2, 3, 1, 4, generator=random),
    )
    program = torch.export.export(Model(), (value, torch.tensor([[3, 4], [2, 2]]), *taps))
    other = torch.tensor([[2, 5], [3, 2]])
    got = program.module()(value, other, *taps)
    torch.testing.assert_close(got, Model()(value, other, *taps), rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(
    all(it.name == "reference" or it.support.missing for it in BACKENDS),
    reason="no compiled backend in this installation, so there is no operator to keep",
)
@each_entry
def test_operator_form_keeps_the_operator(entry: type[Plain]) -> None:
    model = entry(RAGGED)
    inputs = model.inputs(2)
    with export_form("operator"):
        program = _export(model, inputs)
    assert "rtdetr_ops" in _namespaces(program)
    assert_as_exact(program.module()(*inputs), model.reference, inputs, model.case)


def test_a_backend_in_use_does_not_reach_the_graph() -> None:
    model = Plain(RAGGED)
    with use_backend("reference"):
        program = _export(model, model.inputs(2))
    assert "index_select" in _names(program)
    assert "gather" not in _names(program)


def test_a_backend_asked_for_by_the_call_does() -> None:
    class Model(Plain):
        def forward(self, value: Tensor, *taps: Tensor) -> Tensor:
            levels, points = self.case.levels, self.case.points
            return ms_deform_attn(value, levels, *taps, points=points, backend="reference")

    model = Model(RAGGED)
    names = _names(torch.export.export(model, model.inputs(2)))
    assert "gather" in names
    assert "index_select" not in names


def test_compile_is_not_an_export() -> None:
    asked = torch.compile(lambda x: (x + 1, is_exporting()), backend="eager")
    assert asked(torch.zeros(1))[1] is False
    assert is_exporting() is False


def test_form_is_restored_after_the_block() -> None:
    model = Plain(RAGGED)
    with pytest.raises(KeyError), export_form("grid_sample"):
        raise KeyError
    assert "grid_sampler" not in _names(_export(model, model.inputs(2)))


def test_unknown_form_is_refused() -> None:
    with (
        pytest.raises(ValueError, match=r"form: expected one of 'gather', .*, got 'gathre'"),
        export_form("gathre"),
    ):
        pass


@pytest.mark.parametrize(
    ("form", "printed"),
    [
        ("grid_sample", "grid_sampler"),
        ("gathre", "RTDETR_OPS_EXPORT: expected one of 'gather', 'grid_sample', 'operator'"),
    ],
    ids=["known", "unknown"],
)
def test_environment_variable(form: str, printed: str) -> None:
    program = (
        "import torch, rtdetr_ops\n"
        "call = lambda v, l, w: rtdetr_ops.ms_deform_attn(v, [(2, 3)], l, w)\n"
        "shapes = (1, 6, 1, 2), (1, 4, 1, 3, 2), (1, 4, 1, 3)\n"
        "print(torch.jit.trace(call, tuple(map(torch.rand, shapes))).graph)\n"
    )
    environment = {**os.environ, "RTDETR_OPS_EXPORT": form}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert printed in done.stdout + done.stderr


@ignore_tracer_advice
@each_lowering
@each_entry
def test_jit_trace(entry: type[Plain], form: str, mode: str) -> None:
    model = entry(replace(RAGGED, mode=mode))
    with export_form(form):
        traced = torch.jit.trace(model, model.inputs(2), check_trace=False)
    kinds = {node.kind().split("::")[0] for node in traced.inlined_graph.nodes()}
    assert kinds <= {"aten", "prim"}
    inputs = model.inputs(3)
    assert_as_exact(traced(*inputs), model.reference, inputs, model.case)


def _export_onnx(model: Plain, inputs: tuple[Tensor, ...], path: Path, dynamo: bool) -> None:
    names = [name for name, _ in model.dynamic_axes]
    if dynamo:
        shapes = tuple(dict.fromkeys(range(axes), DYNAMIC) for _, axes in model.dynamic_axes)
        options: dict[str, Any] = {"dynamic_shapes": shapes}
    else:
        letters = dict(enumerate("BQ"))
        axes = {name: dict(list(letters.items())[:count]) for name, count in model.dynamic_axes}
        options = {"dynamic_axes": axes}
    torch.onnx.export(
        model.eval(), inputs, path, dynamo=dynamo, input_names=names, verbose=False, **options
    )


def _assert_onnx_as_exact(model: Plain, path: Path, inputs: tuple[Tensor, ...]) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [name for name, _ in model.dynamic_axes]
    feed = {name: tensor.numpy() for name, tensor in zip(names, inputs, strict=True)}
    (got,) = session.run(None, feed)
    assert_as_exact(torch.from_numpy(got), model.reference, inputs, model.case)


def _onnx_nodes(path: Path) -> set[tuple[str, str]]:
    onnx = pytest.importorskip("onnx")
    return {(node.domain, node.op_type) for node in onnx.load(path).graph.node}


@ignore_tracer_advice
@each_lowering
@pytest.mark.parametrize(
    ("entry", "dynamo"),
    [
        pytest.param(Plain, False, id="plain-torchscript"),
        pytest.param(Fused, False, id="fused-torchscript"),
        pytest.param(Fused, True, id="fused-dynamo"),
        pytest.param(Plain, True, id="plain-dynamo", marks=pytest.mark.slow),
    ],
)
def test_onnx(entry: type[Plain], dynamo: bool, form: str, mode: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    model = entry(replace(RAGGED, mode=mode))
    path = tmp_path / "model.onnx"
    with export_form(form):
        _export_onnx(model, model.inputs(2), path, dynamo)
    nodes = _onnx_nodes(path)
    assert {domain for domain, _ in nodes} == {""}
    assert (("", "GridSample") in nodes) == (form == "grid_sample")
    for batch in (1, 3):
        _assert_onnx_as_exact(model, path, model.inputs(batch))


@ignore_tracer_advice
@pytest.mark.slow
@each_form
@pytest.mark.parametrize("workload", ["decoder_ragged", "decoder_discrete"])
def test_onnx_of_a_decoder(workload: str, form: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    model = Fused(find_workload(workload))
    path = tmp_path / "model.onnx"
    with export_form(form):
        _export_onnx(model, model.inputs(2), path, dynamo=True)
    for batch in (1, 3):
        _assert_onnx_as_exact(model, path, model.inputs(batch))
