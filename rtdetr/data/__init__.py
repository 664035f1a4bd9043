# SPDX-License-Identifier: Apache-2.0
"""Annotated images: reading, checking, augmenting and batching them."""

from .annotations import Annotations, Categories

__all__ = ["Annotations", "Categories"]
