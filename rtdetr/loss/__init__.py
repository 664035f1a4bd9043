# SPDX-License-Identifier: Apache-2.0
"""What training minimizes: which query is to find which object, and how far off it is."""

from .criterion import DenoisingPredictions, Predictions, compute_losses
from .matching import Matches, MatchingCosts, match
from .objects import BatchTotals, Labels, Objects

__all__ = [
    "BatchTotals",
    "DenoisingPredictions",
    "Labels",
    "Matches",
    "MatchingCosts",
    "Objects",
    "Predictions",
    "compute_losses",
    "match",
]
