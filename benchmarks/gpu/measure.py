# SPDX-License-Identifier: Apache-2.0
"""Check and time what is planned, for as long as there is time; goes on where an earlier process died."""

from __future__ import annotations

import argparse
import faulthandler
import time
from functools import partial
from pathlib import Path

from core.devices import Device, Limits, find_device

from gpu import detector_plan, operator_plan
from gpu.jobs import Job
from gpu.result_file import Key, ResultFile

PLANS = {"operator": operator_plan.plan, "detector": detector_plan.plan}


def main() -> None:
    """Measure what the file does not have yet."""
    options = _options()
    deadline = time.monotonic() + options.seconds
    device, result_file = find_device(options.dry_run), ResultFile(options.json)
    plan = PLANS[options.plan](device, options.dry_run)
    result_file.add_versions(plan.versions)
    for job in plan.jobs:
        keys = [key for key in job.keys if not result_file.has(key)]
        if time.monotonic() > deadline:
            result_file.leave_out(keys)
        elif keys:
            faulthandler.dump_traceback_later(plan.hangs, exit=True)
            _measure(job, keys, device, result_file, plan.limits)
            device.free_memory()
            device.synchronize()  # raises, and so ends this process, where the device is lost
            faulthandler.cancel_dump_traceback_later()


def _measure(
    job: Job, keys: list[Key], device: Device, result_file: ResultFile, limits: Limits
) -> None:
    result_file.begin(keys)
    try:
        measure = job.prepare(device, limits)
    except Exception as error:  # whatever a contender raises is its result
        for key in keys:
            result_file.fail(key, error)
        return
    for key in keys:
        result_file.attempt(key, partial(measure, key))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plan", choices=list(PLANS), required=True, help="what to measure")
    parser.add_argument("--json", type=Path, required=True, help="the result file, begun already")
    parser.add_argument(
        "--seconds", type=float, required=True, help="when to start no more contenders"
    )
    parser.add_argument("--dry-run", action="store_true", help="tiny cases on the CPU")
    return parser.parse_args()


if __name__ == "__main__":
    main()
