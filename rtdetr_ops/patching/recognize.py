# SPDX-License-Identifier: Apache-2.0
"""Which rule of the table fits a layer, a class, or a function. Looks only; changes nothing."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Iterator
from types import FunctionType, ModuleType
from typing import Any

import torch
from torch import nn

from ..ms_deform_attn import ms_deform_attn, ms_deform_attn_fused
from ..ms_deform_attn.module import attend
from .table import CORE, CORES, FORWARDS, FUNCTIONS, CoreRule, ForwardRule, FunctionRule, LayerRule

__all__ = [
    "calls_this_library",
    "class_rule",
    "differences",
    "function_rules",
    "layer_rule",
    "looks_like_attention",
    "needs_a_layer",
    "why_unknown",
]


def layer_rule(layer: nn.Module) -> LayerRule | None:
    """The rule that replaces something on this one layer."""
    core = vars(layer).get(CORE)
    if core is not None:
        return _core_rule(core)
    return _forward_rule(type(layer), _public_attributes(layer))


def class_rule(cls: type[nn.Module]) -> LayerRule | None:
    """The rule that replaces something on the class itself, for all its layers."""
    rule = _forward_rule(cls, None) if "forward" in vars(cls) else None
    return rule if rule is not None else _stored_core_rule(vars(cls).get("__init__"))


def function_rules(cls: type[nn.Module]) -> Iterator[tuple[ModuleType, FunctionRule]]:
    """The functions that the forward of ``cls`` takes from its module at call time, and that module."""
    names = _globals(_forward(cls))
    module = sys.modules.get(names.get("__name__", ""))
    if module is None or vars(module) is not names:
        return
    for rule in FUNCTIONS:
        if rule.symbol in _names_used(_forward(cls)) and _fits(rule, names.get(rule.symbol)):
            yield module, rule


def differences(rule: LayerRule | None, layer: nn.Module | None) -> str:
    """Where the results of ``rule`` differ from the original's: on one layer, else on any layer of a class."""
    if not isinstance(rule, CoreRule):
        return ""
    bound = getattr(vars(layer)[CORE], "keywords", {}) if layer is not None else {}
    texts = [text for method, text in rule.differences if bound.get("method", method) == method]
    return "; ".join(texts)


def looks_like_attention(layer: nn.Module) -> bool:
    """Whether a layer predicts sampling offsets, as every variant does, and none of its children is known."""
    known = any(layer_rule(child) is not None for child in layer.children())
    return hasattr(layer, "sampling_offsets") and not known


def needs_a_layer(cls: type[nn.Module]) -> bool:
    """Whether ``cls`` looks like one whose layers can only be told from clones by their attributes."""
    return any(_signature_fits(rule, cls) for rule in FORWARDS if rule.attributes is not None)


def calls_this_library(cls: type[nn.Module]) -> bool:
    """Whether the forward of ``cls`` names this library, or an entry of it, by itself."""
    forward = _forward(cls)
    entries = (ms_deform_attn, ms_deform_attn_fused, attend, sys.modules["rtdetr_ops"])
    used = [_globals(forward).get(name) for name in _names_used(forward)]
    return any(value is entry for value in used for entry in entries)


def why_unknown(layer: nn.Module) -> str:
    """Why a layer that looks like deformable attention has no rule."""
    attributes = _public_attributes(layer)
    for rule in FORWARDS:
        if rule.attributes is not None and _signature_fits(rule, type(layer)):
            extra, missing = (
                sorted(attributes - rule.attributes),
                sorted(rule.attributes - attributes),
            )
            return (
                f"it is not {rule.library}'s layer: unknown attributes {extra}, missing {missing}"
            )
    return "neither its forward nor a function it calls is known"


def _forward_rule(cls: type[nn.Module], attributes: frozenset[str] | None) -> ForwardRule | None:
    for rule in FORWARDS:
        if rule.attributes in (None, attributes) and _signature_fits(rule, cls):
            return rule
    return None


def _signature_fits(rule: ForwardRule, cls: type[nn.Module]) -> bool:
    owner = next(base for base in cls.__mro__ if "forward" in vars(base))
    return rule.class_name == owner.__name__ and _parameters(_forward(cls))[1:] == rule.parameters


def _stored_core_rule(build: Any) -> CoreRule | None:
    """The rule of the function that a constructor stores as the core, where there is only one it can store."""
    used = _names_used(build)
    if CORE not in used:
        return None
    rules = {_core_rule(_globals(build).get(name)) for name in used} - {None}
    return rules.pop() if len(rules) == 1 else None


def _core_rule(core: Any) -> CoreRule | None:
    function = core.func if isinstance(core, functools.partial) and not core.args else core
    if not isinstance(function, FunctionType):
        return None
    for rule in CORES:
        if function.__name__ == rule.symbol and _parameters(function) == rule.parameters:
            return rule
    return None


def _fits(rule: FunctionRule, candidate: Any) -> bool:
    if candidate is rule.replacement:
        return True
    package = (getattr(candidate, "__module__", None) or "").partition(".")[0]
    if rule.package not in (None, package):
        return False
    if isinstance(candidate, type) and issubclass(candidate, torch.autograd.Function):
        return _parameters(candidate.forward)[1:] == rule.parameters
    return isinstance(candidate, FunctionType) and _parameters(candidate) == rule.parameters


def _public_attributes(layer: nn.Module) -> frozenset[str]:
    names = {*vars(layer), *layer._parameters, *layer._buffers, *layer._modules}
    own = names - {
        "training",
        "forward",
    }  # what nn.Module sets, and what hooks of other libraries set
    return frozenset(name for name in own if not name.startswith("_"))


def _forward(cls: type[nn.Module]) -> Any:
    return next(vars(base)["forward"] for base in cls.__mro__ if "forward" in vars(base))


def _parameters(function: Any) -> tuple[str, ...]:
    return tuple(inspect.signature(function).parameters) if callable(function) else ()


def _names_used(function: Any) -> frozenset[str]:
    """The global and attribute names in the body of a Python function."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return frozenset(code.co_names) if code is not None else frozenset()


def _globals(function: Any) -> dict[str, Any]:
    return getattr(inspect.unwrap(function), "__globals__", {})
