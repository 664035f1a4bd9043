# SPDX-License-Identifier: Apache-2.0
"""Check and time every contender, for as long as there is time; goes on where an earlier process died."""

from __future__ import annotations

import argparse
import faulthandler
import time
from functools import partial
from pathlib import Path

from core.devices import Device, Limits, find_device
from core.timed_cases import bind

from gpu.plan import Job, compiled_reference, contenders, jobs
from gpu.result_file import Key, ResultFile
from gpu.suites import SUITES

LIMITS = {False: Limits(0.25, 5, 60), True: Limits(0, 2, 2)}
"""Of one measurement, by whether it is a dry run."""


HANGS = 120
"""Seconds after which a contender counts as hung, and this process ends."""


def main() -> None:
    """Measure what the file does not have yet."""
    options = _options()
    deadline = time.monotonic() + options.seconds
    device, result_file = find_device(options.dry_run), ResultFile(options.json)
    candidates = [
        contender
        for contender in (*contenders(), compiled_reference(device))
        if contender.runs_on(device.type)
    ]
    result_file.add_versions({contender.name: contender.version() for contender in candidates})
    for job in jobs(device, options.dry_run):
        keys = [Key(suite, job.case.id, job.contender.name) for suite in job.suites]
        keys = [key for key in keys if not result_file.has(key)]
        if time.monotonic() > deadline:
            result_file.leave_out(keys)
        elif keys:
            faulthandler.dump_traceback_later(HANGS, exit=True)
            _measure(job, keys, device, result_file, LIMITS[options.dry_run])
            device.free_memory()
            device.synchronize()  # raises, and so ends this process, where the device is lost
            faulthandler.cancel_dump_traceback_later()


def _measure(
    job: Job, keys: list[Key], device: Device, result_file: ResultFile, limits: Limits
) -> None:
    result_file.begin(keys)
    try:
        bound = bind(job.case, job.contender)
    except Exception as error:  # whatever a contender raises is its result
        for key in keys:
            result_file.fail(key, error)
        return
    details = {"gather_bytes": job.case.gather_bytes}
    for key in keys:
        run = partial(SUITES[key.suite].run, bound, job.case, device, limits)
        result_file.attempt(key, lambda run=run: (run(), details))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True, help="the result file, begun already")
    parser.add_argument(
        "--seconds", type=float, required=True, help="when to start no more contenders"
    )
    parser.add_argument("--dry-run", action="store_true", help="tiny cases on the CPU")
    return parser.parse_args()


if __name__ == "__main__":
    main()
