# SPDX-License-Identifier: Apache-2.0
"""Names of classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from .findings import Report

__all__ = ["check_names"]


def check_names(names: Sequence[str], source: str, report: Report) -> None:
    """Add an error for names that stand for two classes."""
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        report.add(
            "error",
            "repeated-name",
            len(repeated),
            repeated[0],
            f'{source}: the class name "{repeated[0]}" is used {names.count(repeated[0])} times; expected names that '
            "differ, since detections are told by them",
        )
