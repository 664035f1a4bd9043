# SPDX-License-Identifier: Apache-2.0
"""Where the time of a call goes: functions that are timed from outside, while a program runs unchanged."""

from __future__ import annotations

import functools
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pkgutil import resolve_name
from typing import Any
from unittest import mock

__all__ = ["REST", "Stopwatch"]

REST = "all else"
"""The part that is none of the watched functions."""


class Stopwatch:
    """Seconds by part: of each function without those that it spends in other watched ones, on the host's clock.

    Args:
        clock: seconds since some moment.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._seconds: dict[str, float] = defaultdict(float)
        self._running = [REST]
        self._since = 0.0

    @contextmanager
    def watch(self, functions: Mapping[str, str]) -> Iterator[dict[str, float]]:
        """Time what happens inside.

        Args:
            functions: part to the dotted name under which its function is looked up when it is called.

        Yields:
            Seconds by part, complete at the end.
        """
        self._seconds.clear()
        with ExitStack() as stack:
            for part, name in functions.items():
                stack.enter_context(mock.patch(name, self._timed(part, resolve_name(name))))
            self._since = self._clock()
            yield self._seconds
            self._turn()

    def _timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def run(*arguments: Any, **keywords: Any) -> Any:
            self._turn()
            self._running.append(part)
            try:
                return function(*arguments, **keywords)
            finally:
                self._turn()
                self._running.pop()

        return run

    def _turn(self) -> None:
        """Give the time since the last turn to the part that runs."""
        now = self._clock()
        self._seconds[self._running[-1]] += now - self._since
        self._since = now
