# SPDX-License-Identifier: Apache-2.0
"""What people call the splits of a data set, in folders and in files."""

from __future__ import annotations

__all__ = ["SPLIT_NAMES"]

SPLIT_NAMES = {"train": ("train",), "val": ("val", "valid", "validation")}
