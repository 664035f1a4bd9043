# SPDX-License-Identifier: Apache-2.0
"""The operator and the gradients of value, locations and weights."""

from core.timed_cases import bind
from core.verify import check_gradients


def test_forward_backward(case, round_number, contender, measure):
    """Check in the first round, then time."""
    bound = bind(case, contender)
    if round_number == 0:
        check_gradients(bound, case)
    measure("forward+backward", case, contender, bound.forward_backward)
