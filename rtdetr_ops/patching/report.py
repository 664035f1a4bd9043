# SPDX-License-Identifier: Apache-2.0
"""What ``patch`` and ``unpatch`` did, for a person (``print(report)``) and for a program (its fields)."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Change", "PatchReport", "Skip"]


@dataclass(frozen=True)
class Change:
    """``count`` layers (or one class of layers) that were patched, or restored, in one way.

    Attributes:
        subject: their class.
        how: what was replaced.
        count: how many.
        note: where the results differ from those of the code that was replaced; empty where they do not.
    """

    subject: str
    how: str
    count: int = 1
    note: str = ""

    def __str__(self) -> str:
        line = f"{self.count} x {self.subject}: {self.how}"
        return f"{line}\n    note: {self.note}" if self.note else line


@dataclass(frozen=True)
class Skip:
    """``count`` layers that look like deformable attention and were left alone, and why."""

    subject: str
    reason: str
    count: int = 1

    def __str__(self) -> str:
        return f"{self.count} x {self.subject}: skipped, {self.reason}"


@dataclass(frozen=True)
class PatchReport:
    """The outcome of one call of ``patch`` or ``unpatch``.

    A report is true when the target now runs as asked: something was changed, or was so already.

    Attributes:
        action: ``"patch"`` or ``"unpatch"``.
        target: the name of what was passed.
        changes: what this call replaced or restored.
        already: what an earlier ``patch`` had replaced.
        skips: what was left alone, with reasons.
    """

    action: str
    target: str
    changes: tuple[Change, ...] = ()
    already: tuple[Change, ...] = ()
    skips: tuple[Skip, ...] = field(default=())

    @property
    def patched(self) -> int:
        """How many layers this call changed; where the target is code, how many classes of layers."""
        return sum(change.count for change in self.changes)

    @property
    def already_patched(self) -> int:
        return sum(change.count for change in self.already)

    @property
    def skipped(self) -> int:
        return sum(skip.count for skip in self.skips)

    def __bool__(self) -> bool:
        return self.patched + self.already_patched > 0

    def __str__(self) -> str:
        lines = [f"{self.action}({self.target}): {self._summary()}"]
        lines += [f"  {change}" for change in self.changes]
        lines += [f"  {change} (already patched)" for change in self.already]
        lines += [f"  {skip}" for skip in self.skips]
        return "\n".join(lines)

    def _summary(self) -> str:
        if not (self or self.skips):
            return f"nothing to {self.action}: no {_SOUGHT[self.action]} in {self.target}"
        parts = [f"{self.patched} {self.action}ed"]
        if self.already_patched:
            parts.append(f"{self.already_patched} already patched")
        return ", ".join([*parts, f"{self.skipped} skipped"])


_SOUGHT = {"patch": "known deformable attention", "unpatch": "patched deformable attention"}
