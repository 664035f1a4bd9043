# SPDX-License-Identifier: Apache-2.0
"""Everything there is to find out on a machine with a GPU, within minutes and in one JSON file.

Builds and installs the package and the peers in .peers/, runs the microbenchmarks, the benchmarks,
tests/gpu and some of these under compute-sanitizer. What one part finds outlives what fails in another.
The status is 1 if anything of this package failed; a peer that fails is reported.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from core.devices import Device, find_device
from core.machine import RESULTS, ROOT, describe, result_path
from core.records import DETECTOR, Run, load, save
from core.tables import is_ours

from gpu import steps
from gpu.commands import Command, Outcome, run_together
from gpu.summary import summary
from gpu.targets import judge
from nvcc import nvcc_path

__all__ = ["main"]

Step = Callable[[steps.Setting, Path, float], Command]

DETECTOR_SHARE = 0.3
"""Of the time that is left, for the detectors; the operator comes after them."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts, print the summary, return the exit status."""
    options = _options(arguments)
    start = time.monotonic()
    check = Check(options, find_device(options.dry_run), start + 60 * options.minutes)
    for name in options.only:
        print(f"== {name} (after {time.monotonic() - start:.0f} s)", flush=True)
        if not PARTS[name](check):
            break
    check.judge()
    run = load(check.path)
    print(summary(run), check.path, sep="\n")
    return int(failed(run))


class Check:
    """One run of the check: its setting and its result file.

    Every part returns whether it makes sense to go on.
    """

    def __init__(self, options: argparse.Namespace, device: Device, deadline: float) -> None:
        machine, nvcc = describe(device, threads=os.cpu_count() or 1), nvcc_path()
        self._deadline = deadline
        self._setting = steps.Setting(
            capability=machine["capability"],
            work=options.work.resolve(),
            nvcc=str(nvcc) if nvcc else None,
            dry_run=options.dry_run,
        )
        self._setting.work.mkdir(parents=True, exist_ok=True)
        if options.commit is not None:
            machine["commit"] = options.commit
        results = options.work / "dry-run" if options.dry_run else options.results
        self.path = result_path(machine, results.resolve())
        if not self.path.exists() or set(options.only) == set(PARTS):
            save(Run(machine, {}, (), {"dry_run": options.dry_run, "steps": []}), self.path)

    def build(self) -> bool:
        """Package and peers; without the package there is nothing to look at."""
        outcomes = self._run(steps.build(self._setting), in_dry_run=False)
        outcomes += self._run(steps.look(self._setting), in_dry_run=False)
        return not any(outcome.fails_the_check for outcome in outcomes)

    def test(self) -> bool:
        """The tests."""
        self._run(steps.test(self._setting))
        return True

    def sanitize(self) -> bool:
        """A few of the tests under each tool of compute-sanitizer."""
        commands = steps.sanitize(self._setting)
        if commands:
            self._run(commands, in_dry_run=False)
        else:
            self._note(Outcome("compute-sanitizer", "absent", note="neither on PATH nor by nvcc"))
        return True

    def micro(self) -> bool:
        """The ceilings: compile, then measure with nothing beside it."""
        compilation = steps.micro(self._setting)
        if not compilation:
            self._note(Outcome("nvcc micro.cu", "absent", note="nvcc not found"))
        elif not any(outcome.fails_the_check for outcome in self._run(compilation)):
            command = steps.ceilings(self._setting)
            if self._run([command], in_dry_run=False)[0].status == "passed":
                log = self._setting.work / f"{command.name}.log"
                self._save(ceilings=json.loads(log.read_text(encoding="utf-8")))
        return True

    def benchmarks(self) -> bool:
        """The operator."""
        return self._measure(steps.measure, lambda suite: suite != DETECTOR, 1.0)

    def detector(self) -> bool:
        """Whole detectors, in a part of the time."""
        return self._measure(steps.detect, lambda suite: suite == DETECTOR, DETECTOR_SHARE)

    def _measure(self, step: Step, owns: Callable[[str], bool], share: float) -> bool:
        """Contenders in a process of their own that is started again where it died.

        A kernel that faults takes the whole process with it.
        """
        self._forget(owns)
        deadline = time.monotonic() + share * (self._deadline - time.monotonic())
        while True:
            before = _entries(load(self.path))
            left = deadline - time.monotonic()
            command = step(self._setting, self.path, max(left, 0))
            died = self._run([command])[0].status != "passed"
            if not died or left < 0:
                return True
            if _entries(load(self.path)) == before:
                self._note(Outcome(command.name, "failed", note="died before it did anything"))
                return True

    def _forget(self, owns: Callable[[str], bool]) -> None:
        """Leave out the results of an earlier run in these suites."""
        run = load(self.path)
        notes = run.gpu_check or {}
        others = {
            name: [entry for entry in notes.get(name, []) if not owns(entry[0])]
            for name in ("failures", "not_reached")
        }
        save(replace(run, records=tuple(r for r in run.records if not owns(r.suite))), self.path)
        self._save(**others)

    def judge(self) -> None:
        """Compare the results with the targets."""
        self._save(targets=[asdict(judgment) for judgment in judge(load(self.path))])

    def _run(self, commands: list[Command], in_dry_run: bool = True) -> list[Outcome]:
        if self._setting.dry_run and not in_dry_run:
            print(*(f"  would run: {command}" for command in commands), sep="\n")
            outcomes = [Outcome(command.name, "printed") for command in commands]
        else:
            outcomes = run_together(commands, self._setting.work)
        self._note(*outcomes)
        return outcomes

    def _note(self, *outcomes: Outcome) -> None:
        """The last outcome of each step is kept, wherever it came from."""
        results = {step["name"]: step for step in (load(self.path).gpu_check or {})["steps"]}
        results.update((outcome.name, asdict(outcome)) for outcome in outcomes)
        self._save(steps=list(results.values()))

    def _save(self, **notes: Any) -> None:
        run = load(self.path)
        save(replace(run, gpu_check={**(run.gpu_check or {}), **notes}), self.path)


PARTS: dict[str, Callable[[Check], bool]] = {
    "build": Check.build,
    "micro": Check.micro,
    "detector": Check.detector,
    "benchmarks": Check.benchmarks,
    "tests": Check.test,
    "sanitize": Check.sanitize,
}


def _entries(run: Run) -> int:
    """How much of the benchmarks is done, well or badly."""
    return len(run.records) + len((run.gpu_check or {})["failures"])


def failed(run: Run) -> bool:
    """Whether a step failed, or a contender of this package did."""
    notes = run.gpu_check or {}
    ours = [name for _, _, name, _ in notes.get("failures", []) if is_ours(name)]
    return bool(ours) or any(Outcome(**step).fails_the_check for step in notes["steps"])


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="gpu_check.py", description=__doc__)
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="no GPU: print what cannot run, put tiny cases on the CPU through the rest",
    )
    parser.add_argument(
        "--only",
        nargs="+",
        choices=list(PARTS),
        default=list(PARTS),
        help="parts; all by default; less than all go into the file of this commit if there is one",
    )
    parser.add_argument(
        "--commit", help="of these sources, where they lie without their repository"
    )
    parser.add_argument(
        "--minutes", type=float, default=5, help="when to start no more contenders; default 5"
    )
    parser.add_argument(
        "--results",
        type=Path,
        default=RESULTS,
        help="folder of result files; a dry run has its own",
    )
    parser.add_argument(
        "--work", type=Path, default=ROOT / "build" / "gpu-check", help="folder of logs"
    )
    return parser.parse_args(arguments)
