# SPDX-License-Identifier: Apache-2.0
"""What became of each weight when a model was loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["LoadReport", "Mismatch"]


@dataclass(frozen=True)
class Mismatch:
    """A weight that has another shape in the file than in the model."""

    name: str
    in_file: tuple[int, ...]
    in_model: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name} {list(self.in_file)} in the file, {list(self.in_model)} in the model"


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """Names of the model's weights by what became of them.

    Args:
        source: where they came from.
        loaded: taken from the file.
        reinitialized: freshly drawn, because they were missing or of another shape and that was allowed.
        missing: not in the file.
        unexpected: in the file, by its names, and not in the model.
        mismatched: of another shape.
        adapted: what was changed to fit other classes or queries, in sentences.
    """

    source: str
    loaded: tuple[str, ...] = ()
    reinitialized: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mismatched: tuple[Mismatch, ...] = ()
    adapted: tuple[str, ...] = ()

    @property
    def is_complete(self) -> bool:
        """Whether the file and the model fit without a remark."""
        return not (self.missing or self.unexpected or self.mismatched)

    def loading_info(self) -> dict[str, Any]:
        """As transformers' ``output_loading_info`` returns it."""
        return {
            "missing_keys": set(self.missing),
            "unexpected_keys": set(self.unexpected),
            "mismatched_keys": {(m.name, m.in_file, m.in_model) for m in self.mismatched},
            "error_msgs": [],
        }

    def __str__(self) -> str:
        lines = [f"{self.source}: {len(self.loaded)} weights loaded"]
        for kind in ("reinitialized", "unexpected"):
            names = getattr(self, kind)
            if names:
                lines.append(f"{len(names)} {kind}: {shortened(names)}")
        return "; ".join([*lines, *self.adapted])


def shortened(names: Sequence[object], count: int = 3) -> str:
    """The first few of ``names``."""
    more = f", ... ({len(names) - count} more)" if len(names) > count else ""
    return ", ".join(map(str, names[:count])) + more
