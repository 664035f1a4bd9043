# SPDX-License-Identifier: Apache-2.0
"""The surface of DEIM's attention, as ``foreign_layers``: the core of D-FINE's name with a parameter more."""

import functools

import foreign_layers
import torch


def deformable_attention_core_func_v2(
    value,
    value_spatial_shapes,
    sampling_locations,
    attention_weights,
    num_points_list,
    method="default",
    value_shape="default",
):
    if value_shape == "default":
        value = torch.cat(value, -1).permute(0, 3, 1, 2)
    locations = sampling_locations.split(num_points_list, 3)
    weights = attention_weights.split(num_points_list, 3)
    return foreign_layers.sample_and_sum(value, value_spatial_shapes, locations, weights, method)


class MSDeformableAttention(foreign_layers.StoredCore):
    """One value tensor per level, or one for all in the decoder that says ``value_shape="reshape"``."""

    def __init__(self, method="default", **bound):
        super().__init__((3, 1))
        self.reshapes = bound.get("value_shape") == "reshape"
        self.ms_deformable_attn_core = functools.partial(
            deformable_attention_core_func_v2, method=method, **bound
        )

    def forward(self, query, reference_points, value, value_spatial_shapes):
        locations, weights = self.locate(query, reference_points)
        value = value.unflatten(-1, (4, -1))
        if not self.reshapes:
            sizes = [height * width for height, width in value_spatial_shapes]
            value = value.permute(0, 2, 3, 1).split(sizes, -1)
        return self.ms_deformable_attn_core(
            value, value_spatial_shapes, locations, weights, self.num_points_list
        )
