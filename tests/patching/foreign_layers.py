# SPDX-License-Identifier: Apache-2.0
"""The surfaces of attention layers that are not installed here, each with only the names, attributes and formulas that
``patch`` meets: Deformable DETR (and a clone's option), mmcv and detrex, RT-DETR, RT-DETRv2, D-FINE, RF-DETR,
BEVFormer, Grounding DINO. ``foreign_deim`` and ``foreign_rf_detr`` have what goes by the same names there with other
parameters.

The sampling underneath is one plain formula over ``grid_sample``, so every comparison is with code that shares nothing
with the op.
"""

import functools

import torch
from torch import nn
from torch.nn import functional


def sample_and_sum(value, shapes, locations, weights, method="default"):
    """value [B, S, M, D], per-level lists of locations [B, Q, M, P, 2] and weights [B, Q, M, P]."""
    levels = value.split([int(h) * int(w) for h, w in shapes], 1)
    total = 0
    for level, (height, width), place, weight in zip(
        levels, shapes, locations, weights, strict=True
    ):
        height, width = int(height), int(width)
        image = level.permute(0, 2, 3, 1).unflatten(-1, (height, width)).flatten(0, 1)
        grid = place.transpose(1, 2).flatten(0, 1)
        if method == "discrete":
            size = torch.tensor([width, height])
            pixel = (grid * size + 0.5).long().clamp(torch.zeros(2, dtype=torch.long), size - 1)
            grid = (pixel + 0.5) / size
        sampled = functional.grid_sample(
            image,
            2 * grid - 1,
            mode="nearest" if method == "discrete" else "bilinear",
            align_corners=False,
        )
        sampled = sampled.unflatten(0, (len(value), -1))  # [B, M, D, Q, P]
        total = total + torch.einsum("bmdqp,bqmp->bqmd", sampled, weight)
    return total.flatten(2)


def multi_scale_deformable_attn_pytorch(
    value, value_spatial_shapes, sampling_locations, attention_weights
):
    return sample_and_sum(
        value, value_spatial_shapes, sampling_locations.unbind(3), attention_weights.unbind(3)
    )


def deformable_attention_core_func(
    value, value_spatial_shapes, sampling_locations, attention_weights
):
    return multi_scale_deformable_attn_pytorch(
        value, value_spatial_shapes, sampling_locations, attention_weights
    )


def deformable_attention_core_func_v2(
    value,
    value_spatial_shapes,
    sampling_locations,
    attention_weights,
    num_points_list,
    method="default",
):
    if not isinstance(value, torch.Tensor):
        value = torch.cat(value, -1).permute(0, 3, 1, 2)
    locations = sampling_locations.split(num_points_list, 3)
    weights = attention_weights.split(num_points_list, 3)
    return sample_and_sum(value, value_spatial_shapes, locations, weights, method)


def ms_deform_attn_core_pytorch(value, value_spatial_shapes, sampling_locations, attention_weights):
    weights = attention_weights.view(sampling_locations.shape[:-1])
    return multi_scale_deformable_attn_pytorch(
        value.permute(0, 3, 1, 2), value_spatial_shapes, sampling_locations, weights
    )


ms_deform_attn_core_pytorch.__module__ = "rfdetr.models.ops.functions.ms_deform_attn_func"


class MSDeformAttnFunction(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx,
        value,
        value_spatial_shapes,
        value_level_start_index,
        sampling_locations,
        attention_weights,
        im2col_step,
    ):
        ctx.save_for_backward(value, value_spatial_shapes, sampling_locations, attention_weights)
        return multi_scale_deformable_attn_pytorch(
            value, value_spatial_shapes, sampling_locations, attention_weights
        )

    @staticmethod
    def backward(ctx, grad_output):
        value, shapes, locations, weights = ctx.saved_tensors
        leaves = [tensor.detach().requires_grad_() for tensor in (value, locations, weights)]
        with torch.enable_grad():
            output = multi_scale_deformable_attn_pytorch(leaves[0], shapes, leaves[1], leaves[2])
        gradients = torch.autograd.grad(output, leaves, grad_output)
        return gradients[0], None, None, gradients[1], gradients[2], None


MultiScaleDeformableAttnFunction_fp32 = MSDeformAttnFunction


def project(layer, query, features, padding_mask, heads, levels, points):
    """Value [B, S, M, D], offsets [B, Q, M, L, P, 2], weights [B, Q, M, L, P]."""
    value = layer.value_proj(features)
    if padding_mask is not None:
        value = value.masked_fill(padding_mask[..., None], 0.0)
    batch, queries, _ = query.shape
    offsets = layer.sampling_offsets(query).view(batch, queries, heads, levels, points, 2)
    weights = layer.attention_weights(query).view(batch, queries, heads, levels * points)
    weights = weights.softmax(-1).view(batch, queries, heads, levels, points)
    return value.view(batch, value.shape[1], heads, -1), offsets, weights


def locate(reference, offsets, shapes, by_pixel=False):
    """Locations [B, Q, M, L, P, 2] from 2-d or 4-d references [B, Q, L, 2|4]."""
    reference = reference[:, :, None, :, None]
    pixels = offsets / shapes.flip(-1)[:, None]
    if reference.shape[-1] == 2:
        return reference + pixels
    steps = pixels if by_pixel else offsets / offsets.shape[-2]
    return reference[..., :2] + steps * reference[..., 2:] * 0.5


def add_projections(layer, channels, heads, taps, *, all_four=True):
    layer.sampling_offsets = nn.Linear(channels, heads * taps * 2)
    layer.attention_weights = nn.Linear(channels, heads * taps)
    if all_four:
        layer.value_proj = nn.Linear(channels, channels)
        layer.output_proj = nn.Linear(channels, channels)


class MSDeformAttn(nn.Module):
    """Deformable DETR; ``options`` are the attributes that a clone adds."""

    def __init__(self, d_model=32, n_levels=2, n_heads=4, n_points=3, **options):
        super().__init__()
        self.im2col_step = 64
        self.d_model, self.n_levels = d_model, n_levels
        self.n_heads, self.n_points = n_heads, n_points
        for name, value in options.items():
            setattr(self, name, value)
        add_projections(self, d_model, n_heads, n_levels * n_points)

    def forward(
        self,
        query,
        reference_points,
        input_flatten,
        input_spatial_shapes,
        input_level_start_index,
        input_padding_mask=None,
    ):
        value, offsets, weights = project(
            self,
            query,
            input_flatten,
            input_padding_mask,
            self.n_heads,
            self.n_levels,
            self.n_points,
        )
        by_pixel = getattr(self, "use_4D_normalizer", False)
        locations = locate(reference_points, offsets, input_spatial_shapes, by_pixel)
        output = MSDeformAttnFunction.apply(
            value,
            input_spatial_shapes,
            input_level_start_index,
            locations,
            weights,
            self.im2col_step,
        )
        return self.output_proj(output)


class MultiScaleDeformableAttention(nn.Module):
    """mmcv and detrex; ``options`` are the attributes in which the two, and a clone, differ."""

    def __init__(self, batch_first=False, **options):
        super().__init__()
        self.im2col_step, self.batch_first = 64, batch_first
        self.num_heads, self.num_levels, self.num_points = 4, 2, 3
        self.dropout = nn.Dropout(0.5)
        for name, value in options.items():
            setattr(self, name, value)
        add_projections(self, 32, 4, 6)

    def forward(
        self,
        query,
        key=None,
        value=None,
        identity=None,
        query_pos=None,
        key_padding_mask=None,
        reference_points=None,
        spatial_shapes=None,
        level_start_index=None,
        **kwargs,
    ):
        identity = kwargs.get("residual", identity)
        value = query if value is None else value
        identity = query if identity is None else identity
        query = query if query_pos is None else query + query_pos
        if not self.batch_first:
            query, value = query.permute(1, 0, 2), value.permute(1, 0, 2)
        value, offsets, weights = project(
            self, query, value, key_padding_mask, self.num_heads, self.num_levels, self.num_points
        )
        locations = locate(reference_points, offsets, spatial_shapes)
        output = multi_scale_deformable_attn_pytorch(value, spatial_shapes, locations, weights)
        output = self.output_proj(output)
        if not self.batch_first:
            output = output.permute(1, 0, 2)
        return self.dropout(output) + identity


class RFDetrAttention(nn.Module):
    """RF-DETR's call of a function with the pixels last, under a class name of its own."""

    def __init__(self):
        super().__init__()
        add_projections(self, 32, 4, 6)

    def forward(self, query, reference_points, input_flatten, input_spatial_shapes):
        value, offsets, weights = project(self, query, input_flatten, None, 4, 2, 3)
        locations = locate(reference_points, offsets, input_spatial_shapes)
        return ms_deform_attn_core_pytorch(
            value.permute(0, 2, 3, 1), input_spatial_shapes, locations, weights.flatten(3)
        )


class MSDeformableAttention3D(nn.Module):
    """BEVFormer's choice of a promoting function."""

    def __init__(self):
        super().__init__()
        add_projections(self, 32, 4, 6)

    def forward(self, query, reference_points, value, spatial_shapes, level_start_index):
        value, offsets, weights = project(self, query, value, None, 4, 2, 3)
        locations = locate(reference_points, offsets, spatial_shapes)
        return MultiScaleDeformableAttnFunction_fp32.apply(
            value, spatial_shapes, level_start_index, locations, weights, 64
        )


class StoredCore(nn.Module):
    """RT-DETR, RT-DETRv2 and D-FINE: the constructor of the concrete class stores the function."""

    def __init__(self, num_points_list):
        super().__init__()
        self.num_points_list = list(num_points_list)
        add_projections(self, 32, 4, sum(num_points_list), all_four=False)

    def locate(self, query, reference_points):
        batch, queries, _ = query.shape
        offsets = self.sampling_offsets(query).view(batch, queries, 4, -1, 2)
        scale = torch.cat([torch.full((n, 1), 1 / n) for n in self.num_points_list])
        reference = reference_points[:, :, None]  # [B, Q, 1, 1, 4]
        weights = self.attention_weights(query).view(batch, queries, 4, -1).softmax(-1)
        return reference[..., :2] + offsets * scale * reference[..., 2:] * 0.5, weights


class SquareAttention(StoredCore):
    """RT-DETR: the same count of points on every level."""

    def __init__(self):
        super().__init__((3, 3))
        self.ms_deformable_attn_core = deformable_attention_core_func

    def forward(self, query, reference_points, value, value_spatial_shapes):
        locations, weights = self.locate(query, reference_points)
        return self.ms_deformable_attn_core(
            value.view(*value.shape[:2], 4, -1),
            value_spatial_shapes,
            locations.view(*locations.shape[:3], 2, -1, 2),
            weights.view(*weights.shape[:3], 2, -1),
        )


class GroundingAttention(nn.Module):
    """Grounding DINO: its forward names two functions and calls one of them."""

    def __init__(self):
        super().__init__()
        add_projections(self, 32, 4, 6)

    def forward(self, query, reference_points, value, spatial_shapes, level_start_index):
        value, offsets, weights = project(self, query, value, None, 4, 2, 3)
        locations = locate(reference_points, offsets, spatial_shapes)
        if value.is_cuda:
            return MSDeformAttnFunction.apply(
                value, spatial_shapes, level_start_index, locations, weights, 64
            )
        return multi_scale_deformable_attn_pytorch(value, spatial_shapes, locations, weights)


class MSDeformableAttention(StoredCore):
    """RT-DETRv2 hands over one value tensor, D-FINE (``per_level``) one per level."""

    def __init__(self, num_points_list=(3, 1), method="default", per_level=False):
        super().__init__(num_points_list)
        self.per_level = per_level
        self.ms_deformable_attn_core = functools.partial(
            deformable_attention_core_func_v2, method=method
        )

    def forward(self, query, reference_points, value, value_spatial_shapes):
        locations, weights = self.locate(query, reference_points)
        value = value.view(*value.shape[:2], 4, -1)
        if self.per_level:
            sizes = [height * width for height, width in value_spatial_shapes]
            value = value.permute(0, 2, 3, 1).split(sizes, -1)
        return self.ms_deformable_attn_core(
            value, value_spatial_shapes, locations, weights, self.num_points_list
        )
