# SPDX-License-Identifier: Apache-2.0
"""The result file while it grows: what is measured, what failed, what was left out.

It is saved after every entry. Before a contender runs its failure is written down in advance: if
the process dies, the entry stays, and the next process goes on after it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median, quantiles
from typing import NamedTuple

from core.records import Record, load, save

__all__ = ["Key", "Measurement", "ResultFile"]

DIED = "the process died"

Measurement = tuple[Sequence[float], Mapping[str, float]]
"""Seconds of every repetition, and what else was found out."""


class Key(NamedTuple):
    """What one entry is about."""

    suite: str
    case: str
    contender: str


class ResultFile:
    """A result file that exists already, with a run that is under way.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._run = load(path)
        self._checks = self._run.gpu_check or {}
        self._failures = {Key(*entry[:3]): entry[3] for entry in self._checks.get("failures", [])}
        self._records = {Key(r.suite, r.case, r.contender): r for r in self._run.records}

    def has(self, key: Key) -> bool:
        """Whether there is nothing left to do for ``key``."""
        return key in self._records or key in self._failures

    def add_versions(self, versions: dict[str, str | None]) -> None:
        """Who takes part, in which version."""
        self._run = replace(self._run, contenders=self._run.contenders | versions)
        self._save()

    def begin(self, keys: Sequence[Key]) -> None:
        """``keys`` are next."""
        self._failures.update(dict.fromkeys(keys, DIED))
        self._save()

    def attempt(self, key: Key, measure: Callable[[], Measurement]) -> None:
        """Measure ``key``; whatever that raises is its result."""
        try:
            seconds, details = measure()
        except Exception as error:
            self.fail(key, error)
        else:
            self.add(key, seconds, **details)
            print(*key, f"{min(seconds):.3g} s", sep=" | ", flush=True)

    def fail(self, key: Key, error: Exception) -> None:
        """``key`` cannot be measured."""
        text = f"{type(error).__name__}: {error}"
        print(*key, text, sep=" | ", flush=True)
        self._failures[key] = text.splitlines()[0][:300]
        self._save()

    def add(self, key: Key, seconds: Sequence[float], **details: float) -> None:
        """``key`` took these seconds."""
        spread = dict(zip(("q1_s", "q3_s"), quantiles(seconds, n=4)[::2], strict=True))
        self._failures.pop(key, None)
        self._records[key] = Record(
            *key, median(seconds), min(seconds), len(seconds), spread | details
        )
        self._save()

    def leave_out(self, keys: Sequence[Key]) -> None:
        """There was no time for ``keys``."""
        self._checks.setdefault("not_reached", []).extend(list(key) for key in keys)
        self._save()

    def _save(self) -> None:
        failures = [[*key, reason] for key, reason in self._failures.items()]
        checks = self._checks | {"failures": failures}
        run = replace(self._run, records=tuple(self._records.values()), gpu_check=checks)
        save(run, self._path)
