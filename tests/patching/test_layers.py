# SPDX-License-Identifier: Apache-2.0
"""Layers of libraries that are not installed: recognized, equal with and without the op, restored."""

import copy
import pickle

import foreign_deim
import foreign_layers as foreign
import foreign_rf_detr
import pytest
import torch
from torch import nn

import rtdetr_ops
from rtdetr_ops.ms_deform_attn import module
from rtdetr_ops.patching import patch, unpatch

SHAPES = torch.tensor([[5, 7], [3, 2]])
START = torch.tensor([0, 35])
PIXELS = 41

MMCV = {"embed_dims": 32, "norm_cfg": None, "init_cfg": None}
DETREX = {"embed_dim": 32}


def references(last, batch=2, queries=6):
    return torch.rand(batch, queries, 2, last) * 1.4 - 0.2  # some points fall off the image


def padding():
    mask = torch.zeros(2, PIXELS, dtype=torch.bool)
    mask[1, 30:] = True
    return mask


def deformable_detr_inputs(last=2, mask=None, **shared):
    return (
        torch.randn(2, 6, 32),
        references(last, **shared),
        torch.randn(2, PIXELS, 32),
        SHAPES,
        START,
        mask,
    )


def mmcv_inputs(batch_first=False, **changes):
    query, pos, memory = torch.randn(2, 6, 32), torch.randn(2, 6, 32), torch.randn(2, PIXELS, 32)
    tokens = (
        [query, pos, memory] if batch_first else [t.transpose(0, 1) for t in (query, pos, memory)]
    )
    return {
        "query": tokens[0],
        "query_pos": tokens[1],
        "value": tokens[2],
        "reference_points": references(2),
        "spatial_shapes": SHAPES,
        "level_start_index": START,
        **changes,
    }


def call(layer, inputs):
    return layer(**inputs) if isinstance(inputs, dict) else layer(*inputs)


def seeded(build):
    torch.manual_seed(0)
    return build()


def results(layer, inputs):
    """The output and the gradient of every parameter."""
    layer.zero_grad()
    output = call(layer, inputs)
    output.square().sum().backward()
    gradients = {name: p.grad for name, p in layer.named_parameters() if p.grad is not None}
    return {"output": output.detach(), **gradients}


FORWARD, CORE = "forward, on these layers", "ms_deformable_attn_core, on these layers"
FUNCTION = "function {}, for the whole process".format

CASES = {
    "deformable_detr_points": (foreign.MSDeformAttn, deformable_detr_inputs, FORWARD),
    "deformable_detr_boxes": (foreign.MSDeformAttn, lambda: deformable_detr_inputs(4), FORWARD),
    "deformable_detr_padding": (
        foreign.MSDeformAttn,
        lambda: deformable_detr_inputs(2, padding()),
        FORWARD,
    ),
    "deformable_detr_one_reference": (
        foreign.MSDeformAttn,
        lambda: deformable_detr_inputs(batch=1, queries=1),
        FORWARD,
    ),
    "deformable_detr_one_mask": (
        foreign.MSDeformAttn,
        lambda: deformable_detr_inputs(mask=padding()[1:]),
        FORWARD,
    ),
    "deformable_detr_mask_without_batch": (
        foreign.MSDeformAttn,
        lambda: deformable_detr_inputs(mask=padding()[1]),
        FORWARD,
    ),
    "deformable_detr_mask_of_images": (
        foreign.MSDeformAttn,
        lambda: deformable_detr_inputs(mask=torch.tensor([[False], [True]])),
        FORWARD,
    ),
    "clone_one_reference": (
        lambda: foreign.MSDeformAttn(ratio=1.0),
        lambda: deformable_detr_inputs(batch=1),
        FUNCTION("MSDeformAttnFunction"),
    ),
    "rf_detr_layer_later": (foreign_rf_detr.MSDeformAttn, deformable_detr_inputs, FORWARD),
    "rf_detr_layer_later_on_host": (
        foreign_rf_detr.MSDeformAttn,
        lambda: (*deformable_detr_inputs(4, padding()), SHAPES.tolist()),
        FORWARD,
    ),
    "rf_detr_clone_later": (
        lambda: foreign_rf_detr.MSDeformAttn(option=1),
        lambda: (*deformable_detr_inputs(), SHAPES.tolist()),
        FUNCTION("ms_deform_attn_core_pytorch"),
    ),
    "rf_detr_layer": (
        lambda: foreign.MSDeformAttn(_export=False),
        lambda: deformable_detr_inputs(4),
        FORWARD,
    ),
    "dino_option": (
        lambda: foreign.MSDeformAttn(use_4D_normalizer=True),
        lambda: deformable_detr_inputs(4),
        FUNCTION("MSDeformAttnFunction"),
    ),
    "mmcv": (lambda: foreign.MultiScaleDeformableAttention(**MMCV), mmcv_inputs, FORWARD),
    "mmcv_batch_first": (
        lambda: foreign.MultiScaleDeformableAttention(True, **MMCV),
        lambda: mmcv_inputs(True, identity=torch.randn(2, 6, 32)),
        FORWARD,
    ),
    "mmcv_one_reference": (
        lambda: foreign.MultiScaleDeformableAttention(**MMCV),
        lambda: mmcv_inputs(reference_points=references(4, batch=1)),
        FORWARD,
    ),
    "mmcv_residual": (
        lambda: foreign.MultiScaleDeformableAttention(**MMCV),
        lambda: mmcv_inputs(residual=torch.randn(6, 2, 32)),
        FORWARD,
    ),
    "mmcv_byte_padding": (
        lambda: foreign.MultiScaleDeformableAttention(**MMCV),
        lambda: mmcv_inputs(key_padding_mask=padding()),
        FORWARD,
    ),
    "detrex": (lambda: foreign.MultiScaleDeformableAttention(**DETREX), mmcv_inputs, FORWARD),
    "mmcv_clone_with_an_option": (
        lambda: foreign.MultiScaleDeformableAttention(**MMCV, value_scale=2),
        mmcv_inputs,
        FUNCTION("multi_scale_deformable_attn_pytorch"),
    ),
    "rf_detr_function": (
        foreign.RFDetrAttention,
        lambda: deformable_detr_inputs(4)[:4],
        FUNCTION("ms_deform_attn_core_pytorch"),
    ),
    "grounding_dino": (
        foreign.GroundingAttention,
        lambda: deformable_detr_inputs(4)[:5],
        "functions multi_scale_deformable_attn_pytorch and MSDeformAttnFunction, "
        "for the whole process",
    ),
    "bevformer": (
        foreign.MSDeformableAttention3D,
        lambda: deformable_detr_inputs(2)[:5],
        FUNCTION("MultiScaleDeformableAttnFunction_fp32"),
    ),
}


def core_inputs():
    query, memory = torch.randn(2, 6, 32), torch.randn(2, PIXELS, 32)
    return (query, references(4)[:, :, :1], memory, SHAPES.tolist())


CASES |= {
    name: (build, core_inputs, CORE)
    for name, build in {
        "rt_detr": foreign.SquareAttention,
        "rt_detr_v2": foreign.MSDeformableAttention,
        "rt_detr_v2_discrete": lambda: foreign.MSDeformableAttention(method="discrete"),
        "d_fine": lambda: foreign.MSDeformableAttention((3, 6), per_level=True),
        "deim": foreign_deim.MSDeformableAttention,
        "deim_discrete": lambda: foreign_deim.MSDeformableAttention(method="discrete"),
        "deim_reshape": lambda: foreign_deim.MSDeformableAttention(value_shape="reshape"),
    }.items()
}


@pytest.mark.parametrize("name", CASES)
def test_patched_layer_gives_the_same_outputs_and_gradients(name):
    build, inputs, how = CASES[name]
    layer, arguments = seeded(lambda: (build().eval(), inputs()))
    cls, contents = type(layer), dict(vars(layer))
    modules = (foreign, foreign_deim, foreign_rf_detr)
    code = [dict(vars(module)) for module in modules]
    before = results(layer, arguments)
    report = patch(layer)
    assert [(change.count, change.how) for change in report.changes] == [(1, how)]
    torch.testing.assert_close(results(layer, arguments), before, rtol=1e-4, atol=1e-5)

    assert unpatch(layer).patched == 1
    torch.testing.assert_close(results(layer, arguments), before, rtol=0, atol=0)
    assert type(layer) is cls
    assert vars(layer) == contents
    assert [vars(module) for module in modules] == code


@pytest.mark.parametrize("name", [name for name, (_, _, how) in CASES.items() if how == FORWARD])
def test_patched_layer_refuses_a_wrong_start_index(name):
    build, inputs, _ = CASES[name]
    layer, arguments = seeded(lambda: (build().eval(), inputs()))
    patch(layer)
    wrong = torch.tensor([0, 34])
    if isinstance(arguments, dict):
        arguments["level_start_index"] = wrong
    else:
        arguments = (*arguments[:4], wrong, *arguments[5:])
    with pytest.raises(ValueError, match=r"level_start_index: expected \[0, 35\], .* got \[0, 34"):
        call(layer, arguments)


FUSED = [name for name, (_, _, how) in CASES.items() if how in (FORWARD, CORE)]


@pytest.mark.parametrize("name", FUSED)
def test_patched_layer_never_reaches_the_code_it_replaces(name, monkeypatch):
    build, inputs, _ = CASES[name]
    layer, arguments = seeded(lambda: (build().eval(), inputs()))
    patch(layer)
    monkeypatch.setattr(foreign, "sample_and_sum", None)
    call(layer, arguments)


@pytest.mark.parametrize("module", [foreign_deim, foreign_rf_detr])
def test_patched_module_of_later_code(module, monkeypatch):
    code = dict(vars(module))
    report = patch(module)
    assert (report.patched, report.skipped) == (1, 0)
    monkeypatch.setattr(foreign, "sample_and_sum", None)
    if module is foreign_deim:
        call(foreign_deim.MSDeformableAttention(), core_inputs())
    else:
        call(foreign_rf_detr.MSDeformAttn(), (*deformable_detr_inputs(), SHAPES.tolist()))
    unpatch(module)
    assert dict(vars(module)) == code


def test_patched_module_serves_every_layer_of_it(monkeypatch):
    layer, arguments = seeded(lambda: (foreign.MSDeformAttn(), deformable_detr_inputs()))
    code = dict(vars(foreign))
    assert patch(foreign).skipped == 0
    monkeypatch.setattr(foreign, "sample_and_sum", None)
    call(layer, arguments)
    call(foreign.MSDeformableAttention(), core_inputs())
    call(foreign.SquareAttention(), core_inputs())
    monkeypatch.undo()
    unpatch(foreign)
    assert dict(vars(foreign)) == code
    assert "ms_deformable_attn_core" not in vars(foreign.MSDeformableAttention)


@pytest.mark.parametrize("name", FUSED)
def test_copies_and_pickles_of_a_patched_layer_stay_patched(name, monkeypatch):
    build, inputs, _ = CASES[name]
    layer, arguments = seeded(lambda: (build().eval(), inputs()))
    patch(layer)
    expected = call(layer, arguments)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert list(twin.state_dict()) == list(layer.state_dict())
        with monkeypatch.context() as context:
            context.setattr(foreign, "sample_and_sum", None)
            torch.testing.assert_close(call(twin, arguments), expected, rtol=0, atol=0)
        assert unpatch(twin).patched == 1
        torch.testing.assert_close(call(twin, arguments), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "duplicate",
    [copy.deepcopy, nn.Module._replicate_for_data_parallel],
    ids=["deepcopy", "DataParallel"],
)
def test_duplicate_of_a_patched_layer_computes_with_its_own_weights(duplicate):
    layer, arguments = seeded(lambda: (foreign.MSDeformAttn(), deformable_detr_inputs()))
    patch(layer)
    twin = duplicate(layer)
    twin._modules["output_proj"] = nn.Identity()
    assert not torch.equal(call(twin, arguments), call(layer, arguments))


def test_patching_twice_changes_nothing_more():
    model = nn.Sequential(foreign.MSDeformAttn(), foreign.MSDeformAttn())
    first, second = patch(model), patch(model)
    assert (first.patched, first.already_patched) == (2, 0)
    assert (second.patched, second.already_patched) == (0, 2)
    assert second
    assert unpatch(model).patched == 2
    assert not unpatch(model)


def test_layers_that_share_a_function_each_count():
    model = nn.Sequential(foreign.MSDeformableAttention3D(), foreign.MSDeformableAttention3D())
    assert (patch(model).patched, patch(model).already_patched) == (2, 2)
    assert unpatch(model).patched == 2


class Derived(foreign.MSDeformableAttention3D):
    pass


class DerivedCore(foreign.MSDeformableAttention):
    pass


def test_layer_that_calls_two_functions_counts_once():
    model = nn.Sequential(foreign.GroundingAttention(), foreign.GroundingAttention())
    assert (patch(model).patched, patch(model).already_patched) == (2, 2)
    assert unpatch(model).patched == 2
    assert (patch(foreign.GroundingAttention).patched, unpatch(model).patched) == (1, 2)


@pytest.mark.parametrize("build", [Derived, DerivedCore])
def test_derived_layer_counts_once(build):
    layer = build()
    assert patch(layer).patched == 1
    assert unpatch(layer).patched == 1


def test_model_is_unpatched_also_where_its_code_was_patched():
    layer = foreign.MSDeformableAttention()
    patch(foreign)
    assert (patch(layer).patched, patch(layer).already_patched) == (0, 1)
    assert unpatch(layer).patched == 1
    assert layer.ms_deformable_attn_core.func is foreign.deformable_attention_core_func_v2


def test_unpatch_leaves_alone_what_other_code_put_there_since(monkeypatch):
    layer = foreign.MSDeformableAttention3D()
    patch(layer)
    monkeypatch.setattr(foreign, "MultiScaleDeformableAttnFunction_fp32", "theirs")
    assert not unpatch(layer)
    assert foreign.MultiScaleDeformableAttnFunction_fp32 == "theirs"


def test_stored_function_is_replaced_also_under_a_hooked_forward():
    layer = foreign.MSDeformableAttention()
    layer.forward = layer.forward
    assert patch(layer).patched == 1


def test_autocast_promotes_where_the_replaced_function_does():
    value = torch.randn(1, PIXELS, 4, 8).bfloat16()
    locations, weights = torch.rand(1, 3, 4, 2, 3, 2), torch.rand(1, 3, 4, 2, 3)
    patch(foreign)
    function = foreign.MultiScaleDeformableAttnFunction_fp32
    assert function.apply(value, SHAPES, START, locations, weights, 64).dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        assert function.apply(value, SHAPES, START, locations, weights, 64).dtype == torch.float32


def test_function_without_a_module_is_known_by_its_signature(monkeypatch):
    monkeypatch.setattr(foreign.ms_deform_attn_core_pytorch, "__module__", None)
    monkeypatch.setattr(foreign.multi_scale_deformable_attn_pytorch, "__module__", None)
    assert patch(foreign.RFDetrAttention()).skipped == 1
    assert patch(foreign.GroundingAttention()).patched == 1


class Unknown(nn.Module):
    def __init__(self):
        super().__init__()
        self.sampling_offsets = nn.Linear(4, 4)

    def forward(self, query):
        return self.sampling_offsets(query)


class MSDeformAttn(foreign.MSDeformAttn):
    def __init__(self):
        super().__init__(tilt=0.1)

    def forward(
        self,
        query,
        reference_points,
        input_flatten,
        input_spatial_shapes,
        input_level_start_index,
        input_padding_mask=None,
    ):
        return self.tilt * query


def hidden_forward():
    layer = foreign.MSDeformAttn()
    layer.forward = lambda *arguments: arguments[0]
    return layer


SKIPS = {
    "unknown_code": (Unknown, "neither its forward nor a function it calls is known"),
    "clone": (
        MSDeformAttn,
        "it is not Deformable-DETR's layer: unknown attributes ['tilt'], missing []",
    ),
    "forward_taken": (hidden_forward, "other code has replaced its forward already"),
}


@pytest.mark.parametrize("name", SKIPS)
def test_what_is_not_patched_is_reported(name):
    build, reason = SKIPS[name]
    layer = build()
    contents = dict(vars(layer))
    report = patch(layer)
    assert (report.patched, report.skipped, report.skips[0].reason) == (0, 1, reason)
    assert not report
    assert vars(layer) == contents


class Caller(nn.Module):
    def __init__(self):
        super().__init__()
        self.sampling_offsets = nn.Linear(4, 4)

    def forward(self, *arguments):
        return rtdetr_ops.ms_deform_attn(*arguments)


@pytest.mark.parametrize("build", [lambda: module.MSDeformAttn(32, 2, 4, 3), Caller])
def test_layer_that_calls_this_library_needs_no_patch(build):
    report = patch(nn.Sequential(build()))
    assert (report.patched, report.already_patched, report.skipped) == (0, 1, 0)


def test_class_on_top_of_a_patched_one_is_reported_by_unpatch():
    layer = foreign.MSDeformAttn()
    patch(layer)
    layer.__class__ = type("Wrapped", (type(layer),), {})
    report = unpatch(layer)
    assert (report.patched, report.skips[0].reason) == (
        0,
        "its class was changed again after patch()",
    )


def test_report_reads_well():
    report = patch(nn.Sequential(foreign.MSDeformAttn(), foreign.MSDeformAttn(), Unknown()))
    assert str(report).splitlines() == [
        "patch(Sequential): 2 patched, 1 skipped",
        "  2 x foreign_layers.MSDeformAttn: forward, on these layers",
        f"  1 x {__name__}.Unknown: skipped, neither its forward nor a function it calls is known",
    ]


@pytest.mark.parametrize(
    "build", [foreign.MSDeformableAttention, foreign_deim.MSDeformableAttention]
)
def test_report_says_where_results_differ(build):
    note = (
        "    note: discrete sampling clamps x to the width of a level, the original to its height: results differ on "
        "levels that are not square"
    )
    assert note not in str(patch(build()))
    report = patch(build(method="discrete"))
    assert str(report).splitlines()[2] == note
    assert note.endswith(report.changes[0].note)
    assert str(patch(build)).splitlines()[2] == note


def test_unknown_shape_of_the_value_is_refused():
    layer, arguments = seeded(
        lambda: (foreign_deim.MSDeformableAttention(value_shape="flat"), core_inputs())
    )
    patch(layer)
    with pytest.raises(
        ValueError, match="value_shape: expected 'default' or 'reshape', got 'flat'"
    ):
        call(layer, arguments)


def test_report_says_when_there_is_nothing():
    report = patch(nn.Linear(2, 2))
    assert not report
    assert str(report) == "patch(Linear): nothing to patch: no known deformable attention in Linear"


BAD_TARGETS = {
    "typo": ("rt_detrv2", ValueError, "got 'rt_detrv2' \\(did you mean 'rt_detr_v2'\\?\\)"),
    "missing_module": ("torch.nn.no_such_thing", ValueError, "got 'torch.nn.no_such_thing'"),
    "list": ([nn.Linear(2, 2)], TypeError, "expected a model, .* got list"),
    "other_class": (dict, TypeError, "expected a model, .* got dict"),
}


@pytest.mark.parametrize("name", BAD_TARGETS)
def test_bad_target(name):
    target, error, message = BAD_TARGETS[name]
    with pytest.raises(error, match=message):
        patch(target)


@pytest.mark.parametrize(
    "target", ["foreign_layers.MSDeformableAttention", foreign.MSDeformableAttention]
)
def test_one_class_can_be_the_target(target):
    assert patch(target).patched == 1
    layer = foreign.MSDeformableAttention()
    assert layer.ms_deformable_attn_core.func.__module__ == "rtdetr_ops.patching.adapters"
    assert unpatch(target).patched == 1
    assert layer.ms_deformable_attn_core.func is foreign.deformable_attention_core_func_v2
