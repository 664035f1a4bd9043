# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C and SIGTERM as a request that a run answers between two steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ..errors import RTDetrError

__all__ = ["InterruptedRunError", "Interruption"]

SIGNALS = (int(signal.SIGINT), int(signal.SIGTERM))


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

    @property
    def is_requested(self) -> bool:
        return self.signal_number is not None

    @classmethod
    @contextmanager
    def listening(cls) -> Iterator[Interruption]:
        """Take the signals inside the ``with`` block; in a thread, which cannot, none is ever requested."""
        interruption = cls()
        if threading.current_thread() is not threading.main_thread():
            yield interruption
            return
        before = {number: signal.getsignal(number) for number in SIGNALS}

        def request(number: int, _: FrameType | None) -> None:
            interruption.signal_number = number
            signal.signal(number, before[number])

        for number in SIGNALS:
            if before[number] is not signal.SIG_IGN:
                signal.signal(number, request)
        try:
            yield interruption
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
