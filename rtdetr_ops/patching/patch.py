# SPDX-License-Identifier: Apache-2.0
"""``patch`` and ``unpatch``: from a target to layers or classes, from those to what is replaced, and to a report."""

from __future__ import annotations

from collections import Counter

from torch import nn

from . import binding, recognize
from .report import Change, PatchReport, Skip
from .table import ForwardRule, LayerRule
from .targets import Target, describe, find_classes

__all__ = ["patch", "unpatch"]


def patch(target: Target) -> PatchReport:
    """Put the fused op into a detector that somebody else wrote, and say what was replaced and what was not.

    A model gets its layers patched one by one where its library allows it; where a layer calls a function of its
    module, that function is replaced for the whole process, and the report says so. Code (a class, a module, a name)
    is patched for the whole process: for models that exist and for models still to be built. Parameters and state dicts
    stay what they were, and so do results, except where the report has a note. Patching twice changes nothing. Nothing
    is ever patched by an import.

    Args:
        target: a model (any ``nn.Module``); a class of layers; a module; or a name: ``"transformers"`` for all its
            families, one family such as ``"rt_detr_v2"``, or the dotted path of a package, a module or a class.

    Returns:
        A :class:`PatchReport`; print it. It is false when there was nothing to patch.

    Raises:
        TypeError, ValueError: ``target`` is none of these.
        ImportError: the family asked for, or every one of several, cannot be imported.
    """
    log = _PatchLog()
    if isinstance(target, nn.Module):
        for layer in list(target.modules()):
            _patch_layer(layer, log)
    else:
        classes, failures = find_classes(target, load=True)
        log.skips.update(failures.items())
        for cls in classes:
            _patch_class(cls, log)
    return log.report("patch", describe(target))


def unpatch(target: Target) -> PatchReport:
    """Undo :func:`patch`: the classes and functions that were there before are there again, the very same objects.

    What was replaced for the whole process is restored for the whole process, also when ``target`` is a model.

    Args:
        target: as for :func:`patch`. Nothing is imported.

    Returns:
        A :class:`PatchReport` of what was restored.

    Raises:
        TypeError, ValueError: as :func:`patch`.
    """
    log = _PatchLog()
    if isinstance(target, nn.Module):
        for layer in list(target.modules()):
            _unpatch_layer(layer, log)
    else:
        for cls in find_classes(target, load=False)[0]:
            log.restore(cls, _places(cls))
    return log.report("unpatch", describe(target))


class _PatchLog:
    """Counts layers (or classes of them) per subject, how, and note; a function that several share is replaced once."""

    def __init__(self) -> None:
        self.changes: Counter[tuple[str, str, str]] = Counter()
        self.already: Counter[tuple[str, str, str]] = Counter()
        self.skips: Counter[tuple[str, str]] = Counter()
        self._touched: set[binding.Place] = set()

    def replace(self, cls: type[nn.Module], places: list[binding.Place], note: str = "") -> None:
        for place in places:
            if not binding.is_replaced(place):
                binding.replace(place)
                self._touched.add(place)
        if self._touched.isdisjoint(places):
            self.already[_name(cls), _everywhere(places), ""] += 1
        else:
            self.changes[_name(cls), _everywhere(places), note] += 1

    def restore(self, cls: type[nn.Module], places: list[binding.Place]) -> None:
        for place in places:
            if binding.is_replaced(place):
                binding.restore(place)
                self._touched.add(place)
        restored = [place for place in places if place in self._touched]
        if restored:
            self.changes[_name(cls), _everywhere(restored), ""] += 1

    def report(self, action: str, target: str) -> PatchReport:
        def changes(counter: Counter[tuple[str, str, str]]) -> tuple[Change, ...]:
            return tuple(
                Change(subject, how, count, note) for (subject, how, note), count in counter.items()
            )

        skips = tuple(Skip(subject, why, count) for (subject, why), count in self.skips.items())
        return PatchReport(action, target, changes(self.changes), changes(self.already), skips)


def _patch_layer(layer: nn.Module, log: _PatchLog) -> None:
    cls = type(layer)
    key, rule, active = _name(cls), recognize.layer_rule(layer), binding.active_rule(cls)
    if active is not None:
        log.already[key, active.attribute, ""] += 1
    elif isinstance(rule, ForwardRule) and "forward" in vars(layer):
        log.skips[key, "other code has replaced its forward already"] += 1
    elif rule is not None:
        binding.replace_class(layer, rule)
        log.changes[key, _how(rule), recognize.differences(rule, layer)] += 1
    elif places := binding.function_places(cls):
        log.replace(cls, places)
    elif recognize.calls_this_library(cls):
        log.already[key, "it calls rtdetr_ops itself", ""] += 1
    elif recognize.looks_like_attention(layer):
        log.skips[key, recognize.why_unknown(layer)] += 1


def _unpatch_layer(layer: nn.Module, log: _PatchLog) -> None:
    rule = binding.active_rule(type(layer))
    if rule is not None and binding.restore_class(layer):
        log.changes[_name(type(layer)), _how(rule), ""] += 1
    cls = type(layer)
    bases = [base for base in cls.__mro__ if issubclass(base, nn.Module)]
    places = [place for base in bases for place in binding.class_places(base)]
    log.restore(cls, places + binding.function_places(cls))
    if binding.active_rule(cls) is not None:
        log.skips[_name(cls), "its class was changed again after patch()"] += 1


def _patch_class(cls: type[nn.Module], log: _PatchLog) -> None:
    places = _places(cls)
    if places:
        log.replace(cls, places, recognize.differences(recognize.class_rule(cls), None))
    elif recognize.needs_a_layer(cls):
        log.skips[_name(cls), "its layers are recognized one by one: patch the model"] += 1


def _places(cls: type[nn.Module]) -> list[binding.Place]:
    """What to replace for every layer of ``cls``: an attribute of the class, else the functions its forward calls."""
    return binding.class_places(cls) or binding.function_places(cls)


def _everywhere(places: list[binding.Place]) -> str:
    names = " and ".join(place.attribute for place in places)
    if isinstance(places[0].owner, type):
        return f"{names}, for the whole process"
    return f"{'functions' if len(places) > 1 else 'function'} {names}, for the whole process"


def _how(rule: LayerRule) -> str:
    return f"{rule.attribute}, on these layers"


def _name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
