# SPDX-License-Identifier: Apache-2.0
"""The tests of the plain entry in tests/ops that compare with a tolerance, on the GPU."""

from test_ms_deform_attn import (
    test_bilinear_by_hand,
    test_channels,
    test_detector,
    test_detector_at_640,
    test_discrete_by_hand,
    test_discrete_outside_is_the_border,
    test_dtypes,
    test_empty,
    test_layout,
    test_non_finite_location_is_zero,
    test_one_channel_out_of_two,
    test_outside_is_zero,
    test_points_on_pixel_borders,
    test_shape,
)

__all__ = [
    "test_bilinear_by_hand",
    "test_channels",
    "test_detector",
    "test_detector_at_640",
    "test_discrete_by_hand",
    "test_discrete_outside_is_the_border",
    "test_dtypes",
    "test_empty",
    "test_layout",
    "test_non_finite_location_is_zero",
    "test_one_channel_out_of_two",
    "test_outside_is_zero",
    "test_points_on_pixel_borders",
    "test_shape",
]
