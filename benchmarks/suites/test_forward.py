# SPDX-License-Identifier: Apache-2.0
"""The operator alone, without a graph."""

from core.timed_cases import bind
from core.verify import check_forward


def test_forward(case, lap, row, measure):
    """Check on the first lap, then time."""
    bound = bind(case, row)
    if lap == 0:
        check_forward(bound, case)
    measure("forward", case, row, bound.forward)
