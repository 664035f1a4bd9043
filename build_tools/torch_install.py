# SPDX-License-Identifier: Apache-2.0
"""Find the installed torch without importing it: inside an isolated build it cannot be imported."""

from __future__ import annotations

import importlib.util
import os
import re
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MINIMUM = (2, 10)
REQUIREMENT = f"torch>={MINIMUM[0]}.{MINIMUM[1]}"
# The stable ABI of that release as torch/headeronly/version.h writes it: one byte per part.
TARGET_VERSION = f"0x{MINIMUM[0]:02x}{MINIMUM[1]:02x}000000000000"


@dataclass(frozen=True)
class TorchInstall:
    """A torch found on disk."""

    version: str  # as torch.__version__ gives it: "2.13.0+cpu"
    root: Path  # the package folder, with include/ and lib/
    found_by: str

    @property
    def new_enough(self) -> bool:
        """Whether the stable ABI this project is written against is there."""
        major, minor = self.version.split(".")[:2]
        return (int(major), int(minor)) >= MINIMUM


def find_torch() -> TorchInstall | None:
    """Return the first torch found, or None."""
    for found_by, root in _candidates():
        version_file = root / "version.py"
        if version_file.is_file():
            return TorchInstall(_read_version(version_file), root, found_by)
    return None


def _candidates() -> Iterator[tuple[str, Path]]:
    spec = importlib.util.find_spec("torch")  # a top-level name is located, not executed
    if spec is not None and spec.origin is not None:
        yield "the build environment", Path(spec.origin).parent
    # pip isolates a build by hiding site-packages from sys.path; the interpreter, and so sysconfig,
    # remain those of the environment that pip installs into.
    for scheme in (sysconfig.get_default_scheme(), f"{os.name}_user"):
        for key in ("purelib", "platlib"):
            yield "the installing environment", Path(sysconfig.get_path(key, scheme)) / "torch"


def _read_version(version_file: Path) -> str:
    match = re.search(r"^__version__\s*=\s*['\"]([^'\"]+)", version_file.read_text(), re.MULTILINE)
    if match is None:
        raise RuntimeError(f"{version_file}: expected a line __version__ = '...', found none")
    return match.group(1)
