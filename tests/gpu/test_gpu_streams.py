# SPDX-License-Identifier: Apache-2.0
"""Work is enqueued where torch says, waits for nothing, and can be captured and replayed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from cases import RAGGED, each_mode, in_mode
from on_gpu import DEVICE, GpuTarget, forward_backward
from torch import Tensor

from rtdetr_ops.testing.inputs import Call, Case, Fused, Storage, make_call
from rtdetr_ops.testing.tester import run
from rtdetr_ops.testing.workloads import Workload

FORMS = {"plain": None, "fused_box": Fused(4, masked=True), "fused_point": Fused(2, per_level=True)}
each_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)

DECODER = Workload("decoder", 2, 300, 8, ((20, 20), (10, 10), (5, 5)), (4, 4, 4), 32)


@pytest.fixture
def no_synchronisation(cuda: str) -> Iterator[None]:
    """Whatever waits for the device inside the test raises."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    yield
    torch.cuda.set_sync_debug_mode("default")


def assert_same(got: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


@each_form
def test_side_stream(kernel: GpuTarget, cuda: str, deterministic: None, form: Fused | None) -> None:
    """A kernel on another stream than the one current would read its inputs before they are there."""
    call = make_call(Case(DECODER, fused=form)).to(DEVICE)
    expected = forward_backward(call, kernel.backend)()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        late = call.map(torch.zeros_like)
        torch.cuda._sleep(200_000_000)  # a tenth of a second, in cycles
        for name, tensor in late.tensors.items():
            tensor.copy_(call.tensors[name])
        late.grad_out.copy_(call.grad_out)
        got = forward_backward(late, kernel.backend)()
    torch.cuda.current_stream().wait_stream(stream)
    assert_same(got, expected)


@each_mode
@each_form
def test_nothing_waits_for_the_device(
    kernel: GpuTarget, cuda: str, form: Fused | None, mode: str, request: pytest.FixtureRequest
) -> None:
    call = make_call(in_mode(Case(RAGGED, fused=form), mode)).to(DEVICE)
    levels = torch.tensor(RAGGED.levels, device=cuda)
    request.getfixturevalue("no_synchronisation")
    forward_backward(call, kernel.backend)()
    call.options["levels"] = levels
    forward_backward(call, kernel.backend)()


def captured(call: Call, backend: str) -> tuple[torch.cuda.CUDAGraph, tuple[Tensor, ...]]:
    """A graph of the call's forward and backward, and where its results will lie."""
    once = forward_backward(call, backend)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            once()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = once()
    return graph, results


@each_form
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_graph_of_forward_and_backward(
    kernel: GpuTarget, cuda: str, deterministic: None, form: Fused | None, dtype: torch.dtype
) -> None:
    storage = Storage(dtype, torch.float32, torch.float32)
    static, other = (
        make_call(Case(DECODER, storage, form, seed=seed)).to(DEVICE) for seed in (0, 1)
    )
    if form is not None and form.masked:
        other.options["value_mask"] = static.options["value_mask"]
    expected = [forward_backward(call, kernel.backend)() for call in (static, other)]
    graph, results = captured(static, kernel.backend)
    graph.replay()
    assert_same(results, expected[0])
    for name, tensor in static.tensors.items():
        tensor.copy_(other.tensors[name])
    static.grad_out.copy_(other.grad_out)
    for _ in range(2):
        graph.replay()
        assert_same(results, expected[1])


def test_graph_of_the_forward(kernel: GpuTarget, cuda: str) -> None:
    call = make_call(Case(DECODER, fused=Fused(4))).to(DEVICE)

    def forward() -> Tensor:
        with torch.no_grad():
            return call.entry(**call.tensors, **call.options, backend=kernel.backend)

    expected = forward()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = forward()
    call.tensors["value"].mul_(2)  # a power of two: exact
    graph.replay()
    torch.testing.assert_close(out, 2 * expected, rtol=0, atol=0)


def test_graph_with_levels_on_the_device(kernel: GpuTarget, cuda: str, deterministic: None) -> None:
    """The pyramid may change between replays: its sizes are read by the kernel."""
    wide, high = ((4, 6), (2, 3)), ((6, 4), (3, 2))
    call = make_call(Case(Workload("turned", 1, 9, 2, wide, (2, 2), 8))).to(DEVICE)
    call.options["levels"] = torch.tensor(wide, device=cuda)
    graph, results = captured(call, kernel.backend)
    for levels in (wide, high):
        call.options["levels"].copy_(torch.tensor(levels))
        graph.replay()
        named = Call(call.entry, call.tensors, {**call.options, "levels": levels}, call.grad_out)
        expected = run(named, kernel.backend)
        assert_same(results, tuple(expected.values()))
