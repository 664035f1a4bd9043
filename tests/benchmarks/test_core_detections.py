# SPDX-License-Identifier: Apache-2.0
from contextlib import nullcontext

import pytest
import torch
from core.detections import check_detections
from suites.end_to_end import check_same

TRUTH = (torch.zeros(1, 10, 3), torch.linspace(0, 0.9, 10)[None, :, None].expand(1, 10, 4))


@pytest.mark.parametrize(
    ("queries", "shift", "exact", "error"),
    [
        (10, 5e-4, True, None),
        (1, 2e-3, True, "a detection differs by 2.0e-03"),
        (10, 0.04, False, None),
        (1, 1.0, False, None),
        (2, 1.0, False, "finds 80% of the detections again"),
        (1, float("nan"), True, "a detection is not finite"),
        (1, float("nan"), False, "a detection is not finite"),
    ],
)
def test_a_detector_that_detects_something_else_is_not_timed(queries, shift, exact, error):
    logits, boxes = (tensor.clone() for tensor in TRUTH)
    boxes[:, -queries:] += shift
    outputs = (logits.flip(1), boxes.flip(1))  # queries may change places
    with pytest.raises(AssertionError, match=f"a: {error}") if error else nullcontext():
        check_detections("a", TRUTH, outputs, exact)


@pytest.mark.parametrize("shift", [1e-3, float("nan")])
@pytest.mark.parametrize("index", [0, 1], ids=["logits", "boxes"])
def test_a_patched_model_that_detects_something_else_is_not_timed(index, shift):
    patched = [tensor.clone() for tensor in TRUTH]
    assert check_same("a", TRUTH, patched) == 0
    patched[index][0, 3, 2] += shift
    with pytest.raises(AssertionError, match="a: patched outputs differ by"):
        check_same("a", TRUTH, patched)
