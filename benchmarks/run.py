# SPDX-License-Identifier: Apache-2.0
"""Run the benchmarks and write one JSON file."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from core.devices import CpuDevice
from core.machine import describe, result_path
from core.peers import CONTENDERS
from core.records import Record, Run, from_pytest, save
from suites.detector import measure_detectors
from suites.end_to_end import measure_models
from suites.overhead import measure_calls, measure_import
from suites.training_step import measure_training

OPERATOR = Path(__file__).resolve().parent / "suites"
"""Holds the files of pytest-benchmark."""

MEASURES = {
    "import": lambda device, options: measure_import(options.quick),
    "call": lambda device, options: measure_calls(device, options.quick),
    "model": lambda device, options: measure_models(device, options.quick),
    "detector": lambda device, options: measure_detectors(device, options.quick),
    "training": lambda device, options: measure_training(device, options.quick),
    "op": lambda device, options: _measure_op(options.quick, options.threads),
}


def main() -> None:
    """Measure, then say where the file is."""
    options = _options()
    torch.set_num_threads(options.threads)
    device = CpuDevice()
    machine = describe(device, options.threads)
    contenders = {
        contender.name: contender.version()
        for contender in CONTENDERS
        if contender.runs_on(device.type)
    }
    path = options.json or result_path(machine)
    records: list[Record] = []
    for name in options.only:
        print(f"measuring: {name}", flush=True)
        records += MEASURES[name](device, options)
        save(Run(machine, contenders, tuple(records)), path)  # what is measured outlives what fails
    print(path)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few small cases, one round")
    parser.add_argument("--threads", type=int, default=2, help="torch threads")
    parser.add_argument("--json", type=Path, help="where to write; else benchmarks/results/")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=list(MEASURES),
        default=list(MEASURES),
        help="parts to measure; all by default",
    )
    return parser.parse_args()


def _measure_op(quick: bool, threads: int) -> list[Record]:
    """The pytest-benchmark files, in a process of their own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "op.json"
        command = [sys.executable, "-m", "pytest", str(OPERATOR), "-q", "-p", "no:cacheprovider"]
        command += ["--benchmark-disable-gc", "--benchmark-columns=min,median,rounds"]
        command += [f"--threads={threads}", f"--benchmark-json={path}"]
        command += ["--quick"] if quick else []
        subprocess.run(command, check=True)
        return from_pytest(json.loads(path.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
