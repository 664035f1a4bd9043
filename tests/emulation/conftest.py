# SPDX-License-Identifier: Apache-2.0
"""The toy kernels in each flavor of the emulator, compiled once."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from toy_programs import FLAVORS, Toys, compile_toys


def flavor_fixture(flavor: str) -> Callable[..., Toys]:
    @pytest.fixture(scope="session", name=flavor)
    def build(tmp_path_factory: pytest.TempPathFactory) -> Toys:
        return compile_toys(flavor, tmp_path_factory.mktemp(flavor))

    return build


plain, portable, sanitized, races = map(flavor_fixture, FLAVORS)


@pytest.fixture(params=FLAVORS)
def toys(request: pytest.FixtureRequest) -> Toys:
    """Every flavor, for what all have in common."""
    built: Toys = request.getfixturevalue(request.param)
    return built
