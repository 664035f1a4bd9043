# SPDX-License-Identifier: Apache-2.0
"""The table of backends: which backend runs, why the others do not, and how to choose."""

from __future__ import annotations

import subprocess
import sys
import warnings
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

import rtdetr_ops
from rtdetr_ops import _extension, backends, explain, use_backend
from rtdetr_ops._extension import CUDA_MISSING
from rtdetr_ops.backends import Backend, Support, explain_table, select, why_not
from rtdetr_ops.ms_deform_attn.op import BACKENDS
from rtdetr_ops.ms_deform_attn.triton_backend import TRITON
from rtdetr_ops.testing.tester import targets


class Never:
    """Functions that fail when they are called."""

    def run(self, *_: object) -> Tensor:
        raise AssertionError("select must not run a backend")

    run_fused = gradients = gradients_fused = run


def make_backend(name: str, **support: object) -> Backend:
    return Backend(name, Never(), Support(**support))


HALF_ONLY = make_backend("half_only", dtypes=(torch.float16, torch.bfloat16))
GPU = make_backend("gpu", devices=("cuda", "xpu"))
ABSENT = make_backend("absent", missing="its library is not in this installation")
ANY = make_backend("any")
TABLE = (GPU, ABSENT, HALF_ONLY, ANY)

FLOAT, HALF, META = torch.zeros(1), torch.zeros(1).half(), torch.zeros(1, device="meta")


@pytest.mark.parametrize(
    ("value", "expected"), [(FLOAT, ANY), (HALF, HALF_ONLY), (META.half(), HALF_ONLY)]
)
def test_first_row_that_can(value: Tensor, expected: Backend) -> None:
    assert select(TABLE, None, value) is expected


def test_a_name_overrides_the_order() -> None:
    assert select(TABLE, "any", HALF) is ANY


REASONS = [
    (GPU, FLOAT, "it runs on cuda or xpu tensors, and value is on cpu"),
    (GPU, META, "it runs on cuda or xpu tensors, and value is on meta"),
    (ABSENT, FLOAT, "its library is not in this installation"),
    (HALF_ONLY, FLOAT, "value must be one of float16, bfloat16, got float32"),
    (HALF_ONLY, FLOAT.double(), "value must be one of float16, bfloat16, got float64"),
    (ANY, FLOAT.to(torch.float8_e4m3fn), "value must be one of float64, float32, bfloat16, float16, got float8_e4m3fn"),
]  # fmt: skip


@pytest.mark.parametrize(("backend", "value", "reason"), REASONS)
def test_one_sentence_says_why_not(backend: Backend, value: Tensor, reason: str) -> None:
    assert why_not(backend.support, value) == reason
    with pytest.raises(RuntimeError) as refusal:
        select(TABLE, backend.name, value)
    assert str(refusal.value) == f"backend: {backend.name!r} cannot run this call: {reason}"


def test_an_absent_library_says_so_before_anything_else() -> None:
    support = replace(HALF_ONLY.support, missing="not built")
    assert why_not(support, FLOAT) == "not built"


def test_unknown_name() -> None:
    with pytest.raises(ValueError, match=r"^backend: expected one of 'gpu', 'any', got 'tpu'$"):
        select((GPU, ANY), "tpu", FLOAT)


def test_no_row_can() -> None:
    with pytest.raises(RuntimeError) as refusal:
        select((GPU, ABSENT), None, FLOAT)
    assert str(refusal.value) == (
        "no backend can run this call:\n"
        "  gpu: no, it runs on cuda or xpu tensors, and value is on cpu\n"
        "  absent: no, its library is not in this installation"
    )


def test_explanation() -> None:
    assert str(explain_table(TABLE, None, HALF)) == (
        "  gpu: no, it runs on cuda or xpu tensors, and value is on cpu\n"
        "  absent: no, its library is not in this installation\n"
        "  half_only: yes, taken\n"
        "  any: yes"
    )


def test_explanation_of_a_choice() -> None:
    assert (
        str(explain_table((HALF_ONLY, ANY), "any", HALF)) == "  half_only: yes\n  any: yes, taken"
    )


def test_explanation_for_programs() -> None:
    explanation = explain_table(TABLE, None, HALF)
    assert explanation.chosen == "half_only"
    assert explanation.reasons == {it.name: why_not(it.support, HALF) for it in TABLE}
    assert list(explanation.reasons) == ["gpu", "absent", "half_only", "any"]
    assert explain_table((GPU, ABSENT), None, FLOAT).chosen is None
    assert explain_table(TABLE, "gpu", FLOAT).chosen is None


def test_use_backend_nests_and_restores() -> None:
    with use_backend("any"):
        assert select(TABLE, None, HALF) is ANY
        with use_backend("half_only"):
            assert select(TABLE, None, HALF) is HALF_ONLY
            assert select(TABLE, "any", HALF) is ANY
        with use_backend(None):
            assert select(TABLE, None, HALF) is HALF_ONLY
        assert select(TABLE, None, HALF) is ANY
    assert select(TABLE, None, HALF) is HALF_ONLY


def test_use_backend_restores_after_an_error() -> None:
    with pytest.raises(KeyError), use_backend("any"):
        raise KeyError
    assert select(TABLE, None, HALF) is HALF_ONLY


def test_use_backend_reaches_the_operator() -> None:
    value, locations, weights = (
        torch.zeros(1, 4, 1, 2),
        torch.zeros(1, 1, 1, 1, 2),
        torch.zeros(1, 1, 1, 1),
    )
    with (
        use_backend("nowhere"),
        pytest.raises(
            ValueError, match="expected one of 'cuda', 'cpu', 'triton', 'reference', got 'nowhere'"
        ),
    ):
        rtdetr_ops.ms_deform_attn(value, ((2, 2),), locations, weights)
    with use_backend("reference"):
        assert explained(value)["reference"] == "yes, taken"


def test_slow_path_warns_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "_warned", set())
    slow = (GPU, make_backend("slow", fallback_devices=("cpu",)))
    with pytest.warns(
        UserWarning, match="no fused kernel for cpu tensors .* the slower 'slow' backend"
    ):
        select(slow, None, FLOAT)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        select(slow, None, FLOAT)
        select(slow, "slow", FLOAT)


def test_a_slow_path_asked_for_does_not_warn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "_warned", set())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        select((make_backend("slow", fallback_devices=("cpu",)),), "slow", FLOAT)


def explained(value: Tensor) -> dict[str, str]:
    """What ``explain`` says of each backend."""
    return dict(line.strip().split(": ", 1) for line in str(explain(value)).splitlines())


def test_only_a_tensor_can_be_explained() -> None:
    with pytest.raises(TypeError, match=r"^value: expected a tensor, got NoneType$"):
        explain(None)


def test_backends_of_the_operator() -> None:
    assert [backend.name for backend in BACKENDS] == ["cuda", "cpu", "triton", "reference"]
    on_cpu, on_meta = explained(FLOAT), explained(META)
    assert list(on_cpu) == list(on_meta) == ["cuda", "cpu", "triton", "reference"]
    assert (on_cpu["cpu"], on_cpu["reference"]) == ("yes, taken", "yes")
    assert on_meta["cpu"] == "no, it runs on cpu tensors, and value is on meta"
    assert on_meta["reference"] == "yes, taken"


@pytest.mark.skipif(TRITON.missing is not None, reason=str(TRITON.missing))
def test_triton_kernels_are_for_tensors_on_a_gpu() -> None:
    with FakeTensorMode():
        value = torch.empty(1, device="cuda")
    assert why_not(TRITON, value) is None
    if CUDA_MISSING is None:
        assert explained(value)["cuda"] == "yes, taken"
        assert explained(value)["triton"] == "yes"
    else:
        assert explained(value)["triton"] == "yes, taken"


@pytest.mark.skipif(CUDA_MISSING is not None, reason=str(CUDA_MISSING))
def test_cuda_kernels_are_for_tensors_on_a_gpu() -> None:
    sentence = "it runs on cuda tensors, and value is on cpu"
    assert explained(FLOAT)["cuda"] == f"no, {sentence}"
    with pytest.raises(RuntimeError, match=f"^backend: 'cuda' cannot run this call: {sentence}$"):
        select(BACKENDS, "cuda", FLOAT)


@pytest.mark.parametrize(("capability", "runs"), [((7, 5), False), ((8, 0), True), ((12, 0), True)])
def test_an_old_gpu_is_told_so(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], runs: bool
) -> None:
    monkeypatch.setattr(backends, "_capability", lambda device: capability)
    with FakeTensorMode():
        value = torch.empty(1, device="cuda")
    support = Support(devices=("cuda",), capability=(8, 0))
    reason = "it needs compute capability 8.0 or newer, and cuda:0 has 7.5"
    assert why_not(support, value) == (None if runs else reason)


def test_without_the_library_the_reference_runs() -> None:
    *compiled, reference = BACKENDS
    absent = [replace(it, support=replace(it.support, missing="not built")) for it in compiled]
    table = (*absent, reference)
    assert select(table, None, FLOAT) is reference
    for backend in compiled:
        reason = f"^backend: '{backend.name}' cannot run this call: not built$"
        with pytest.raises(RuntimeError, match=reason):
            select(table, backend.name, FLOAT)


def test_missing_library_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_extension, "MISSING", "not built")
    assert rtdetr_ops.build_info() == {"compiled": False, "reason": "not built"}
    with pytest.raises(RuntimeError, match=r"^not built$"):
        rtdetr_ops.use_cpu_isa("baseline")


@pytest.mark.skipif(
    all(target.isa is None for target in targets()), reason="there are no CPU kernels in this build"
)
def test_build_info_names_the_instruction_set() -> None:
    widest = rtdetr_ops.build_info()["cpu"]
    rtdetr_ops.use_cpu_isa("baseline")
    assert rtdetr_ops.build_info()["cpu"] == "baseline"
    rtdetr_ops.use_cpu_isa(None)
    assert rtdetr_ops.build_info()["cpu"] == widest
    with pytest.raises(ValueError, match=r'^isa: expected one that .* got "neon"$'):
        rtdetr_ops.use_cpu_isa("neon")
    assert rtdetr_ops.build_info()["cpu"] == widest


def run_python(code: str) -> str:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", ["", "reference", "cpu"])
def test_environment_variable(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RTDETR_OPS_BACKEND", name)
    code = "import torch, rtdetr_ops; print(rtdetr_ops.explain(torch.zeros(1)))"
    explained = run_python(code)
    assert f"  {name or 'cpu'}: yes, taken\n" in f"{explained}\n"
    assert explained.count("taken") == 1


@pytest.mark.slow
def test_a_missing_library_leaves_a_working_package() -> None:
    code = (
        "import importlib.util as u\n"
        "find = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'rtdetr_ops._C' else find(name, *a)\n"
        "import torch, rtdetr_ops\n"
        "print(rtdetr_ops.explain(torch.zeros(1)))\n"
        "out = rtdetr_ops.ms_deform_attn(torch.ones(1, 4, 1, 2), ((2, 2),),\n"
        "    torch.full((1, 1, 1, 1, 2), 0.5), torch.ones(1, 1, 1, 1))\n"
        "print(out.flatten().tolist())\n"
    )
    missing = "no, the compiled library is not in this installation (pip install . builds it)"
    *lines, result = run_python(code).splitlines()
    assert lines[:2] == [f"  cuda: {missing}", f"  cpu: {missing}"]
    assert (lines[-1], result) == ("  reference: yes, taken", "[1.0, 1.0]")
