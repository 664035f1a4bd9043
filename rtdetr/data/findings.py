# SPDX-License-Identifier: Apache-2.0
"""What is wrong or odd with a data set, as data: each finding is one sentence with a count and the first place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from ..errors import DataError

__all__ = ["FatalFindingError", "Finding", "Report", "Severity"]

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """One kind of thing, however often it occurs in a file.

    Args:
        severity: "error": training does not start; "warning": it is likely not meant; "note": for information.
        kind: a short fixed name, such as "unknown-category".
        count: how often.
        first: the first image or place.
        sentence: file, place, what was found, and what was expected.
        all: every image, where a user needs them all.
    """

    severity: Severity
    kind: str
    count: int
    first: str
    sentence: str
    all: tuple[str, ...] = ()


class FatalFindingError(DataError):
    """A finding after which a file cannot be read any further."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.sentence)
        self.finding = finding


@dataclass
class Report:
    """The findings of a data set, in the order in which they were made."""

    findings: list[Finding] = field(default_factory=list)

    def add(self, severity: Severity, kind: str, count: int, first: str, sentence: str) -> None:
        """Add a finding; none where ``count`` is 0."""
        if count:
            self.insert(Finding(severity, kind, count, first, sentence))

    def insert(self, finding: Finding) -> None:
        """Add a finding that is not there yet: a file that train and val share is read for both."""
        if finding not in self.findings:
            self.findings.append(finding)

    def add_droppable(
        self,
        option: str,
        is_dropped: bool,
        kind: str,
        count: int,
        first: str,
        sentence: str,
        every: Sequence[str] = (),
    ) -> None:
        """Add what the field ``option`` of the read options lets pass: a warning then, else an error naming it."""
        way = "Left out." if is_dropped else f"Correct this, or leave it out ({option})."
        severity: Severity = "warning" if is_dropped else "error"
        if count:
            self.insert(Finding(severity, kind, count, first, f"{sentence}. {way}", tuple(every)))

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    def of(self, severity: Severity) -> list[Finding]:
        return [finding for finding in self.findings if finding.severity == severity]

    def failures(self, strict: bool = False) -> list[Finding]:
        """What keeps training from starting: the errors, and with ``strict`` the warnings too."""
        return self.of("error") + (self.of("warning") if strict else [])

    def raise_failures(self, strict: bool = False) -> None:
        """Raise one ``DataError`` with the sentences of all failures.

        Raises:
            DataError: if there are any.
        """
        failures = self.failures(strict)
        if failures:
            raise DataError("\n".join(finding.sentence for finding in failures))

    def lines(self) -> list[str]:
        """``error    sentence``, errors first."""
        return [
            f"{severity:8} {finding.sentence}"
            for severity in SEVERITIES
            for finding in self.of(severity)
        ]

    def as_dicts(self) -> list[dict[str, Any]]:
        """The findings for JSON; "all" only where it is not empty."""
        dicts = [asdict(finding) for finding in self.findings]
        return [{key: value for key, value in entry.items() if value != ()} for entry in dicts]


def fail(kind: str, first: str, sentence: str, count: int = 1) -> FatalFindingError:
    """The exception for a finding after which a file cannot be read."""
    return FatalFindingError(Finding("error", kind, count, first, sentence))


def number(count: int, noun: str, plural: str | None = None) -> str:
    """``1 image``, ``2 images``, ``3 boxes``."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"
