# SPDX-License-Identifier: Apache-2.0
"""Every family of transformers computes the same with the op as without, and is itself again afterwards."""

import copy
import importlib
import inspect
import io
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers")
from published_code import assert_takes_the_place
from tiny_models import BUILDERS

from rtdetr_ops.patching import patch, unpatch
from rtdetr_ops.patching.adapters import transformers_forward
from rtdetr_ops.patching.table import CORES, FAMILIES, FUNCTIONS

LAYERS = {
    "d_fine": 2,
    "deformable_detr": 3,
    "deimv2": 2,
    "grounding_dino": 3,
    "lw_detr": 2,
    "mask2former": 2,
    "mm_grounding_dino": 3,
    "omdet_turbo": 2,
    "oneformer": 2,
    "pp_doclayout_v2": 2,
    "pp_doclayout_v3": 2,
    "pp_doclayout_v4": 2,
    "rf_detr": 2,
    "rt_detr": 2,
    "rt_detr_v2": 2,
    "rt_detr_v2_discrete": 2,
}


def build(name):
    """A model in eval mode whose attention looks everywhere: as built, its offsets hardly depend on the query."""
    torch.manual_seed(0)
    model, inputs = BUILDERS[name]()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    return model.eval(), inputs


def tensors(output):
    """All floating tensors of a model output, by name."""
    return {
        key: value
        for key, value in output.items()
        if isinstance(value, torch.Tensor) and value.is_floating_point()
    }


def attention_code(name):
    """Everything that a patch of the family could replace: classes, functions and what the classes hold."""
    module = sys.modules[FAMILIES[name.removesuffix("_discrete")]]
    named = {key: value for key, value in vars(module).items() if "eformable" in key}
    held = {
        (key, attribute): value
        for key, owner in named.items()
        if isinstance(owner, type)
        for attribute, value in vars(owner).items()
        if attribute in ("forward", "ms_deformable_attn_core")
    }
    return {**named, **held}


def test_every_family_has_a_model():
    assert set(FAMILIES) == {name.removesuffix("_discrete") for name in BUILDERS}


@pytest.mark.parametrize("name", FAMILIES)
def test_replacement_takes_every_call_that_the_original_takes(name):
    module = importlib.import_module(FAMILIES[name])
    rules = {rule.symbol: rule for rule in (*FUNCTIONS, *CORES)}
    originals = [
        (rule.replacement, vars(module)[name])
        for name, rule in rules.items()
        if name in vars(module)
    ]
    if not originals:
        originals = [(transformers_forward, module.MultiScaleDeformableAttention.forward)]
    for replacement, original in originals:
        assert_takes_the_place(replacement, inspect.signature(original))


@pytest.mark.parametrize("name", LAYERS)
def test_patched_model_gives_the_same_outputs(name, op_calls):
    model, inputs = build(name)
    code = attention_code(name)
    classes = [type(layer) for layer in model.modules()]
    with torch.no_grad():
        before = tensors(model(**inputs))
        report = patch(model)
        patched = tensors(model(**inputs))
        assert (report.patched, report.skipped, len(op_calls)) == (LAYERS[name], 0, LAYERS[name])
        torch.testing.assert_close(patched, before, rtol=1e-5, atol=1e-5)

        assert unpatch(model).patched == LAYERS[name]
        torch.testing.assert_close(tensors(model(**inputs)), before, rtol=0, atol=0)
    assert len(op_calls) == LAYERS[name]
    assert [type(layer) for layer in model.modules()] == classes
    assert attention_code(name) == code


def gradients(model, inputs, output):
    model.zero_grad()
    model(**inputs)[output].square().mean().backward()
    return {
        name: parameter.grad.clone()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }


@pytest.mark.parametrize(
    ("name", "output"),
    [
        ("rt_detr_v2", "last_hidden_state"),
        ("rt_detr_v2_discrete", "last_hidden_state"),
        ("d_fine", "last_hidden_state"),
        ("deformable_detr", "last_hidden_state"),
        ("mask2former", "masks_queries_logits"),
    ],
)
def test_patched_model_gives_the_same_gradients(name, output, op_calls):
    model, inputs = build(name)
    before = gradients(model, inputs, output)
    assert any("sampling_offsets" in key or "value_proj" in key for key in before)
    patch(model)
    torch.testing.assert_close(gradients(model, inputs, output), before, rtol=1e-4, atol=1e-6)
    assert op_calls


def test_per_level_point_counts_reach_the_op(op_calls):
    model, inputs = build("d_fine")
    patch(model)
    with torch.no_grad():
        model(**inputs)
    assert op_calls == [(3, 6, 3), (3, 6, 3)]


@pytest.mark.parametrize("name", ["rt_detr", "rt_detr_v2", "d_fine"])
def test_patched_family_serves_models_built_before_and_after(name, op_calls):
    older, inputs = build(name)
    code = attention_code(name)
    assert patch(name).patched == 1
    younger, _ = build(name)
    with torch.no_grad():
        older(**inputs), younger(**inputs)
        assert len(op_calls) == 2 * LAYERS[name]
        assert unpatch(name).patched == 1
        older(**inputs), younger(**inputs)
    assert len(op_calls) == 2 * LAYERS[name]
    assert attention_code(name) == code


def test_patch_of_one_model_leaves_its_sibling_alone(op_calls):
    patched, inputs = build("d_fine")
    sibling, _ = build("d_fine")
    patch(patched)
    with torch.no_grad():
        sibling(**inputs)
    assert op_calls == []


def test_transformers_as_a_whole():
    first, second = patch("transformers"), patch("transformers")
    assert (first.patched, first.skipped) == (len(FAMILIES), 0)
    assert (second.patched, second.already_patched) == (0, len(FAMILIES))
    assert unpatch("transformers").patched == len(FAMILIES)


def test_family_that_cannot_be_imported_is_reported(monkeypatch):
    monkeypatch.setitem(sys.modules, FAMILIES["d_fine"], None)
    report = patch("transformers")
    assert (report.patched, report.skipped) == (len(FAMILIES) - 1, 1)
    assert report.skips[0].subject == FAMILIES["d_fine"]
    assert report.skips[0].reason.startswith("it cannot be imported: ")
    with pytest.raises(ImportError):
        patch("d_fine")


def test_copies_and_pickles_stay_patched_and_can_be_unpatched(op_calls):
    model, inputs = build("deformable_detr")
    state = list(model.state_dict())
    patch(model)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    with torch.no_grad():
        expected = tensors(model(**inputs))
        for twin in (copy.deepcopy(model), loaded):
            torch.testing.assert_close(tensors(twin(**inputs)), expected, rtol=0, atol=0)
            assert unpatch(twin).patched == LAYERS["deformable_detr"]
    assert len(op_calls) == 3 * LAYERS["deformable_detr"]
    assert list(model.state_dict()) == state


def layer_and_arguments(name):
    model, _ = build(name)
    patch(model)
    sizes = [(8, 12), (4, 6), (2, 3)]
    arguments = {
        "hidden_states": torch.rand(2, 10, 32),
        "encoder_hidden_states": torch.rand(2, 126, 32),
        "reference_points": torch.rand(2, 10, 1, 4),
        "spatial_shapes": torch.tensor(sizes),
        "spatial_shapes_list": sizes,
    }
    return model.model.decoder.layers[0].encoder_attn, arguments


@pytest.mark.parametrize("name", ["rt_detr", "rt_detr_v2", "d_fine"])
def test_patched_layer_compiles_in_one_graph(name):
    torch._dynamo.reset()
    layer, arguments = layer_and_arguments(name)
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(**arguments), layer(**arguments), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["rt_detr", "rt_detr_v2", "d_fine"])
def test_patched_layer_exports(name):
    layer, arguments = layer_and_arguments(name)
    with torch.no_grad():
        exported = torch.export.export(layer, (), arguments).module()
        torch.testing.assert_close(exported(**arguments), layer(**arguments), rtol=1e-5, atol=1e-6)


def test_guide_names_every_family():
    guide = Path(__file__).parents[2] / "docs" / "drop-in.md"
    assert [name for name in FAMILIES if f"`{name}`" not in guide.read_text()] == []
