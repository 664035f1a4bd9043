# SPDX-License-Identifier: Apache-2.0
"""The probes in each flavor of the emulator, compiled once."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from probe_programs import FLAVORS, Probes, compile_probes


def flavor_fixture(flavor: str) -> Callable[..., Probes]:
    @pytest.fixture(scope="session", name=flavor)
    def build(tmp_path_factory: pytest.TempPathFactory) -> Probes:
        return compile_probes(flavor, tmp_path_factory.mktemp(flavor))

    return build


plain, portable, sanitized, races = map(flavor_fixture, FLAVORS)


@pytest.fixture(params=FLAVORS)
def probes(request: pytest.FixtureRequest) -> Probes:
    """Every flavor, for what all have in common."""
    built: Probes = request.getfixturevalue(request.param)
    return built
