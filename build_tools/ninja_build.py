# SPDX-License-Identifier: Apache-2.0
"""Turn planned units into one shared library through ninja."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from compile_plan import Unit


@dataclass(frozen=True)
class Rule:
    """How one kind of source becomes an object: the words before and after a unit's own flags."""

    compiler: Sequence[str]
    flags: Sequence[str]


@dataclass(frozen=True)
class Library:
    """One shared library and everything it is made from."""

    path: Path
    units: Sequence[Unit]  # sources are relative to the working directory
    rules: Mapping[str, Rule]  # one per name in Unit.rule
    linker: Sequence[str]
    link_flags: Sequence[str]


def build(library: Library, folder: Path, jobs: int | None = None) -> None:
    """Compile what changed, then link.

    Args:
        library: what to make.
        folder: for objects and build.ninja; where it is kept, the next build is incremental.
        jobs: parallel compilations; else ninja decides.

    Raises:
        SystemExit: a compiler or the linker failed; what it said stands above.
    """
    for made in (folder, library.path.parent):
        made.mkdir(parents=True, exist_ok=True)
    # The bytes of the paths, whatever the locale takes them for.
    text = os.fsencode(ninja_script(library, folder))
    script = write_whole(folder / "build.ninja", text)
    parallel = [] if jobs is None else ["-j", str(jobs)]
    command = [sys.executable, "-m", "ninja", "-f", str(script), *parallel]
    if subprocess.run(command, check=False).returncode:
        raise SystemExit(f"rtdetr_ops: {library.path.name} was not built; the reason stands above")


def ninja_script(library: Library, folder: Path) -> str:
    """Return the text of build.ninja."""
    objects = [_path(folder / f"{unit.source}.o") for unit in library.units]
    blocks = [
        f"builddir = {_path(folder)}",
        *(_compile_rule(name, rule) for name, rule in library.rules.items()),
        # Libraries after the objects: a linker takes from them only what is still missing.
        f"rule link\n  description = link $out\n"
        f"  command = {_words(library.linker)} -o $out $in {_words(library.link_flags)}",
        *(
            f"build {made}: {unit.rule} {_path(unit.source)}\n"
            f"  flags = {_words(unit.flags)}\n  isa = {unit.isa}"
            for made, unit in zip(objects, library.units, strict=True)
        ),
        f"build {_path(library.path)}: link {' '.join(objects)}",
    ]
    return "\n".join(blocks) + "\n"


def write_whole(path: Path, text: bytes) -> Path:
    """Write a file that another build may read at this moment."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    temporary.write_bytes(text)
    return temporary.replace(path)


def _compile_rule(name: str, rule: Rule) -> str:
    command = f"{_words(rule.compiler)} $flags {_words(rule.flags)} -MD -MF $out.d -c $in -o $out"
    return (
        f"rule {name}\n  command = {command}\n  description = {name} $in ($isa)\n"
        "  depfile = $out.d\n  deps = gcc"
    )


def _words(words: Sequence[str]) -> str:
    return shlex.join(words).replace("$", "$$")


def _path(path: Path) -> str:
    return str(path).replace("$", "$$").replace(" ", "$ ").replace(":", "$:")
