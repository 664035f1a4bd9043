# SPDX-License-Identifier: Apache-2.0
"""The registered operators: schemas, fake kernels, gradient formulas, compilation, autocast and transforms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from cases import BF16, F16, F32, F64, RAGGED, SHAPES, in_mode
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad

from rtdetr_ops import _extension, ms_deform_attn
from rtdetr_ops.ms_deform_attn.triton_backend import TRITON
from rtdetr_ops.testing.inputs import Call, Case, Fused, Storage, make_call
from rtdetr_ops.testing.tester import Target, run, targets
from rtdetr_ops.testing.workloads import Workload

pytestmark = pytest.mark.skipif(_extension.MISSING is not None, reason=str(_extension.MISSING))

PYRAMID = "SymInt[] levels, Tensor? level_sizes"
PLAIN = f"Tensor value, {PYRAMID}, Tensor locations, Tensor weights, int[] points, bool discrete"
FUSED = (
    f"Tensor value, {PYRAMID}, Tensor reference, Tensor offsets, Tensor logits, int[] points,"
    " bool discrete, float offset_scale, Tensor? value_mask"
)
SCHEMAS = {
    "": f"({PLAIN}) -> Tensor",
    "_backward": f"(Tensor grad_output, {PLAIN}, bool deterministic, bool needs_value,"
    " bool needs_locations, bool needs_weights) -> (Tensor, Tensor, Tensor)",
    "_fused": f"({FUSED}) -> Tensor",
    "_fused_backward": f"(Tensor grad_output, {FUSED}, bool deterministic,"
    " bool needs_value, bool needs_reference, bool needs_offsets, bool needs_logits)"
    " -> (Tensor, Tensor, Tensor, Tensor)",
}
# By the backends that run them on CPU tensors; Triton's do in its interpreter alone.
IMPLEMENTATIONS = {"cpu": "ms_deform_attn", "triton": "ms_deform_attn_triton"}
each_implementation = pytest.mark.parametrize(
    "implementation", sorted({target.backend for target in targets()} & IMPLEMENTATIONS.keys())
)


def operator(implementation: str, suffix: str) -> Any:
    return getattr(torch.ops.rtdetr_ops, IMPLEMENTATIONS[implementation] + suffix).default


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("suffix", SCHEMAS)
def test_schema(implementation: str, suffix: str) -> None:
    # Exported graphs and compiled packages name the operators by these words.
    if implementation == "triton" and TRITON.missing:
        pytest.skip(TRITON.missing)
    name = f"rtdetr_ops::{IMPLEMENTATIONS[implementation]}{suffix}"
    assert str(operator(implementation, suffix)._schema) == name + SCHEMAS[suffix]


def operator_arguments(call: Call) -> tuple[str, tuple[Any, ...]]:
    """The suffix of the operator under an entry, and its arguments in order."""
    options = call.options
    levels = [side for size in options["levels"] for side in size]
    value, *rest = call.tensors.values()
    shape = (options["points"], options["mode"] == "discrete")
    if call.entry is ms_deform_attn:
        return "", (value, levels, None, *rest, *shape)
    scale, mask = options["offset_scale"], options.get("value_mask")
    return "_fused", (value, levels, None, *rest, *shape, scale, mask)


def with_size_tensor(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """The same arguments with the sizes of the levels in a tensor."""
    value, levels, _, *rest = arguments
    return (value, [], torch.tensor(levels).view(-1, 2), *rest)


def all_needed(call: Call) -> tuple[bool, ...]:
    """``deterministic`` and every ``needs_`` of a backward operator."""
    return (True,) * (1 + len(call.tensors))


# An empty call, a mixed one, a strided one, with and without a mask.
SAMPLES = {
    "plain": Case(RAGGED),
    "plain_discrete_mixed": in_mode(Case(RAGGED, Storage(BF16, F32, F32)), "discrete"),
    "plain_strided": Case(RAGGED, layout="value_stored_BMSD"),
    "plain_no_query": Case(replace(RAGGED, queries=0)),
    "fused_box_masked": Case(RAGGED, fused=Fused(4, masked=True)),
    "fused_point_per_level": Case(RAGGED, Storage(F64), Fused(2, per_level=True)),
    "fused_discrete": in_mode(Case(RAGGED, Storage(F32, F16), Fused(4)), "discrete"),
}
each_sample = pytest.mark.parametrize("case", SAMPLES.values(), ids=SAMPLES)


@each_implementation
@each_sample
def test_opcheck(implementation: str, case: Case) -> None:
    call = make_call(case)
    fixed = {"locations", "reference", "offsets"} if case.workload.mode == "discrete" else set()
    leaves = {n: t.detach().requires_grad_(n not in fixed) for n, t in call.tensors.items()}
    suffix, arguments = operator_arguments(call.with_tensors(**leaves))
    torch.library.opcheck(operator(implementation, suffix), arguments)
    torch.library.opcheck(operator(implementation, suffix), with_size_tensor(arguments))


@each_implementation
@each_sample
def test_opcheck_backward(implementation: str, case: Case) -> None:
    call = make_call(case)
    suffix, arguments = operator_arguments(call)
    needs = all_needed(call)
    torch.library.opcheck(
        operator(implementation, f"{suffix}_backward"), (call.grad_out, *arguments, *needs)
    )
    torch.library.opcheck(
        operator(implementation, f"{suffix}_backward"),
        (call.grad_out, *arguments, *needs[:-2], False, True),
    )


FORMS = {"plain": None, "fused": Fused(4)}
MASKED = Case(RAGGED, fused=Fused(4, masked=True))
# Every tensor of each operator, and its place among the arguments after grad_output.
PLACES = {
    "": {"value": 0, "levels": 2, "locations": 3, "weights": 4},
    "_fused": {
        "value": 0, "levels": 2, "reference": 3, "offsets": 4, "logits": 5, "value_mask": 9,
    },
}  # fmt: skip
NEEDS = {"": (True,) * 4, "_fused": (True,) * 5}
TENSORS = [(suffix, name) for suffix, places in PLACES.items() for name in places]


def on_another_device(suffix: str, name: str, device: str) -> tuple[Tensor, list[Any]]:
    """``grad_output`` and the arguments of a forward operator, the tensor ``name`` among them elsewhere."""
    call = make_call(MASKED if suffix else Case(RAGGED))
    arguments = [call.grad_out, *with_size_tensor(operator_arguments(call)[1])]
    place = 0 if name == "grad_output" else 1 + PLACES[suffix][name]
    arguments[place] = arguments[place].to(device)
    return arguments[0], arguments[1:]


def expect_refusal(name: str, device: str) -> Any:
    # Next to a value elsewhere, it is the next tensor that is not where value is.
    first, expected, got = ("levels", device, "cpu") if name == "value" else (name, "cpu", device)
    message = rf"^{first}: expected device {expected} as value, got {got}$"
    return pytest.raises(RuntimeError, match=message)


@each_implementation
@pytest.mark.parametrize(("suffix", "name"), TENSORS)
def test_a_tensor_on_another_device_is_named(implementation: str, suffix: str, name: str) -> None:
    # A meta tensor sends the call to the fake kernel, whose result would be memory as it was found.
    grad_out, arguments = on_another_device(suffix, name, "meta")
    with expect_refusal(name, "meta"):
        operator(implementation, suffix)(*arguments)
    with expect_refusal(name, "meta"):
        operator(implementation, f"{suffix}_backward")(grad_out, *arguments, *NEEDS[suffix])


@each_implementation
@pytest.mark.parametrize("suffix", PLACES)
def test_a_gradient_on_another_device_is_named(implementation: str, suffix: str) -> None:
    grad_out, arguments = on_another_device(suffix, "grad_output", "meta")
    with expect_refusal("grad_output", "meta"):
        operator(implementation, f"{suffix}_backward")(grad_out, *arguments, *NEEDS[suffix])


@each_implementation
@pytest.mark.parametrize(("suffix", "name"), TENSORS)
def test_a_fake_tensor_on_another_device_is_named(
    implementation: str, suffix: str, name: str
) -> None:
    _, arguments = on_another_device(suffix, name, "cpu")
    with FakeTensorMode() as mode:
        fake = [mode.from_tensor(a) if isinstance(a, Tensor) else a for a in arguments]
        place = PLACES[suffix][name]
        fake[place] = fake[place].to("cuda:0")
        with expect_refusal(name, "cuda:0"):
            operator(implementation, suffix)(*fake)


each_entry = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


def describe(result: Tensor | tuple[Tensor, ...]) -> list[tuple[Any, ...]]:
    tensors = (result,) if isinstance(result, Tensor) else result
    return [(t.shape, t.dtype, t.stride(), t.device) for t in tensors]


@each_implementation
@each_sample
def test_fake_kernels_tell_the_truth(implementation: str, case: Case) -> None:
    call = make_call(case)
    suffix, arguments = operator_arguments(call)
    for op, args in (
        (operator(implementation, suffix), arguments),
        (
            operator(implementation, f"{suffix}_backward"),
            (call.grad_out, *arguments, *all_needed(call)),
        ),
        (
            operator(implementation, f"{suffix}_backward"),
            (call.grad_out, *arguments, *(False,) * (1 + len(call.tensors))),
        ),
    ):
        with FakeTensorMode() as mode:
            fake = [mode.from_tensor(a) if isinstance(a, Tensor) else a for a in args]
            promised = describe(op(*fake))
        assert promised == describe(op(*args))


@each_implementation
def test_unneeded_gradients_have_no_elements(implementation: str) -> None:
    call = make_call(Case(RAGGED))
    suffix, arguments = operator_arguments(call)
    backward = operator(implementation, f"{suffix}_backward")
    value, locations, weights = backward(call.grad_out, *arguments, False, False, True, False)
    assert (value.numel(), locations.shape, weights.numel()) == (
        0,
        call.tensors["locations"].shape,
        0,
    )


@each_implementation
@each_entry
def test_discrete_locations_have_zero_gradients_when_asked(
    implementation: str, form: Fused | None
) -> None:
    # The gradient formulas never ask; whoever calls the operator itself may.
    call = make_call(in_mode(Case(RAGGED, fused=form), "discrete"))
    suffix, arguments = operator_arguments(call)
    gradients = operator(implementation, f"{suffix}_backward")(
        call.grad_out, *arguments, *all_needed(call)
    )
    for argument, gradient in zip(call.tensors, gradients, strict=True):
        assert gradient.any() == (argument in ("value", "weights", "logits")), argument


@each_implementation
@pytest.mark.parametrize(
    "case",
    [*SAMPLES.values(), *map(Case, SHAPES)],
    ids=[*SAMPLES, *(shape.name for shape in SHAPES)],
)
def test_sizes_of_levels_in_a_tensor(implementation: str, case: Case) -> None:
    # A kernel on a GPU reads them there; a classic caller has them nowhere else.
    call = make_call(case)
    suffix, arguments = operator_arguments(call)
    again = with_size_tensor(arguments)
    backward, needs = operator(implementation, f"{suffix}_backward"), all_needed(call)
    expected = [
        operator(implementation, suffix)(*arguments),
        *backward(call.grad_out, *arguments, *needs),
    ]
    got = [operator(implementation, suffix)(*again), *backward(call.grad_out, *again, *needs)]
    torch.testing.assert_close(got, expected, rtol=0, atol=0)


EMULATED = "emulated" in str(_extension.build_info().get("cuda"))


@each_implementation
@each_entry
def test_sizes_in_a_tensor_that_do_not_add_up(implementation: str, form: Fused | None) -> None:
    call = make_call(Case(RAGGED, fused=form))
    suffix, arguments = operator_arguments(call)
    value, _, _, *rest = arguments
    for sizes in ([[7, 4], [3, 6], [2, 3]], [[7, 4], [3, 6], [2, 1]], [[7, 4], [-1, -18], [2, 2]]):
        wrong = (value, [], torch.tensor(sizes), *rest)
        if implementation == "cpu" and not EMULATED:
            with pytest.raises(RuntimeError, match="levels: expected"):
                operator(implementation, suffix)(*wrong)
            continue
        # A device that reads the sizes by itself has no way to refuse them without waiting for it.
        assert operator(implementation, suffix)(*wrong).isnan().all()
        backward, needs = operator(implementation, f"{suffix}_backward"), [True] * len(call.tensors)
        for deterministic in (False, True):
            grads = backward(call.grad_out, *wrong, deterministic, *needs)
            assert not any(grad.any() for grad in grads)


@each_implementation
@each_entry
def test_gradient_of_another_dtype_is_converted(implementation: str, form: Fused | None) -> None:
    # Autograd never passes one; whoever calls the operator itself may.
    call = make_call(Case(RAGGED, Storage(BF16), form))
    suffix, arguments = operator_arguments(call)
    backward, needs = operator(implementation, f"{suffix}_backward"), all_needed(call)
    got = backward(call.grad_out.double(), *arguments, *needs)
    expected = backward(call.grad_out, *arguments, *needs)
    torch.testing.assert_close(got, expected, rtol=0, atol=0)


def entry_of(call: Call) -> Callable[..., Tensor]:
    def forward(*tensors: Tensor) -> Tensor:
        named = dict(zip(call.tensors, tensors, strict=True))
        return call.entry(**named, **call.options)

    return forward


def forward_backward(function: Callable[..., Tensor], call: Call) -> list[Tensor]:
    leaves = [tensor.detach().requires_grad_() for tensor in call.tensors.values()]
    for leaf in leaves:
        torch._dynamo.mark_dynamic(leaf, 0)
    out = function(*leaves)
    return [out.detach(), *torch.autograd.grad(out, leaves, call.grad_out)]


@pytest.fixture
def fresh_compiler() -> None:
    torch._dynamo.reset()


@pytest.mark.parametrize("sizes_in_a_tensor", [False, True], ids=["sizes", "size_tensor"])
@each_entry
def test_compiles_whole_for_any_batch(
    fresh_compiler: None, deterministic: None, form: Fused | None, sizes_in_a_tensor: bool
) -> None:
    counter = CompileCounterWithBackend("aot_eager")
    compiled = None
    for batch in (2, 5, 3):
        call = make_call(Case(replace(RAGGED, batch=batch), fused=form))
        if sizes_in_a_tensor:
            call.options["levels"] = torch.tensor(call.options["levels"])
        compiled = compiled or torch.compile(entry_of(call), fullgraph=True, backend=counter)
        got = forward_backward(compiled, call)
        torch.testing.assert_close(got, list(run(call, "cpu").values()), rtol=0, atol=0)
    assert counter.frame_count == 1


@pytest.mark.slow
@each_entry
def test_compiles_with_inductor(fresh_compiler: None, form: Fused | None) -> None:
    call = make_call(Case(RAGGED, fused=form))
    # An operation before and after: the operator must fit between kernels that the compiler makes.
    forward = entry_of(call)
    compiled = torch.compile(lambda *t: forward(t[0] * 2, *t[1:]) + 1, fullgraph=True)
    output, *gradients = forward_backward(compiled, call)
    doubled = run(call.with_tensors(value=call.tensors["value"] * 2), "cpu")
    expected = list(doubled.values())
    torch.testing.assert_close(output, expected[0] + 1)
    torch.testing.assert_close(gradients, [expected[1] * 2, *expected[2:]])


class Attention(nn.Module):
    """The projections of a deformable attention layer around the plain entry."""

    def __init__(self, backend: str) -> None:
        super().__init__()
        self.backend = backend
        self.value = nn.Linear(8, 8)
        self.logits = nn.Linear(8, 8)

    def forward(self, features: Tensor, query: Tensor, locations: Tensor) -> Tensor:
        value = self.value(features).unflatten(-1, (2, 4))
        weights = self.logits(query).unflatten(-1, (2, 4)).softmax(-1, dtype=F32)
        self.dtypes = (value.dtype, locations.dtype, weights.dtype)
        return ms_deform_attn(
            value, ((3, 4), (2, 2)), locations, weights, points=2, backend=self.backend
        )


def test_autocast(kernel: Target) -> None:
    results = []
    for backend in (kernel.backend, "reference"):
        torch.manual_seed(0)
        layer = Attention(backend)
        locations = torch.rand(2, 3, 2, 4, 2).requires_grad_()
        with kernel.selected(), torch.autocast("cpu", torch.bfloat16):
            out = layer(torch.randn(2, 16, 8), torch.randn(2, 3, 8), locations)
            out.float().square().sum().backward()
        assert layer.dtypes == (BF16, F32, F32)
        results.append([out, locations.grad, *(p.grad for p in layer.parameters())])
    got, expected = results
    assert (got[0].dtype, got[1].dtype) == (BF16, F32)
    # Both sides round to bfloat16 at the same places: one step of it apart at most.
    torch.testing.assert_close(got, expected, rtol=2**-7, atol=2**-7)


def test_autocast_leaves_float32_alone(kernel: Target) -> None:
    call = make_call(Case(RAGGED))
    expected = kernel.run(call)["output"]
    with kernel.selected(), torch.autocast("cpu", torch.bfloat16):
        out = call.entry(**call.tensors, **call.options, backend=kernel.backend)
    torch.testing.assert_close(out, expected, rtol=0, atol=0)


def test_autograd_through_graph_breaks_and_checkpoints(kernel: Target, deterministic: None) -> None:
    call = make_call(Case(RAGGED))
    leaves = [tensor.detach().requires_grad_() for tensor in call.tensors.values()]
    call.options["backend"] = kernel.backend
    with kernel.selected():
        out = torch.utils.checkpoint.checkpoint(entry_of(call), *leaves, use_reentrant=False)
        gradients = torch.autograd.grad(out, leaves, call.grad_out)
    del call.options["backend"]
    expected = list(kernel.run(call).values())[1:]
    torch.testing.assert_close(list(gradients), expected, rtol=0, atol=0)


def of_value(call: Call, backend: str | None) -> Callable[[Tensor], Tensor]:
    rest = {name: tensor for name, tensor in call.tensors.items() if name != "value"}
    return lambda value: call.entry(value, **rest, **call.options, backend=backend)


def small_call(form: Fused | None) -> Call:
    return make_call(Case(Workload("small", 1, 2, 1, ((2, 3),), (2,), 2), fused=form))


def tangent(function: Callable[[Tensor], Tensor], value: Tensor) -> Tensor | None:
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(value, torch.ones_like(value))
        return forward_ad.unpack_dual(function(dual)).tangent


def gradient_of_vmap(function: Callable[[Tensor], Tensor], value: Tensor) -> Tensor:
    values = torch.stack([value, 2 * value]).requires_grad_()
    # The second term would hide a gradient that got lost.
    (torch.func.vmap(function)(values).square().sum() + values.sum()).backward()
    return values.grad


TRANSFORMS = {
    "forward_ad": tangent,
    "jvp": lambda function, value: torch.func.jvp(function, (value,), (value,))[1],
    "jacfwd": lambda function, value: torch.func.jacfwd(function)(value),
    "jacrev": lambda function, value: torch.func.jacrev(function)(value),
    "grad": lambda function, value: torch.func.grad(lambda x: function(x).square().sum())(value),
    "gradient_of_vmap": gradient_of_vmap,
}
each_transform = pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)


@each_entry
@each_transform
def test_transform_is_refused(
    kernel: Target, transform: Callable[..., Any], form: Fused | None
) -> None:
    # torch would drop the derivative of an operator that has no rule for a transform, in silence.
    call = small_call(form)
    with pytest.raises(
        RuntimeError, match=f"'{kernel.backend}' cannot run this call: .* torch.func"
    ):
        transform(of_value(call, kernel.backend), call.tensors["value"])


@each_entry
@each_transform
def test_transform_goes_to_a_backend_that_knows_it(
    transform: Callable[..., Any], form: Fused | None
) -> None:
    call = small_call(form)
    result = transform(of_value(call, None), call.tensors["value"])
    assert result.any()
    expected = transform(of_value(call, "reference"), call.tensors["value"])
    torch.testing.assert_close(result, expected, rtol=0, atol=0)


@each_entry
def test_no_grad_reaches_the_same_kernel(kernel: Target, form: Fused | None) -> None:
    # Calls that need no graph enter below autograd.
    call = make_call(Case(RAGGED, fused=form))
    expected = kernel.run(call)["output"]
    with kernel.selected(), torch.no_grad():
        out = call.entry(**call.tensors, **call.options, backend=kernel.backend)
    torch.testing.assert_close(out, expected, rtol=0, atol=0)
