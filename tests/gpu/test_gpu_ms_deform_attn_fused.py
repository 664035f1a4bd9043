# SPDX-License-Identifier: Apache-2.0
"""The tests of the fused entry in tests/ops that compare with a tolerance, on the GPU."""

from test_ms_deform_attn_fused import (
    test_channels,
    test_detector,
    test_dtypes,
    test_dtypes_of_a_point_per_level,
    test_empty,
    test_everything_masked_is_zero,
    test_extreme_logits,
    test_is_the_plain_entry_after_softmax,
    test_layout,
    test_non_finite_location_has_zero_gradients,
    test_non_finite_location_is_zero,
    test_non_finite_location_keeps_its_share_of_the_softmax,
    test_outside_is_zero,
    test_outside_points_leave_the_softmax_alone,
    test_points_on_pixel_borders,
    test_reference_forms,
    test_shape,
)

__all__ = [
    "test_channels",
    "test_detector",
    "test_dtypes",
    "test_dtypes_of_a_point_per_level",
    "test_empty",
    "test_everything_masked_is_zero",
    "test_extreme_logits",
    "test_is_the_plain_entry_after_softmax",
    "test_layout",
    "test_non_finite_location_has_zero_gradients",
    "test_non_finite_location_is_zero",
    "test_non_finite_location_keeps_its_share_of_the_softmax",
    "test_outside_is_zero",
    "test_outside_points_leave_the_softmax_alone",
    "test_points_on_pixel_borders",
    "test_reference_forms",
    "test_shape",
]
