# SPDX-License-Identifier: Apache-2.0
"""The packages that training needs beside those of the detector, looked for before the work that needs them."""

from __future__ import annotations

from importlib.util import find_spec

from ..errors import MissingExtraError

__all__ = ["require_packages"]

PACKAGES = {"faster_coco_eval": "faster-coco-eval", "scipy": "scipy", "yaml": "pyyaml"}
FOR_PLOTS = {"matplotlib": "matplotlib"}


def require_packages(has_plots: bool) -> None:
    """Look whether all are installed.

    Raises:
        MissingExtraError: one is not.
    """
    for module, package in (PACKAGES | (FOR_PLOTS if has_plots else {})).items():
        if find_spec(module) is None:
            raise MissingExtraError("Training", package, '"rtdetr-ops[train]"')
