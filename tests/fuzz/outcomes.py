# SPDX-License-Identifier: Apache-2.0
"""What a case ended in, and which errors are sentences: those that a check of these packages raised."""

from __future__ import annotations

import enum
import linecache
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

PACKAGES = ("rtdetr_ops", "rtdetr")

# What a registered operator says: the argument by its name first.
OF_OPERATOR = re.compile(r"[a-z_]+: expected ")
SENTENCE = re.compile(r"\S+.*\s\S+\s.*\S")  # three words at least
ADDRESS = re.compile(r" at 0x[0-9a-f]+")


class Verdict(enum.Enum):
    """How a case ended; the values are the columns of the report."""

    ANSWERED = "answered"
    REFUSED = "refused in a sentence"
    WRONG = "wrong answer"
    BARE = "error without a sentence"
    CRASH = "crash"
    HANG = "hang"


GOOD = (Verdict.ANSWERED, Verdict.REFUSED)


@dataclass(frozen=True)
class Outcome:
    """A verdict, and for a bad one what was seen."""

    verdict: Verdict
    detail: str = ""

    @property
    def good(self) -> bool:
        return self.verdict in GOOD


ANSWERED = Outcome(Verdict.ANSWERED)


def attempt(call: Callable[[], object], refusals: tuple[type[Exception], ...]) -> Outcome:
    """Run ``call``; an error is good if it is one of ``refusals``, raised by these packages, with a sentence."""
    try:
        call()
    except AssertionError as error:
        return Outcome(Verdict.WRONG, ADDRESS.sub("", str(error)))
    except Exception as error:
        return judge(error, refusals)
    return ANSWERED


def judge(error: Exception, refusals: tuple[type[Exception], ...]) -> Outcome:
    """Whether ``error`` is one that a user can act on."""
    place = _raised_in(error.__traceback__)
    ours = place.raises or (place.in_operator and OF_OPERATOR.match(str(error)))
    good = isinstance(error, refusals) and SENTENCE.search(str(error)) and ours
    if good:
        return Outcome(Verdict.REFUSED)
    line = " ".join(str(error).split())[:200]
    return Outcome(Verdict.BARE, f"{place.text}: {type(error).__name__}: {ADDRESS.sub('', line)}")


@dataclass(frozen=True)
class _Place:
    raises: bool  # whether it is a raise statement of these packages
    in_operator: bool  # whether it is a call of a registered operator
    text: str  # file:line function


def _raised_in(trace: TracebackType | None) -> _Place:
    """Where the innermost frame of an error is."""
    assert trace is not None
    while trace.tb_next is not None:
        trace = trace.tb_next
    code = trace.tb_frame.f_code
    path = Path(code.co_filename)
    line = linecache.getline(code.co_filename, trace.tb_lineno).lstrip()
    raises = line.startswith("raise") and any(name in path.parts for name in PACKAGES)
    in_operator = path.parts[-2:] == ("torch", "_ops.py")
    return _Place(
        raises, in_operator, f"{'/'.join(path.parts[-2:])}:{trace.tb_lineno} {code.co_name}"
    )
