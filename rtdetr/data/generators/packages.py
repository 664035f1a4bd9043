# SPDX-License-Identifier: Apache-2.0
"""Where installed packages are, without importing them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

__all__ = ["package_folders"]


def package_folders(name: str) -> list[Path]:
    """The folders of a package; none if it is not installed."""
    spec = importlib.util.find_spec(name)
    return [Path(path) for path in (spec.submodule_search_locations or ())] if spec else []
