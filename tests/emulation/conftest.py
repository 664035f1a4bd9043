# SPDX-License-Identifier: Apache-2.0
"""The toy kernels in each flavour of the emulator, compiled once."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from toy_programs import FLAVOURS, Toys, compile_toys


def flavour_fixture(flavour: str) -> Callable[..., Toys]:
    @pytest.fixture(scope="session", name=flavour)
    def build(tmp_path_factory: pytest.TempPathFactory) -> Toys:
        return compile_toys(flavour, tmp_path_factory.mktemp(flavour))

    return build


plain, portable, sanitized, races = map(flavour_fixture, FLAVOURS)


@pytest.fixture(params=FLAVOURS)
def toys(request: pytest.FixtureRequest) -> Toys:
    """Every flavour, for what all have in common."""
    built: Toys = request.getfixturevalue(request.param)
    return built
