# SPDX-License-Identifier: Apache-2.0
"""A module taken through each exporter, and run as the runtime of that exporter runs it."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence

import pytest
import torch
from torch import Tensor, nn

__all__ = ["EXPORTERS", "Axes", "Exporter", "Inputs", "Run"]

Inputs = Mapping[str, Tensor]
"""By name, in the order of the forward's parameters."""

Axes = Mapping[str, Sequence[int]]
"""Name of an input -> its axes that may have another length than at export."""

Run = Callable[[Inputs], list[Tensor]]
Exporter = Callable[[nn.Module, Inputs, Axes], Run]


def _trace(model: nn.Module, inputs: Inputs, axes: Axes) -> Run:
    traced = torch.jit.trace(model, tuple(inputs.values()), check_trace=False)
    return lambda other: _tensors(traced(*other.values()))


def _program(model: nn.Module, inputs: Inputs, axes: Axes, strict: bool = False) -> Run:
    shapes = _dynamic_shapes(model, inputs, axes)
    arguments = tuple(inputs.values())
    program = torch.export.export(model, arguments, dynamic_shapes=shapes, strict=strict)
    module = program.module()
    graphs = [it.graph for it in module.modules() if isinstance(it, torch.fx.GraphModule)]
    assert not [it for graph in graphs for it in graph.nodes if "rtdetr_ops" in str(it.target)]
    return lambda other: _tensors(module(*other.values()))


def _strict_program(model: nn.Module, inputs: Inputs, axes: Axes) -> Run:
    return _program(model, inputs, axes, strict=True)


def _onnx(model: nn.Module, inputs: Inputs, axes: Axes) -> Run:
    pytest.importorskip("onnxscript")
    program = torch.onnx.export(
        model,
        tuple(inputs.values()),
        dynamo=True,
        verbose=False,
        input_names=list(inputs),
        dynamic_shapes=_dynamic_shapes(model, inputs, axes),
    )
    assert program is not None
    return _in_onnxruntime(program.model_proto.SerializeToString())


def _onnx_of_trace(model: nn.Module, inputs: Inputs, axes: Axes, opset: int | None = None) -> Run:
    pytest.importorskip("onnx")
    file = io.BytesIO()
    torch.onnx.export(
        model,
        tuple(inputs.values()),
        file,
        dynamo=False,
        opset_version=opset,
        input_names=list(inputs),
        dynamic_axes={name: {axis: f"{name}_{axis}" for axis in axes[name]} for name in axes},
    )
    return _in_onnxruntime(file.getvalue())


def onnx_of_opset(opset: int) -> Exporter:
    """The exporter of ``dynamo=False`` for an ONNX opset."""
    return lambda model, inputs, axes: _onnx_of_trace(model, inputs, axes, opset)


def _openvino(model: nn.Module, inputs: Inputs, axes: Axes) -> Run:
    openvino = pytest.importorskip("openvino")
    arguments = tuple(inputs.values())
    # Axes stay as dynamic as the trace leaves them.
    converted = openvino.convert_model(model, example_input=arguments)
    compiled = openvino.compile_model(converted, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(other: Inputs) -> list[Tensor]:
        results = compiled([tensor.numpy() for tensor in other.values()])
        return [torch.from_numpy(results[output]) for output in compiled.outputs]

    return run


def _in_onnxruntime(model: bytes) -> Run:
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])

    def run(other: Inputs) -> list[Tensor]:
        feed = {name: tensor.numpy() for name, tensor in other.items()}
        return [torch.from_numpy(result) for result in session.run(None, feed)]

    return run


def _dynamic_shapes(
    model: nn.Module, inputs: Inputs, axes: Axes
) -> tuple[tuple[dict[int, object], ...]]:
    """For a forward that takes its tensors as ``*tensors``."""
    dynamic = torch.export.Dim.DYNAMIC
    return (tuple(dict.fromkeys(axes.get(name, ()), dynamic) for name in inputs),)


def _tensors(results: Tensor | Sequence[Tensor]) -> list[Tensor]:
    return [results] if isinstance(results, Tensor) else list(results)


EXPORTERS: Mapping[str, Exporter] = {
    "jit_trace": _trace,
    "export": _program,
    "export_strict": _strict_program,
    "onnx": _onnx,
    "onnx_of_trace": _onnx_of_trace,
    "openvino": _openvino,
}
