# SPDX-License-Identifier: Apache-2.0
"""Putting a replacement in and taking it out again.

A layer is patched by giving it a subclass of its own class: state, hooks, deep copies, pickles and compilation work as
before, and giving the class back restores it whole. An attribute of a class or of a module is patched by assignment,
and the object it held is kept.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from torch import nn

from . import recognize
from .table import CORE, CORES, FORWARDS, CoreRule, LayerRule

__all__ = [
    "Place",
    "active_rule",
    "class_places",
    "function_places",
    "is_replaced",
    "replace",
    "replace_class",
    "restore",
    "restore_class",
]

_RULES: dict[str, LayerRule] = {rule.library: rule for rule in (*FORWARDS, *CORES)}
_MARK = "_rtdetr_ops_patch"
_ABSENT = object()


@dataclass(frozen=True)
class Place:
    """An attribute of a class or a module, and what goes there for the whole process."""

    owner: ModuleType | type
    attribute: str
    replacement: Any


_originals: dict[Place, Any] = {}


def class_places(cls: type[nn.Module]) -> list[Place]:
    """The attribute of ``cls`` that patches all its layers, if a rule of the table allows that."""
    rule = recognize.class_rule(cls)
    return [] if rule is None else [Place(cls, rule.attribute, _override(rule))]


def function_places(cls: type[nn.Module]) -> list[Place]:
    """The functions that the forward of ``cls`` takes from its module."""
    return [
        Place(module, rule.symbol, rule.replacement)
        for module, rule in recognize.function_rules(cls)
    ]


def is_replaced(place: Place) -> bool:
    """False also where other code has since put something of its own there, which is then left alone."""
    current = vars(place.owner).get(place.attribute)
    return place in _originals and current is place.replacement


def replace(place: Place) -> None:
    _originals[place] = vars(place.owner).get(place.attribute, _ABSENT)
    setattr(place.owner, place.attribute, place.replacement)


def restore(place: Place) -> None:
    original = _originals.pop(place)
    if original is _ABSENT:
        delattr(place.owner, place.attribute)
    else:
        setattr(place.owner, place.attribute, original)


def active_rule(cls: type[nn.Module]) -> LayerRule | None:
    """The rule that layers of ``cls`` run on: their own class, or one it derives from, is patched."""
    for rule in _RULES.values():
        if any(vars(base).get(rule.attribute) is _override(rule) for base in cls.__mro__):
            return rule
    return None


def replace_class(layer: nn.Module, rule: LayerRule) -> None:
    own: type = type(layer)
    layer.__class__ = _patched_class(own, rule.library)


def restore_class(layer: nn.Module) -> bool:
    """Give the layer its own class back; False where others have put a class on top of the patched one."""
    if _MARK not in vars(type(layer)):
        return False
    layer.__class__ = type(layer).__mro__[1]
    return True


@functools.cache
def _override(rule: LayerRule) -> Callable[..., Any] | property:
    """The class attribute that puts ``rule`` into effect."""
    if not isinstance(rule, CoreRule):
        return rule.replacement

    def read(layer: nn.Module) -> Callable[..., Any]:
        return functools.partial(rule.replacement, **getattr(vars(layer)[CORE], "keywords", {}))

    def write(layer: nn.Module, core: Any) -> None:
        vars(layer)[CORE] = core

    # The property hides the layer's own function without touching it: constructors still store theirs, and taking the
    # property away brings every one back.
    return property(read, write)


@functools.cache
def _patched_class(base: Any, library: str) -> Any:
    def reduce(layer: nn.Module, protocol: Any) -> tuple[Any, ...]:
        # A class made at run time cannot be pickled by name: the pickle names its base and its rule instead.
        _, (_, *arguments), *state = base.__reduce_ex__(layer, max(protocol, 2))
        return (_rebuild, (base, library, *arguments), *state)

    rule = _RULES[library]
    body = {
        rule.attribute: _override(rule),
        "__reduce_ex__": reduce,
        "__module__": base.__module__,
        "__qualname__": base.__qualname__,
        "__doc__": base.__doc__,
        _MARK: library,
    }
    return type(base.__name__, (base,), body)


def _rebuild(base: Any, library: str, *arguments: Any) -> Any:
    return base.__new__(_patched_class(base, library), *arguments)
