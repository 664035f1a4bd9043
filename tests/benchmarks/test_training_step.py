# SPDX-License-Identifier: Apache-2.0
import copy
from functools import partial

import pytest
import torch
from core.patched import patched
from core.stopwatch import REST
from core.training_steps import LoopStep, check_learning, make_batch, make_models, make_step
from suites.training_step import PARTS, measure_parts

pytest.importorskip("transformers", reason="its model takes part")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Small maps are faster without helpers."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def models():
    return make_models()


@pytest.fixture(scope="module")
def batch():
    return make_batch(2, 128, 3)


def test_ours_learns_what_that_of_transformers_learns(models, batch):
    assert check_learning(*models, batch) < 1e-3
    assert models[0].config.box_noise_scale == models[1].config.box_noise_scale == 1


@pytest.mark.parametrize("shift", [0.1, float("nan")])
@pytest.mark.parametrize("head", ["decoder.class_embed.0", "decoder.bbox_embed.2.layers.2"])
def test_a_model_with_other_losses_is_not_timed(models, batch, head, shift):
    ours = copy.deepcopy(models[0])
    with torch.no_grad():
        ours.model.get_submodule(head).bias.add_(shift)
    with pytest.raises(AssertionError, match=r"loss_.*: differs from transformers by"):
        check_learning(ours, models[1], batch)


def test_a_model_with_other_gradients_is_not_timed(models, batch):
    ours = copy.deepcopy(models[0])
    weight = ours.model.enc_score_head.weight
    weight.register_hook(lambda gradient: 1.01 * gradient)
    with pytest.raises(AssertionError, match=r"enc_score_head\.weight: differs"):
        check_learning(ours, models[1], batch)
    weight.requires_grad_(False)
    with pytest.raises(AssertionError, match=r"alone: \['model.enc_score_head.weight'\]"):
        check_learning(ours, models[1], batch)


@pytest.mark.parametrize(("index", "make"), [(0, make_step), (1, lambda model, _: LoopStep(model))])
def test_a_step_moves_weights_and_average(models, batch, index, make):
    model = copy.deepcopy(models[index])
    step = make(model, batch)
    before = [p.detach().clone() for p in (*model.parameters(), *step.average.module.parameters())]
    step(batch, 0)
    after = (*model.parameters(), *step.average.module.parameters())
    moved = [not torch.equal(one, other) for one, other in zip(before, after, strict=True)]
    assert sum(moved) > 0.9 * len(moved)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_every_part_is_a_function_that_a_step_calls(models, batch):
    step = make_step(copy.deepcopy(models[0]), batch)
    parts = measure_parts(partial(step, batch, 0), rounds=1)
    assert list(parts) == [*PARTS, REST]
    assert all(seconds > 0 for seconds in parts.values())


def test_a_part_that_is_not_called_is_reported():
    with pytest.raises(AssertionError, match=r"parts that a step does not call: .*'backbone'"):
        measure_parts(lambda: None, rounds=1)


def test_only_its_own_turns_are_patched() -> None:
    """The function belongs to the module: what is patched for one model is patched for all."""
    from transformers.models.rt_detr_v2 import modeling_rt_detr_v2 as modeling

    name = "multi_scale_deformable_attention_v2"
    _, theirs = make_models()
    before = getattr(modeling, name)
    with patched(theirs):
        assert getattr(modeling, name) is not before
    assert getattr(modeling, name) is before
