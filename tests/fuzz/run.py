#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Fuzz both packages: ``python tests/fuzz/run.py --cases 100000``; ``--target NAME --seed N --cases 1`` repeats a case.

A case is its target and its seed. The last lines are a table; bad cases come above it, alike ones together.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS.parent), str(TESTS), str(TESTS / "rtdetr")]

import torch

from fuzz import detector_calls, image_files, model_files, operator_calls
from fuzz.forked import Case, run_cases
from fuzz.outcomes import Outcome, Verdict

EXAMPLES = 3  # seeds shown of each kind of failure

VARYING = re.compile(r"'[^']*'|\[[^\]]*\]|\b\d[\d.e+x-]*")
"""What differs between failures of one kind: quoted words, lists and numbers."""


@dataclass(frozen=True)
class Target:
    """What is fuzzed.

    Args:
        name: as on the command line.
        prepare: writes what cases need into a folder, and returns the case.
        share: of all cases, in parts of a hundred.
        limit_s: a case that takes longer hangs.
    """

    name: str
    prepare: Callable[[Path], Case]
    share: int
    limit_s: float = 60.0


TARGETS = (
    Target("operator-valid", operator_calls.prepare_valid, 15),
    Target("operator-odd", operator_calls.prepare_odd, 40),
    Target("detector-calls", detector_calls.prepare, 15),
    Target("settings", model_files.prepare_settings, 8),
    Target("weights", model_files.prepare_weights, 5),
    Target("pickles", model_files.prepare_pickles, 5),
    Target("images", image_files.prepare_images, 10),
    Target("videos", image_files.prepare_videos, 2),
)


@dataclass
class Tally:
    """What the cases of a target ended in."""

    verdicts: Counter[Verdict] = field(default_factory=Counter)
    failures: dict[tuple[Verdict, str], list[int]] = field(
        default_factory=lambda: defaultdict(list)
    )
    seconds: float = 0.0

    def add(self, seed: int, outcome: Outcome) -> None:
        self.verdicts[outcome.verdict] += 1
        if not outcome.good:
            self.failures[outcome.verdict, VARYING.sub("*", outcome.detail)].append(seed)

    @property
    def bad(self) -> int:
        return sum(map(len, self.failures.values()))


def main() -> int:
    options = _parse()
    torch.set_num_threads(1)  # a process with threads cannot be forked
    tallies = {}
    for target in TARGETS:
        if options.target in (None, target.name):
            share = 100 if options.target else target.share
            seeds = range(options.seed, options.seed + max(1, options.cases * share // 100))
            tallies[target.name] = tally = _fuzz(target, seeds, options.jobs)
            _print_failures(target.name, tally)
    print(_table(tallies))
    if options.json:
        verdicts = {
            name: {v.name: n for v, n in tally.verdicts.items()} for name, tally in tallies.items()
        }
        options.json.write_text(json.dumps(verdicts, indent=1))
    return int(any(tally.bad for tally in tallies.values()))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0, help="of the first case of each target")
    parser.add_argument("--target", choices=[target.name for target in TARGETS])
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--json", type=Path, help="write the counts there")
    return parser.parse_args()


def _fuzz(target: Target, seeds: range, jobs: int) -> Tally:
    tally, start = Tally(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        case = target.prepare(Path(folder))
        for seed, outcome in run_cases(case, seeds, jobs=jobs, limit_s=target.limit_s):
            tally.add(seed, outcome)
    tally.seconds = time.monotonic() - start
    return tally


def _print_failures(name: str, tally: Tally) -> None:
    for (verdict, detail), seeds in sorted(tally.failures.items(), key=lambda item: -len(item[1])):
        examples = ", ".join(map(str, sorted(seeds)[:EXAMPLES]))
        print(f"{name}: {verdict.value}: {len(seeds)} (seeds {examples}): {detail}", flush=True)


def _table(tallies: dict[str, Tally]) -> str:
    columns = [verdict.value for verdict in Verdict]
    lines = [("target", "cases", *columns, "s")]
    for name, tally in tallies.items():
        counts = [str(tally.verdicts[verdict]) for verdict in Verdict]
        lines.append((name, str(tally.verdicts.total()), *counts, f"{tally.seconds:.0f}"))
    total = [sum((tally.verdicts for tally in tallies.values()), Counter())[v] for v in Verdict]
    seconds = sum(tally.seconds for tally in tallies.values())
    lines.append(("all", str(sum(total)), *map(str, total), f"{seconds:.0f}"))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        for line in lines
    )


if __name__ == "__main__":
    sys.exit(main())
