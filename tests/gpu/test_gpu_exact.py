# SPDX-License-Identifier: Apache-2.0
"""The tests of tests/ops that compare bit by bit, on the GPU: what the order of atomics cannot disturb."""

import pytest
import test_determinism
import test_ms_deform_attn as plain
import test_ms_deform_attn_fused as fused

pytestmark = pytest.mark.usefixtures("deterministic")

test_non_finite_location_spares_its_neighbors = plain.test_non_finite_location_spares_its_neighbors
test_untouched_pixel_does_not_leak = plain.test_untouched_pixel_does_not_leak
test_classic_axes = plain.test_classic_axes
test_levels_as_a_tensor_and_points_as_one_count = (
    plain.test_levels_as_a_tensor_and_points_as_one_count
)
test_fused_classic_axes = fused.test_classic_axes
test_fused_levels_as_a_tensor = fused.test_levels_as_a_tensor
test_masked_pixel_counts_as_zero = fused.test_masked_pixel_counts_as_zero
test_any_order_of_images = test_determinism.test_any_order_of_images
test_an_image_does_not_depend_on_its_batch = (
    test_determinism.test_an_image_does_not_depend_on_its_batch
)
