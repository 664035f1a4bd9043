# SPDX-License-Identifier: Apache-2.0
"""From what a caller names to the classes it means."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
import sys
from types import ModuleType
from typing import Any, TypeAlias, TypeGuard

from torch import nn

from .table import FAMILIES

__all__ = ["Target", "describe", "find_classes"]

Target: TypeAlias = nn.Module | type[nn.Module] | ModuleType | str


def describe(target: Target) -> str:
    """How a report names the target."""
    if isinstance(target, nn.Module):
        return type(target).__name__
    return repr(target) if isinstance(target, str) else target.__name__


def find_classes(target: Target, *, load: bool) -> tuple[list[type[nn.Module]], dict[str, str]]:
    """The layer classes that ``target`` covers, and why a family of it could not be imported.

    Args:
        target: a class, a module, or a name.
        load: whether names may be imported; else only what is imported already counts.

    Raises:
        TypeError, ValueError, ImportError: see :func:`rtdetr_ops.patch`.
    """
    if _is_layer_class(target):
        return [target], {}
    if not isinstance(target, (str, ModuleType)):
        got = target.__name__ if isinstance(target, type) else type(target).__name__
        raise TypeError(
            f"target: expected a model, a class of layers, a module or a name, got {got}"
        )
    name = FAMILIES.get(target, target) if isinstance(target, str) else target.__name__
    failures = _load_families(name) if load else {}
    resolved = target if isinstance(target, ModuleType) else _resolve(name, load)
    if _is_layer_class(resolved):
        return [resolved], failures
    return _classes_under(name, resolved), failures


def _load_families(name: str) -> dict[str, str]:
    """Import the families below ``name``, note the failures, and raise only where nothing could be imported."""
    paths = [path for path in FAMILIES.values() if path == name or path.startswith(f"{name}.")]
    failures: dict[str, ImportError] = {}
    for path in paths:
        try:
            importlib.import_module(path)
        except ImportError as error:
            failures[path] = error
    if paths and len(failures) == len(paths):
        raise failures[paths[0]]
    return {path: f"it cannot be imported: {error}" for path, error in failures.items()}


def _resolve(name: str, load: bool) -> Any:
    """The module or class of that dotted name, or None where it is not imported and may not be."""
    if load:
        try:
            return pkgutil.resolve_name(name)
        except (ModuleNotFoundError, AttributeError, ValueError) as error:
            if isinstance(error, ModuleNotFoundError) and not name.startswith(error.name or name):
                raise
            raise ValueError(_unknown(name)) from error
    package, _, last = name.rpartition(".")
    return sys.modules.get(name) or getattr(sys.modules.get(package), last, None)


def _unknown(name: str) -> str:
    close = difflib.get_close_matches(name, FAMILIES, n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    return (
        f"target: expected an importable dotted name or one of 'transformers', {', '.join(map(repr, FAMILIES))}; "
        f"got {name!r}{hint}"
    )


def _classes_under(name: str, resolved: Any) -> list[type[nn.Module]]:
    """Layer classes defined in a module or in the imported modules below it."""
    below = [module for path, module in list(sys.modules.items()) if path.startswith(f"{name}.")]
    modules = [module for module in (resolved, *below) if isinstance(module, ModuleType)]
    return [
        value
        for module in modules
        for value in list(vars(module).values())
        if _is_layer_class(value) and value.__module__ == module.__name__
    ]


def _is_layer_class(value: Any) -> TypeGuard[type[nn.Module]]:
    return isinstance(value, type) and issubclass(value, nn.Module)
