# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C, SIGTERM and SIGHUP as a request that a run answers between two steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ..errors import RTDetrError

__all__ = ["SIGNALS", "InterruptedRunError", "Interruption"]

SIGNALS = tuple(
    int(getattr(signal, name))
    for name in ("SIGINT", "SIGTERM", "SIGHUP")
    if hasattr(signal, name)  # Windows has no SIGHUP
)
"""Ctrl-C, what a batch system sends, and what a terminal sends that is closed."""


class InterruptedRunError(RTDetrError):
    """A run was asked to stop, and has written a checkpoint.

    Args:
        sentence: what to do to go on.
        signal_number: of what asked; it decides the exit code.
    """

    def __init__(self, sentence: str, signal_number: int) -> None:
        super().__init__(sentence)
        self.exit_code = 128 + signal_number  # type: ignore[misc] # the class has a default


class Interruption:
    """Which signal has asked to stop, if any. A second one ends the program at once."""

    def __init__(self) -> None:
        self.signal_number: int | None = None

    @classmethod
    @contextmanager
    def listening(cls) -> Iterator[Interruption]:
        """Take the signals inside the ``with`` block; in a thread, which cannot, none is ever requested."""
        interruption = cls()
        if threading.current_thread() is not threading.main_thread():
            yield interruption
            return
        before = {
            number: handler
            for number in SIGNALS
            # One that is ignored stays so (nohup), and None is a handler of C, which Python cannot put back.
            if (handler := signal.getsignal(number)) not in (signal.SIG_IGN, None)
        }

        def request(number: int, _: FrameType | None) -> None:
            interruption.signal_number = number
            signal.signal(number, before[number])

        for number in before:
            signal.signal(number, request)
        try:
            yield interruption
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
