# SPDX-License-Identifier: Apache-2.0
"""What all tests share: fresh memory is NaN, random tests repeat, and a target is a backend under test."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Iterator

import hypothesis
import pytest
import torch
from interpreter import bfloat16, speed

from rtdetr_ops.testing.tester import Target, targets

hypothesis.settings.register_profile(
    "repeatable", derandomize=True, deadline=None, database=None, print_blob=False
)
hypothesis.settings.load_profile("repeatable")

# glibc fills fresh blocks with the low byte of ~(parameter): 0xFF, NaN in every floating dtype.
M_PERTURB, FILL_WITH_FF = -6, 0x100


@pytest.fixture(scope="session", autouse=True)
def _fresh_memory_is_nan() -> Iterator[None]:
    """A kernel that forgets to write an element yields NaN, not a lucky zero.

    torch.utils.deterministic.fill_uninitialized_memory does not see what compiled operators allocate.
    """
    if platform.libc_ver()[0] != "glibc":
        yield
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(M_PERTURB, FILL_WITH_FF)
    yield
    libc.mallopt(M_PERTURB, 0)


@pytest.fixture(scope="session", autouse=True)
def _change_interpreter() -> None:
    if os.environ.get("TRITON_INTERPRET") == "1":
        bfloat16.repair()
        speed.speed_up()


@pytest.fixture(params=targets(), ids=lambda target: target.name)
def target(request: pytest.FixtureRequest) -> Target:
    """Every backend, the definition included, for results that a test knows by itself."""
    return request.param


@pytest.fixture(
    params=[target for target in targets() if target.backend != "reference"],
    ids=lambda target: target.name,
)
def kernel(request: pytest.FixtureRequest) -> Target:
    """Every backend that is compared with the definition."""
    return request.param


@pytest.fixture
def keep_threads() -> Iterator[None]:
    """Restore the number of threads."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def deterministic() -> Iterator[None]:
    """Results are the same to the bit from call to call, whatever the backend."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
