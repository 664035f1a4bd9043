# SPDX-License-Identifier: Apache-2.0
"""Putting the op into other people's detectors: on request, reported, and reversible."""

from .patch import patch, unpatch
from .report import Change, PatchReport, Skip
from .shim import install_shim, remove_shim

__all__ = ["Change", "PatchReport", "Skip", "install_shim", "patch", "remove_shim", "unpatch"]
