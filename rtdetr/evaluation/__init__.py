# SPDX-License-Identifier: Apache-2.0
"""How good a detector is: predictions of a split, numbers from them, and plots of the numbers."""

from .evaluator import evaluate
from .metrics import ClassMetrics, Evaluation
from .predictions import PredictionTable, collect_predictions, merge_predictions
from .validation import validate

__all__ = [
    "ClassMetrics",
    "Evaluation",
    "PredictionTable",
    "collect_predictions",
    "evaluate",
    "merge_predictions",
    "validate",
]
