# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from core.peers import CONTENDERS, OURS, PEERS, Contender
from core.timed_cases import CASES, QUICK_CASES, Bound, Case, bind, turns
from core.verify import check_forward, check_gradients, truth

from rtdetr_ops.ms_deform_attn.op import BACKENDS
from rtdetr_ops.testing.workloads import TINY, Workload

RAGGED = Workload("small_ragged", 2, 5, 2, ((4, 5), (2, 3)), (3, 1), 8)
DISCRETE = Workload("small_discrete", 2, 5, 2, ((4, 5), (2, 3)), (2, 2), 8, "discrete")
SMALL = tuple(pytest.param(w, id=w.name) for w in (TINY, RAGGED, DISCRETE))
EVERY_CONTENDER = tuple(pytest.param(contender, id=contender.name) for contender in CONTENDERS)
ABSENT = Contender("absent", lambda workload: torch.add, "a-distribution-nobody-has")


def test_every_backend_but_the_definition_takes_part():
    assert [contender.name for contender in OURS] == [
        f"rtdetr_ops {backend.name}" for backend in BACKENDS if backend.name != "reference"
    ]


def test_names_are_unique():
    assert len({contender.name for contender in CONTENDERS}) == len(CONTENDERS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("workload", SMALL)
@pytest.mark.parametrize("contender", EVERY_CONTENDER)
def test_contender_computes_the_operator(contender, workload, dtype):
    reason = contender.why_not(workload)
    if reason is not None:
        pytest.skip(reason)
    case = Case(workload, dtype, "ring")
    bound = bind(case, contender)
    check_forward(bound, case)
    check_gradients(bound, case)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("workload", SMALL)
@pytest.mark.parametrize("contender", EVERY_CONTENDER)
def test_contender_computes_the_fused_entry(contender, workload, dtype):
    reason = contender.why_not(workload)
    if reason is not None:
        pytest.skip(reason)
    case = Case(workload, dtype, "ring", fused=True)
    bound = bind(case, contender)
    check_forward(bound, case)
    check_gradients(bound, case)


def test_fused_inputs_are_the_plain_ones_before_softmax_and_locations():
    plain, fused = (Case(TINY, torch.float64, "ring", fused=fused) for fused in (False, True))
    for one, other in zip(truth(plain)[0], truth(fused)[0], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


def test_gathered_bytes_count_every_corner():
    # 1 image, 3 queries, 2 heads, 4 taps, 4 corners of 8 channels; a discrete point has one corner.
    assert Case(TINY, torch.bfloat16, "ring").gather_bytes == 3 * 2 * 4 * 4 * 8 * 2
    assert Case(DISCRETE, torch.float32, "ring").gather_bytes == 2 * 5 * 2 * 4 * 8 * 4


def test_a_contender_says_where_it_runs_and_why_it_is_missing():
    elsewhere = Contender("elsewhere", lambda workload: torch.add, devices=("cuda",))
    assert elsewhere.why_not(TINY) == "runs on cuda tensors only"
    assert elsewhere.why_not(TINY, "cuda") is None
    unbuilt = Contender("unbuilt", lambda workload: torch.add, missing="not built")
    assert unbuilt.why_not(TINY) == "not built"


def test_an_absent_peer_says_so():
    assert ABSENT.version() is None
    assert ABSENT.why_not(TINY) == "not installed"


def test_a_classic_contender_refuses_ragged_points_and_a_bilinear_one_the_discrete_mode():
    classic = Contender("classic", lambda workload: torch.add, classic=True)
    assert classic.why_not(TINY) is None
    assert classic.why_not(RAGGED) == "takes the same number of points on every level only"
    assert classic.why_not(DISCRETE) == "has no discrete mode"


@pytest.mark.parametrize("wrong", ["out", "grads"])
def test_a_wrong_contender_is_not_timed(wrong):
    case = Case(TINY, torch.float32, "ring")
    good = bind(case, PEERS[0])
    # Too large by one part in a thousand: far above rounding, far below what an eye would see.
    bad = Bound(good.leaves, good.grad_out, lambda *leaves: good.kernel(*leaves) * 1.001)
    check = {"out": check_forward, "grads": check_gradients}[wrong]
    check(good, case)
    with pytest.raises(AssertionError, match=r"error \d\.\de-\d+ of the largest entry"):
        check(bad, case)


@pytest.mark.parametrize("cases", [CASES, QUICK_CASES], ids=["all", "quick"])
def test_case_ids_are_unique(cases):
    assert len({case.id for case in cases}) == len(cases)


def test_contenders_take_turns_within_a_case():
    case = QUICK_CASES[0]
    items = list(turns((case,), once=False))
    able = [contender.name for contender in CONTENDERS if contender.why_not(case.workload) is None]
    assert [contender.name for _, _, contender in items] == able * case.rounds
    assert [number for _, number, _ in items] == [n for n in range(case.rounds) for _ in able]
