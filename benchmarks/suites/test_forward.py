# SPDX-License-Identifier: Apache-2.0
"""The operator alone, without a graph."""

from core.timed_cases import bind
from core.verify import check_forward


def test_forward(case, round_number, contender, measure):
    """Check in the first round, then time."""
    bound = bind(case, contender)
    if round_number == 0:
        check_forward(bound, case)
    measure("forward", case, contender, bound.forward)
