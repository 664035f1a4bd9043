# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(scope="package", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The user's cache is left alone, and what it holds decides nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RTDETR_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="package", autouse=True)
def _one_thread() -> Iterator[None]:
    """Small detectors are faster without helpers, which cost some 10 ms a call where fresh memory is filled."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
