# SPDX-License-Identifier: Apache-2.0
"""Find the torch that `import torch` finds where the package is installed.

An isolated build cannot import it, so the interpreter that can is asked where it lies.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from front_end import FrontEnd, installing_pythons, read_front_end
from questions import ask

MINIMUM = (2, 10)
REQUIREMENT = f"torch>={MINIMUM[0]}.{MINIMUM[1]}"
# The stable ABI of that release as torch/headeronly/version.h writes it: one byte per part.
TARGET_VERSION = f"0x{MINIMUM[0]:02x}{MINIMUM[1]:02x}000000000000"

# Hexadecimal: a path may have any bytes, and the two interpreters may differ in how they read them.
_LOCATE = """
import importlib.util, os, sys
sys.path = [folder for folder in sys.path if folder]  # not where this happens to run
spec = importlib.util.find_spec("torch")
print(os.fsencode(spec and spec.origin or "").hex())
"""


@dataclass(frozen=True)
class TorchInstall:
    """A torch found on disk."""

    version: str  # as torch.__version__ gives it: "2.13.0+cpu"
    root: Path  # the package folder, with include/ and lib/
    found_by: str
    cuda: bool = True  # False: built without CUDA

    @property
    def new_enough(self) -> bool:
        """Whether the stable ABI this project is written against is there."""
        major, minor = self.version.split(".")[:2]
        return (int(major), int(minor)) >= MINIMUM


def find_torch() -> TorchInstall | None:
    """Return the torch named by RTDETR_OPS_TORCH, else the first one found, or None.

    Raises:
        SystemExit: RTDETR_OPS_TORCH names a folder without a torch that is new enough.
    """
    named = os.environ.get("RTDETR_OPS_TORCH")
    if named:
        return _named(Path(named).absolute())
    places = ((found_by, root) for found_by, root in _candidates() if _is_torch(root))
    return next((_read(root, found_by) for found_by, root in places), None)


def _named(folder: Path) -> TorchInstall:
    roots = [root for root in (folder / "torch", folder) if _is_torch(root)]
    torch = _read(roots[0], "RTDETR_OPS_TORCH") if roots else None
    if torch is None or not torch.new_enough:
        raise SystemExit(
            f"RTDETR_OPS_TORCH: expected a folder that holds {REQUIREMENT}, such as /path/to/site-packages; "
            f"got '{folder}', {f'with torch {torch.version}' if torch else 'without torch'}"
        )
    return torch


def _candidates() -> Iterator[tuple[str, Path]]:
    spec = importlib.util.find_spec("torch")  # a top-level name is located, not executed
    if spec is not None and spec.origin is not None:
        yield "the build environment", Path(spec.origin).parent
    front_end = read_front_end()
    for python in installing_pythons(front_end):
        yield "the installing environment", locate_torch(python, front_end)


def locate_torch(python: Path, front_end: FrontEnd) -> Path:
    """Return the folder of the torch that an interpreter would import in the shell of the front end."""
    answer = ask(*(str(python), "-c", _LOCATE), environ=front_end.environ, folder=front_end.folder)
    origin = "" if answer.refusal else answer.output.strip().rpartition("\n")[2]
    return Path(os.fsdecode(bytes.fromhex(origin))).parent


def _is_torch(root: Path) -> bool:
    return root.name == "torch" and (root / "version.py").is_file()


def _read(root: Path, found_by: str) -> TorchInstall:
    text = (root / "version.py").read_text(encoding="utf-8")
    version = re.search(r"^__version__\b.*=\s*['\"]([^'\"]+)", text, re.MULTILINE)
    if version is None:
        raise SystemExit(f"{root / 'version.py'}: expected a line __version__ = '...', found none")
    without_cuda = re.search(r"^cuda\b.*=\s*None\s*$", text, re.MULTILINE)
    return TorchInstall(version[1], root, found_by, cuda=without_cuda is None)
