# SPDX-License-Identifier: Apache-2.0
"""The layer: Deformable DETR's parameters, initialization and results, and what it adds."""

import math

import numpy as np
import pytest
import torch
from cases import freed

from rtdetr_ops import ms_deform_attn
from rtdetr_ops.ms_deform_attn.module import MSDeformAttn

LEVELS = [(5, 8), (3, 4), (1, 2)]
PIXELS = 54


def expected(layer, query, reference, features, levels, padding_mask, counts):
    """The layer written out: project, mask, softmax over all points, place them, sample on the reference backend."""
    heads, taps = layer.n_heads, sum(counts)
    value = layer.value_proj(features)
    if padding_mask is not None:
        value = value.masked_fill(padding_mask[..., None], 0.0)
    offsets = layer.sampling_offsets(query).view(*query.shape[:2], heads, taps, 2)
    weights = layer.attention_weights(query).view(*query.shape[:2], heads, taps).softmax(-1)
    level_of = [level for level, count in enumerate(counts) for _ in range(count)]
    # [B, Q, 1, T, 2|4]
    references = reference.expand(-1, -1, len(levels), -1)[:, :, None, level_of]
    if reference.shape[-1] == 2:
        size = torch.tensor([[levels[level][1], levels[level][0]] for level in level_of])
        locations = references + offsets / size
    else:
        share = torch.tensor([[1.0 / counts[level]] for level in level_of])
        locations = references[..., :2] + offsets * share * references[..., 2:] * layer.offset_scale
    attended = ms_deform_attn(
        value.unflatten(-1, (heads, -1)),
        levels,
        locations,
        weights,
        points=counts,
        mode=layer.mode,
        backend="reference",
    )
    return layer.output_proj(attended)


def inputs(layer, last, padded):
    """A layer that attends everywhere, and its arguments."""
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    reference = torch.rand(2, 7, 3, last) * 1.2 - 0.1
    mask = None
    if padded:
        mask = torch.rand(2, PIXELS) < 0.3
    return torch.randn(2, 7, 32), reference, torch.randn(2, PIXELS, 32), LEVELS, mask


CASES = {
    "points": ({"n_points": 4}, 2, False),
    "boxes": ({"n_points": 4}, 4, False),
    "points_padding": ({"n_points": 4}, 2, True),
    "boxes_padding": ({"n_points": 4}, 4, True),
    "ragged_points": ({"n_points": [3, 6, 0]}, 2, True),
    "ragged_boxes": ({"n_points": [3, 6, 1], "offset_scale": 1.0}, 4, False),
    "discrete": ({"n_points": 4, "mode": "discrete"}, 4, False),
}


@pytest.mark.parametrize("name", CASES)
def test_layer_equals_its_formula(name):
    options, last, padded = CASES[name]
    torch.manual_seed(0)
    layer = MSDeformAttn(32, 3, 4, **options)
    query, reference, features, levels, mask = inputs(layer, last, padded)
    counts = options["n_points"]
    counts = [counts] * 3 if isinstance(counts, int) else counts

    def run(forward):
        layer.zero_grad()
        output = forward()
        output.square().sum().backward()
        gradients = {key: p.grad for key, p in layer.named_parameters() if p.grad is not None}
        return {"output": output.detach(), **gradients}

    truth = run(lambda: expected(layer, query, reference, features, levels, mask, counts))
    result = run(lambda: layer(query, reference, features, levels, None, mask))
    torch.testing.assert_close(result, truth, rtol=1e-4, atol=1e-4)


def test_tensor_levels_and_start_index_are_accepted():
    torch.manual_seed(0)
    layer = MSDeformAttn(32, 3, 4)
    query, reference, features, levels, _ = inputs(layer, 2, False)
    classic = layer(query, reference, features, torch.tensor(levels), torch.tensor([0, 40, 52]))
    torch.testing.assert_close(classic, layer(query, reference, features, levels), rtol=0, atol=0)


def test_padding_hides_what_is_in_the_padded_pixels():
    torch.manual_seed(0)
    layer = MSDeformAttn(32, 3, 4)
    query, reference, features, levels, mask = inputs(layer, 2, True)
    before = layer(query, reference, features, levels, None, mask)
    features[mask] = 100.0
    torch.testing.assert_close(layer(query, reference, features, levels, None, mask), before)
    assert not torch.allclose(layer(query, reference, features, levels), before)


class OneProduct(MSDeformAttn):
    """Offsets and logits from one matrix product."""

    def project(self, query):
        pair = (self.sampling_offsets, self.attention_weights)
        weight = torch.cat([linear.weight for linear in pair])
        bias = torch.cat([linear.bias for linear in pair])
        return torch.nn.functional.linear(query, weight, bias).split(
            [linear.out_features for linear in pair], -1
        )


def test_subclass_may_project_in_its_own_way():
    torch.manual_seed(0)
    layer, merged = MSDeformAttn(32, 3, 4, [3, 6, 1]), OneProduct(32, 3, 4, [3, 6, 1])
    query, reference, features, levels, mask = inputs(layer, 4, True)
    merged.load_state_dict(layer.state_dict())
    given = merged(query, reference, features, levels, None, mask)
    torch.testing.assert_close(given, layer(query, reference, features, levels, None, mask))
    merged.project = lambda query: tuple(x.new_zeros(x.shape) for x in layer.project(query))
    changed = merged(query, reference, features, levels, None, mask)
    assert not torch.allclose(changed, given)


def test_state_dict_is_that_of_deformable_detr():
    state = MSDeformAttn(256, 4, 8, 4).state_dict()
    assert {key: list(value.shape) for key, value in state.items()} == {
        "sampling_offsets.weight": [256, 256],
        "sampling_offsets.bias": [256],
        "attention_weights.weight": [128, 256],
        "attention_weights.bias": [128],
        "value_proj.weight": [256, 256],
        "value_proj.bias": [256],
        "output_proj.weight": [256, 256],
        "output_proj.bias": [256],
    }


def test_defaults_are_those_of_deformable_detr():
    layer = MSDeformAttn()
    assert (layer.d_model, layer.n_levels, layer.n_heads, layer.n_points) == (256, 4, 8, 4)


def test_transformers_of_this_family_can_reset_it():
    layer = MSDeformAttn(32, 3, 4)
    torch.manual_seed(0)
    layer.reset_parameters()
    expected = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    with torch.no_grad():
        layer.sampling_offsets.bias.zero_()
    torch.manual_seed(0)
    layer._reset_parameters()
    torch.testing.assert_close(layer.state_dict(), expected, rtol=0, atol=0)


def test_step_of_the_original_is_there_and_changes_nothing():
    torch.manual_seed(0)
    layer = MSDeformAttn(32, 3, 4)
    arguments = inputs(layer, 2, False)[:4]
    expected = layer(*arguments)
    assert layer.im2col_step == 64
    layer.im2col_step = 7
    torch.testing.assert_close(layer(*arguments), expected, rtol=0, atol=0)


def test_one_reference_and_one_mask_serve_all_images():
    torch.manual_seed(0)
    layer = MSDeformAttn(32, 3, 4)
    query, reference, features, levels, mask = inputs(layer, 2, True)
    one = (reference[:1], features, levels, None, mask[:1])
    each = (reference[:1].expand(2, -1, -1, -1), features, levels, None, mask[:1].expand(2, -1))
    torch.testing.assert_close(layer(query, *one), layer(query, *each), rtol=0, atol=0)


def test_offsets_start_as_a_star():
    bias = MSDeformAttn(32, 2, 8, [3, 1]).sampling_offsets.bias.view(8, 4, 2)
    directions = [(1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1)]
    steps = [1, 2, 3, 1]  # they count anew on each level
    star = [[(x * step, y * step) for step in steps] for x, y in directions]
    torch.testing.assert_close(bias, torch.tensor(star, dtype=torch.float32))


def test_projections_start_as_deformable_detr_draws_them():
    torch.manual_seed(3)
    layer = MSDeformAttn(32, 2, 4, 3)
    torch.manual_seed(3)
    for shape in [
        (48, 32),
        (24, 32),
        (32, 32),
        (32, 32),
    ]:  # the four nn.Linear, before they are reset
        torch.nn.Linear(*shape[::-1])
    value = torch.nn.init.xavier_uniform_(torch.empty(32, 32))
    output = torch.nn.init.xavier_uniform_(torch.empty(32, 32))
    torch.testing.assert_close(layer.value_proj.weight, torch.nn.Parameter(value), rtol=0, atol=0)
    torch.testing.assert_close(layer.output_proj.weight, torch.nn.Parameter(output), rtol=0, atol=0)
    assert layer.value_proj.weight.abs().max() <= math.sqrt(6 / 64)
    for zero in ("sampling_offsets.weight", "attention_weights.weight", "value_proj.bias"):
        assert not layer.get_parameter(zero).any()


def test_discrete_layer_freezes_its_offsets_and_nothing_else():
    layer = MSDeformAttn(32, 2, 4, 3, mode="discrete")
    frozen = {key for key, parameter in layer.named_parameters() if not parameter.requires_grad}
    assert frozen == {"sampling_offsets.weight", "sampling_offsets.bias"}
    assert all(parameter.requires_grad for parameter in MSDeformAttn(32, 2, 4, 3).parameters())


ERRORS = {
    "channels": ({"d_model": 30, "n_heads": 4}, r"d_model: .* multiple of n_heads=4, got 30"),
    "no_channels": ({"d_model": 0}, r"d_model: expected an int >= 1, got 0"),
    "half_channels": ({"d_model": 31.5}, r"d_model: expected an int, got 31.5"),
    "heads": ({"n_heads": 0}, r"n_heads: expected an int >= 1, got 0"),
    "boolean_heads": ({"n_heads": True}, r"n_heads: expected an int, got True"),
    "levels": ({"n_levels": 0}, r"n_levels: expected an int >= 1, got 0"),
    "levels_text": ({"n_levels": "4"}, r"n_levels: expected an int, got '4'"),
    "half_count": ({"n_points": 2.5}, r"n_points: expected an int or one int per level, got 2.5"),
    "boolean_count": ({"n_points": True}, r"n_points: expected an int or one int per level, got T"),
    "too_few_counts": ({"n_points": [4, 4]}, r"n_points: expected 4 counts, .* got 2"),
    "negative_count": ({"n_points": [4, 4, 4, -1]}, r"n_points: .* got \[4, 4, 4, -1\]"),
    "no_points": ({"n_points": 0}, r"n_points: .* not all 0, got 0"),
    "offset_scale": ({"offset_scale": "x"}, "offset_scale: expected a number, got 'x'"),
    "mode": ({"mode": "nearest"}, r"mode: expected one of 'bilinear', 'discrete', got 'nearest'"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_bad_constructor_argument(name):
    options, message = ERRORS[name]
    with pytest.raises((TypeError, ValueError), match=f"^{message}"):
        MSDeformAttn(**options)


def test_numbers_of_numpy_build_the_same_layer():
    torch.manual_seed(0)
    expected = MSDeformAttn(32, 3, 4, [3, 6, 1])
    torch.manual_seed(0)
    layer = MSDeformAttn(*map(np.int64, (32, 3, 4)), np.array([3, 6, 1]))
    assert str(layer) == str(expected)
    torch.testing.assert_close(layer.state_dict(), expected.state_dict(), rtol=0, atol=0)
    assert MSDeformAttn(32, 3, 4, np.int64(2)).n_points == 2


BAD_INPUTS = {
    "query": ({"query": None}, "query: expected a tensor, got NoneType"),
    "query_axes": (
        {"query": torch.rand(7, 32)},
        r"query: expected shape \[B, Q, C=32\], got \[7, 32\]",
    ),
    "query_channels": (
        {"query": torch.rand(2, 7, 16)},
        r"query: expected shape \[B, Q, C=32\], got \[2, 7, 16\]",
    ),
    "features": ({"input_flatten": [1]}, "input_flatten: expected a tensor, got list"),
    "features_axes": (
        {"input_flatten": torch.rand(PIXELS, 32)},
        r"input_flatten: expected shape \[B=2, S, C=32\], got \[54, 32\]",
    ),
    "features_of_one_image": (
        {"input_flatten": torch.rand(1, PIXELS, 32)},
        r"input_flatten: expected shape \[B=2, S, C=32\], got \[1, 54, 32\]",
    ),
    "reference": (
        {"reference_points": torch.rand(2, 7, 3, 3)},
        r"reference: .* got \[2, 7, 3, 3\]",
    ),
    "levels": ({"input_spatial_shapes": None}, "levels: expected L pairs"),
    "start": (
        {"input_level_start_index": torch.tensor([0, 40, 53])},
        r"level_start_index: expected \[0, 40, 52\], .* got \[0, 40, 53\]",
    ),
    "freed_start": (
        {"input_level_start_index": freed(torch.tensor([0, 40, 52]))},
        "level_start_index: expected a tensor with memory, got one whose storage was freed",
    ),
    "mask": ({"input_padding_mask": [1]}, "input_padding_mask: expected a tensor, got list"),
}


@pytest.mark.parametrize("name", BAD_INPUTS)
def test_bad_input(name):
    change, message = BAD_INPUTS[name]
    inputs = {
        "query": torch.rand(2, 7, 32),
        "reference_points": torch.rand(2, 7, 3, 2),
        "input_flatten": torch.rand(2, PIXELS, 32),
        "input_spatial_shapes": LEVELS,
    }
    with pytest.raises((TypeError, ValueError), match=f"^{message}"):
        MSDeformAttn(32, 3, 4)(**inputs | change)


def test_compiles_as_one_graph_under_a_default_device():
    torch.manual_seed(0)
    torch.compiler.reset()
    layer = MSDeformAttn(32, 3, 4)
    query, reference, features, levels, mask = inputs(layer, 2, True)
    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    with torch.device("cpu"):
        found = compiled(query, reference, features, levels, None, mask)
    expected = layer(query, reference, features, levels, None, mask)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize("model", [MSDeformAttn(32, 3, 4), torch.nn.Sequential(OneProduct())])
def test_script_says_what_to_use_instead(model):
    with pytest.raises(
        TypeError, match=r"torch\.jit\.script does not take it; use torch.jit.trace"
    ):
        torch.jit.script(model)
