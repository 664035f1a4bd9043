# SPDX-License-Identifier: Apache-2.0
"""Which module of a package imports which, read from the sources: by a test that nothing climbs or goes in circles.

Every import counts, wherever it stands: at the top, inside a function, under TYPE_CHECKING, or as a string given to
``import_module``. A module is named by its path below the package, ``"patching.table"``; an ``__init__`` by its folder,
and that of the whole package by ``""``.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import resolve_name
from pathlib import Path

__all__ = [
    "Graph",
    "climbing_imports",
    "find_circles",
    "read_imports",
    "rooms_of",
    "unplaced_modules",
]

Graph = Mapping[str, frozenset[str]]
"""Module -> modules that it imports."""


def read_imports(package: Path) -> Graph:
    """The imports among the modules of a package.

    Args:
        package: its folder; the name of the folder is the name of the package.
    """
    sources = {_module_name(path, package): path for path in sorted(package.rglob("*.py"))}
    return {
        name: frozenset(_imports_of(name, path, package.name, set(sources))) - {name}
        for name, path in sources.items()
    }


def rooms_of(graph: Graph) -> Graph:
    """The same imports between rooms: the files and folders directly below the package."""
    rooms: dict[str, set[str]] = {_room(name): set() for name in graph}
    for name, imports in graph.items():
        rooms[_room(name)] |= {_room(imported) for imported in imports} - {_room(name)}
    return {room: frozenset(imports) for room, imports in rooms.items()}


def unplaced_modules(graph: Graph, floors: Sequence[frozenset[str]]) -> list[str]:
    """Modules that no floor holds, and names on a floor that are no modules."""
    return sorted(set(graph) ^ set().union(*floors))


def climbing_imports(graph: Graph, floors: Sequence[frozenset[str]]) -> list[str]:
    """Imports that do not go to a lower floor, as ``"importer -> imported"``.

    Args:
        graph: from :func:`read_imports`.
        floors: the modules of each, the lowest first.
    """
    floor = {name: level for level, names in enumerate(floors) for name in names}
    return sorted(
        f"{name} -> {imported}"
        for name, imports in graph.items()
        for imported in imports
        if floor[imported] >= floor[name]
    )


def find_circles(graph: Graph) -> list[frozenset[str]]:
    """Strongly connected components of more than one module: each reaches every other by imports."""
    reached = {name: _reachable(graph, name) for name in graph}
    circles = {
        frozenset({name, *(other for other in reached[name] if name in reached[other])})
        for name in graph
    }
    return sorted((circle for circle in circles if len(circle) > 1), key=sorted)


def _room(name: str) -> str:
    return name.partition(".")[0]


def _reachable(graph: Graph, start: str) -> set[str]:
    reached: set[str] = set()
    pending = list(graph[start])
    while pending:
        name = pending.pop()
        if name not in reached:
            reached.add(name)
            pending += graph[name]
    return reached


def _module_name(path: Path, package: Path) -> str:
    parts = path.relative_to(package).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports_of(name: str, path: Path, package: str, modules: set[str]) -> Iterator[str]:
    """Names of the modules that one file imports."""
    parent = name if path.name == "__init__.py" else name.rpartition(".")[0]
    context = f"{package}.{parent}".rstrip(".")
    for target in _targets(ast.parse(path.read_text(encoding="utf-8")), context):
        # `from a import b` is module a.b where there is one, else a name in a.
        for candidate in (target, target.rpartition(".")[0]):
            inner = candidate.removeprefix(package).removeprefix(".")
            if candidate.split(".")[0] == package and inner in modules:
                yield inner
                break


def _targets(tree: ast.AST, context: str) -> Iterator[str]:
    """Absolute dotted names of what is imported, one for each name of a ``from``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), context)
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif (
            isinstance(node, ast.Call)
            and ast.unparse(node.func).endswith("import_module")
            and isinstance(node.args[0], ast.Constant)
        ):
            yield resolve_name(str(node.args[0].value), context)
