# SPDX-License-Identifier: Apache-2.0
"""The surface of RF-DETR 1.11's attention, as ``foreign_layers``: the shapes come on the host too."""

import foreign_layers


def ms_deform_attn_core_pytorch(
    value,
    value_spatial_shapes,
    sampling_locations,
    attention_weights,
    value_spatial_shapes_hw=None,
):
    return foreign_layers.ms_deform_attn_core_pytorch(
        value,
        value_spatial_shapes if value_spatial_shapes_hw is None else value_spatial_shapes_hw,
        sampling_locations,
        attention_weights,
    )


ms_deform_attn_core_pytorch.__module__ = "rfdetr.models.ops.functions.ms_deform_attn_func"


class MSDeformAttn(foreign_layers.MSDeformAttn):
    def __init__(self, **options):
        super().__init__(_export=False, **options)

    def forward(
        self,
        query,
        reference_points,
        input_flatten,
        input_spatial_shapes,
        input_level_start_index,
        input_padding_mask=None,
        input_spatial_shapes_hw=None,
    ):
        value, offsets, weights = foreign_layers.project(
            self, query, input_flatten, input_padding_mask, 4, 2, 3
        )
        output = ms_deform_attn_core_pytorch(
            value.permute(0, 2, 3, 1),
            input_spatial_shapes,
            foreign_layers.locate(reference_points, offsets, input_spatial_shapes),
            weights.flatten(3),
            input_spatial_shapes_hw,
        )
        return self.output_proj(output)
