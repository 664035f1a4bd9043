# SPDX-License-Identifier: Apache-2.0
"""The tests of tests/ops that go through every 16-bit number, on the GPU; they make tensors where they are told."""

import pytest
from test_ms_deform_attn import test_a_nan_of_any_bits_stays_one, test_every_number_of_16_bits

pytestmark = pytest.mark.usefixtures("default_device")

__all__ = ["test_a_nan_of_any_bits_stays_one", "test_every_number_of_16_bits"]
