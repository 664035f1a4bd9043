# SPDX-License-Identifier: Apache-2.0
"""Commands of the check: how each is put together, and how several run side by side."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Command", "Outcome", "run_together"]

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Command:
    """One program to run.

    Args:
        name: of its log file and in the report.
        words: program and arguments.
        seconds: after which it is stopped.
        folder: where it runs.
        environment: variables on top of the present ones.
        required: whether its failure fails the check.
    """

    name: str
    words: tuple[str, ...]
    seconds: float
    folder: Path = ROOT
    environment: Mapping[str, str] = field(default_factory=dict)
    required: bool = True

    def __str__(self) -> str:
        """As one would type it."""
        words = [f"{name}={shlex.quote(value)}" for name, value in self.environment.items()]
        return f"cd {self.folder} && {' '.join([*words, shlex.join(self.words)])}"


@dataclass(frozen=True)
class Outcome:
    """What came of one thing the check did.

    Args:
        name: of the command.
        status: ``"passed"``, ``"failed"``, ``"stopped"`` (out of time), ``"absent"`` (cannot run here) or
            ``"printed"`` (a dry run does not run it).
        seconds: how long it took.
        note: the last line of its output, or why it is absent.
        required: whether its failure fails the check.
    """

    name: str
    status: str
    seconds: float = 0.0
    note: str = ""
    required: bool = True

    @property
    def fails_the_check(self) -> bool:
        """Absence is reported, and is no failure."""
        return self.required and self.status in ("failed", "stopped")


def run_together(commands: Sequence[Command], logs: Path) -> list[Outcome]:
    """Run all at once, each into ``<logs>/<name>.log``; stop those that take too long."""
    logs.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    with ExitStack() as files:
        running = []
        for command in commands:
            print(f"  {command}", flush=True)
            log = files.enter_context((logs / f"{command.name}.log").open("w", encoding="utf-8"))
            running.append((command, _start(command, log.fileno())))
        return [_finish(command, process, start, logs) for command, process in running]


def _start(command: Command, log: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command.words,
        cwd=command.folder,
        env={**os.environ, **command.environment},
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # its children are stopped with it
    )


def _finish(
    command: Command, process: subprocess.Popen[bytes], start: float, logs: Path
) -> Outcome:
    left = start + command.seconds - time.monotonic()
    try:
        status = "failed" if process.wait(max(left, 0)) else "passed"
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        status = "stopped"
    text = (logs / f"{command.name}.log").read_text(encoding="utf-8", errors="replace")
    if status != "passed":
        print(f"--- {command.name}: {status}\n{text[-3000:]}", flush=True)
    lines = text.strip().splitlines()
    seconds = round(time.monotonic() - start, 1)
    return Outcome(
        command.name, status, seconds, lines[-1][:200] if lines else "", command.required
    )
