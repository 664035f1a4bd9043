# SPDX-License-Identifier: Apache-2.0
"""Cases run in forked processes, so that one that crashes or hangs is counted and the others go on."""

from __future__ import annotations

import json
import os
import selectors
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NoReturn

from .outcomes import Outcome, Verdict

Case = Callable[[int], Outcome]  # of a seed


@dataclass
class _Lane:
    """One child at a time, working through its seeds in order."""

    seeds: Sequence[int]
    done: int = 0
    process: int = 0
    pipe: int = -1
    pending: bytes = b""
    since: float = 0.0  # when the case at hand began

    @property
    def seed(self) -> int:
        return self.seeds[self.done]


def run_cases(
    case: Case, seeds: Sequence[int], *, jobs: int, limit_s: float
) -> Iterator[tuple[int, Outcome]]:
    """The outcome of each seed, as it comes.

    Args:
        case: judges one seed; runs in a child, and this process must not have started threads.
        seeds: one case each.
        jobs: children at a time.
        limit_s: a case that takes longer is a hang.
    """
    selector = selectors.DefaultSelector()
    lanes = [_Lane(seeds[start::jobs]) for start in range(min(jobs, len(seeds)))]
    for lane in lanes:
        _start(lane, case, selector)
    try:
        while selector.get_map():
            for key, _ in selector.select(timeout=0.2):
                yield from _read(key.data, case, selector)
            for key in list(selector.get_map().values()):
                if time.monotonic() - key.data.since > limit_s:
                    yield from _end_hang(key.data, case, selector, limit_s)
    finally:
        for key in list(selector.get_map().values()):
            os.kill(key.data.process, signal.SIGKILL)
            os.waitpid(key.data.process, 0)


def _start(lane: _Lane, case: Case, selector: selectors.BaseSelector) -> None:
    lane.pipe, writing = os.pipe()
    sys.stdout.flush()
    lane.process = os.fork()
    if lane.process == 0:
        os.close(lane.pipe)
        _work(case, lane.seeds[lane.done :], writing)
    os.close(writing)
    lane.pending, lane.since = b"", time.monotonic()
    selector.register(lane.pipe, selectors.EVENT_READ, lane)


def _work(case: Case, seeds: Sequence[int], writing: int) -> NoReturn:
    """In the child: a line of JSON for each outcome; what cases print goes nowhere."""
    status = 1
    try:
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nowhere, stream)
        for seed in seeds:
            outcome = _run(case, seed)
            os.write(writing, json.dumps([outcome.verdict.name, outcome.detail]).encode() + b"\n")
        status = 0
    finally:
        os._exit(status)  # without what the parent would do at its end


def _run(case: Case, seed: int) -> Outcome:
    try:
        return case(seed)
    except Exception as error:
        return Outcome(Verdict.BARE, f"the case itself: {type(error).__name__}: {error}")


def _read(
    lane: _Lane, case: Case, selector: selectors.BaseSelector
) -> Iterator[tuple[int, Outcome]]:
    data = os.read(lane.pipe, 1 << 16)
    *lines, lane.pending = (lane.pending + data).split(b"\n")
    for line in lines:
        name, detail = json.loads(line)
        yield lane.seed, Outcome(Verdict[name], detail)
        lane.done += 1
        lane.since = time.monotonic()
    if not data:
        status = _reap(lane, selector)
        if lane.done < len(lane.seeds):
            yield from _go_on(lane, case, selector, Outcome(Verdict.CRASH, _how(status)))


def _end_hang(
    lane: _Lane, case: Case, selector: selectors.BaseSelector, limit_s: float
) -> Iterator[tuple[int, Outcome]]:
    os.kill(lane.process, signal.SIGKILL)
    _reap(lane, selector)
    outcome = Outcome(Verdict.HANG, f"not done after {limit_s:g} s")
    yield from _go_on(lane, case, selector, outcome)


def _go_on(
    lane: _Lane, case: Case, selector: selectors.BaseSelector, outcome: Outcome
) -> Iterator[tuple[int, Outcome]]:
    yield lane.seed, outcome
    lane.done += 1
    if lane.done < len(lane.seeds):
        _start(lane, case, selector)


def _reap(lane: _Lane, selector: selectors.BaseSelector) -> int:
    selector.unregister(lane.pipe)
    os.close(lane.pipe)
    return os.waitstatus_to_exitcode(os.waitpid(lane.process, 0)[1])


def _how(status: int) -> str:
    return signal.Signals(-status).name if status < 0 else f"exit status {status}"
