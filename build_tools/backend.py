# SPDX-License-Identifier: Apache-2.0
"""PEP 517/660 backend: setuptools, plus torch as a build requirement only where none is installed.

Listing torch under [build-system] would make every isolated build download a second torch. The
libraries link against the stable ABI, so the torch that is already there serves as well.
"""

from __future__ import annotations

from typing import Any

from needs import check_needs

check_needs()

from setuptools import build_meta
from setuptools.build_meta import (
    build_editable,
    build_sdist,
    build_wheel,
    get_requires_for_build_sdist,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

from torch_install import REQUIREMENT, find_torch

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]


def get_requires_for_build_wheel(config_settings: Any = None) -> list[str]:
    """Requirements beyond [build-system] for a wheel."""
    return [*build_meta.get_requires_for_build_wheel(config_settings), *_torch_requirement()]


def get_requires_for_build_editable(config_settings: Any = None) -> list[str]:
    """Requirements beyond [build-system] for an editable install."""
    return [*build_meta.get_requires_for_build_editable(config_settings), *_torch_requirement()]


def _torch_requirement() -> list[str]:
    torch = find_torch()
    return [] if torch is not None and torch.new_enough else [REQUIREMENT]
