# SPDX-License-Identifier: Apache-2.0
"""The search for block sizes in tests/ops, with the clock of the GPU."""

from test_triton_tuning import clock, test_gradients_are_those_of_one_run

__all__ = ["clock", "test_gradients_are_those_of_one_run"]
