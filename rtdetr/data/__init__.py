# SPDX-License-Identifier: Apache-2.0
"""Annotated images: reading, checking, augmenting and batching them."""

from .annotations import Annotations, Categories
from .findings import Finding, Report
from .load import DataSplits, Split, check_data, load_data
from .options import ReadOptions

__all__ = [
    "Annotations",
    "Categories",
    "DataSplits",
    "Finding",
    "ReadOptions",
    "Report",
    "Split",
    "check_data",
    "load_data",
]
