# SPDX-License-Identifier: Apache-2.0
"""Annotated images: reading, checking, augmenting and batching them."""

from .annotations import Annotations, Categories
from .augmentation import Augmentation, strong_epochs
from .balance import repeat_factors
from .dataset import Batch, DetectionDataset, Item, Key, ObjectLabels, collate
from .findings import Finding, Report
from .fingerprint import list_changes
from .load import DataSource, DataSplits, Split, check_data, load_data
from .loader import end_workers, make_loader
from .multi_scale import resize_batch, side_of_step, sides_for
from .options import ReadOptions
from .sampling import TrainingBatches, shard_batches

__all__ = [
    "Annotations",
    "Augmentation",
    "Batch",
    "Categories",
    "DataSource",
    "DataSplits",
    "DetectionDataset",
    "Finding",
    "Item",
    "Key",
    "ObjectLabels",
    "ReadOptions",
    "Report",
    "Split",
    "TrainingBatches",
    "check_data",
    "collate",
    "end_workers",
    "list_changes",
    "load_data",
    "make_loader",
    "repeat_factors",
    "resize_batch",
    "shard_batches",
    "side_of_step",
    "sides_for",
    "strong_epochs",
]
