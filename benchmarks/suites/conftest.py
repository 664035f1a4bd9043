# SPDX-License-Identifier: Apache-2.0
"""Options, cases and the measuring fixture of the operator benchmarks."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from core.devices import CpuDevice
from core.peers import Contender
from core.timed_cases import CASES, QUICK_CASES, Case, turns

DEVICE = CpuDevice()
ROUND_SECONDS = 0.2
MAX_CALLS = 200


def pytest_addoption(parser: pytest.Parser) -> None:
    """--threads and --quick."""
    parser.addoption("--threads", type=int, default=2, help="torch threads")
    parser.addoption("--quick", action="store_true", help="a few small cases, one round")


def pytest_configure(config: pytest.Config) -> None:
    """Set the threads once, before anything runs."""
    torch.set_num_threads(config.getoption("--threads"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One item per (case, round, contender)."""
    quick = metafunc.config.getoption("--quick")
    items = list(turns(QUICK_CASES if quick else CASES, once=quick))
    ids = [f"{case.id}-round{number}-{contender.name}" for case, number, contender in items]
    metafunc.parametrize(("case", "round_number", "contender"), items, ids=ids)


@pytest.fixture(scope="session")
def first_seconds() -> dict[str, float]:
    """Seconds of one call by direction, case and contender, measured in the first round."""
    return {}


@pytest.fixture
def measure(
    benchmark, first_seconds
) -> Callable[[str, Case, Contender, Callable[[], object]], None]:
    """Time a function for one round, in as many calls as fit, after a warm-up."""

    def run(
        direction: str, case: Case, contender: Contender, function: Callable[[], object]
    ) -> None:
        benchmark.group = f"{direction} {case.id}"
        benchmark.extra_info = {
            "suite": direction,
            "case": case.id,
            "contender": contender.name,
        }
        key = f"{benchmark.group} {contender.name}"
        if key not in first_seconds:
            first_seconds[key] = DEVICE.seconds(function)  # the check before it was the warm-up
        calls = int(ROUND_SECONDS / first_seconds[key])
        benchmark.pedantic(
            function,
            rounds=max(1, min(calls, MAX_CALLS)),
            warmup_rounds=int(calls > 0),  # a call longer than a round has no use for one
        )

    return run
