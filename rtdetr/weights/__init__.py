# SPDX-License-Identifier: Apache-2.0
"""Weights from and to files: of transformers, of the original, and ours, under one table of names."""

from .report import LoadReport
from .save import save_checkpoint, save_original, to_original_state_dict

__all__ = ["LoadReport", "save_checkpoint", "save_original", "to_original_state_dict"]
