# SPDX-License-Identifier: Apache-2.0
"""Published code is recognized by its own signature, and what takes its place can be called as it is called."""

from __future__ import annotations

import inspect
import types

import published_code as published
import pytest
import torch
from published_code import Published, assert_takes_the_place
from torch import nn

import rtdetr_ops
from rtdetr_ops.patching import recognize, table


def stand_in(code: Published) -> types.FunctionType:
    """A function of that name, package and signature."""

    def function(*arguments, **keywords):
        raise AssertionError("called")

    function.__name__ = code.symbol
    function.__module__ = code.path.partition("/")[0]
    function.__signature__ = code.signature
    return function


@pytest.mark.parametrize("code", published.CORES, ids=str)
def test_stored_function(code: Published) -> None:
    layer = nn.Module()
    layer.ms_deformable_attn_core = stand_in(code)
    rule = recognize.layer_rule(layer)
    assert_takes_the_place(rule.replacement, code.signature)


@pytest.mark.parametrize("code", published.FUNCTIONS, ids=str)
def test_function(code: Published) -> None:
    function = stand_in(code)
    (rule,) = [
        rule
        for rule in table.FUNCTIONS
        if rule.symbol == code.symbol and recognize._fits(rule, function)
    ]
    assert_takes_the_place(rule.replacement, code.signature)


@pytest.mark.parametrize("code", published.AUTOGRAD_FUNCTIONS, ids=str)
def test_autograd_function(code: Published) -> None:
    forward = stand_in(code)
    context = inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    forward.__signature__ = code.signature.replace(
        parameters=[context, *code.signature.parameters.values()]
    )
    function = type(code.symbol, (torch.autograd.Function,), {"forward": staticmethod(forward)})
    (rule,) = [
        rule
        for rule in table.FUNCTIONS
        if rule.symbol == code.symbol and recognize._fits(rule, function)
    ]
    inspect.signature(rule.replacement.apply).bind(*code.signature.parameters)


@pytest.mark.parametrize("code", published.LAYERS, ids=str)
def test_layer(code: Published) -> None:
    forward = stand_in(code)
    self = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    forward.__signature__ = code.signature.replace(
        parameters=[self, *code.signature.parameters.values()]
    )
    layer = type(code.symbol, (nn.Module,), {"forward": forward})()
    for name in code.attributes:
        setattr(layer, name, None)
    rule = recognize.layer_rule(layer)
    assert_takes_the_place(rule.replacement.__get__(layer), code.signature)
    layer.option = None
    assert recognize.layer_rule(layer) is None


@pytest.mark.parametrize("name", published.MS_DEFORM_ATTN)
def test_layer_of_this_library(name: str) -> None:
    signature = published.signature(published.MS_DEFORM_ATTN[name])
    layer = rtdetr_ops.MSDeformAttn(32, 2, 4, 3)
    assert_takes_the_place(getattr(layer, name), signature)


def test_layer_of_this_library_has_the_attributes() -> None:
    layer = rtdetr_ops.MSDeformAttn(32, 2, 4, 3)
    missing = {name for name in published.LAYERS[0].attributes if not hasattr(layer, name)}
    assert published.LAYERS[0].symbol == "MSDeformAttn"
    assert missing == set()
