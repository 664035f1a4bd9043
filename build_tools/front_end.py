# SPDX-License-Identifier: Apache-2.0
"""The program that started this build (pip, uv, `python -m build`), and the interpreters it may install for.

pip and build replace PYTHONPATH for a build, uv replaces VIRTUAL_ENV. What the program was itself started with is the
user's own shell.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

REPLACED = ("PYTHONPATH", "PYTHONNOUSERSITE", "VIRTUAL_ENV")


@dataclass(frozen=True)
class FrontEnd:
    """The parent process, as it was started."""

    program: str  # its first word: "/usr/bin/python3", "uv"
    environ: Mapping[str, str]
    folder: Path


def read_front_end() -> FrontEnd:
    """Return the parent process; where the system does not show it, this one without what a front end replaces."""
    process = Path("/proc", str(os.getppid()))
    try:
        program, *_ = _strings(process / "cmdline")
        environ = dict(entry.partition("=")[::2] for entry in _strings(process / "environ"))
        return FrontEnd(program, environ, (process / "cwd").readlink())
    except OSError:
        environ = {name: value for name, value in os.environ.items() if name not in REPLACED}
        return FrontEnd("", environ, Path.cwd())


def installing_pythons(front_end: FrontEnd) -> Iterator[Path]:
    """Yield the interpreters that the package may be installed for, the likeliest first."""
    if not made_for_the_build():
        yield Path(sys.executable)
        return
    if Path(front_end.program).name.startswith("python"):
        yield from _on_path(front_end, front_end.program)
    variables = map(front_end.environ.get, ("VIRTUAL_ENV", "CONDA_PREFIX"))
    environments = [Path(value) for value in variables if value]
    # uv takes the nearest .venv where none is activated.
    environments += [folder / ".venv" for folder in (front_end.folder, *front_end.folder.parents)]
    places = [environment / "bin" / "python" for environment in environments]
    places += [*_on_path(front_end, "python3"), *_on_path(front_end, "python")]
    yield from [place for place in places if place.is_file()][:1]


def made_for_the_build() -> bool:
    """Whether this interpreter's environment is the build's own.

    uv and build make one, with setuptools inside. pip runs the interpreter that it installs for, and has
    setuptools elsewhere.
    """
    setuptools = importlib.util.find_spec("setuptools")
    return setuptools is not None and Path(str(setuptools.origin)).is_relative_to(sys.prefix)


def _strings(path: Path) -> list[str]:
    return os.fsdecode(path.read_bytes()).rstrip("\0").split("\0")


def _on_path(front_end: FrontEnd, program: str) -> list[Path]:
    """Find a program as the shell of the front end does."""
    if os.sep in program:
        return [front_end.folder / program]
    found = shutil.which(program, path=front_end.environ.get("PATH", os.defpath))
    return [Path(found)] if found else []
