# SPDX-License-Identifier: Apache-2.0
import sys

import pytest
from core.stopwatch import REST, Stopwatch

now = 0.0


def spend(seconds):
    global now
    now += seconds


def outer():
    spend(1)
    inner()
    spend(2)


def inner():
    spend(4)


def fail():
    spend(8)
    raise KeyError


@pytest.fixture
def stopwatch():
    return Stopwatch(lambda: now)


FUNCTIONS = {name: f"{__name__}.{name}" for name in ("outer", "inner", "fail")}


def test_a_part_is_without_the_parts_that_it_calls(stopwatch):
    with stopwatch.watch(FUNCTIONS) as seconds:
        spend(16)
        outer()
        inner()
    assert seconds == {REST: 16, "outer": 3, "inner": 8}


def test_a_part_ends_where_it_fails_and_functions_are_put_back(stopwatch):
    original = fail
    with stopwatch.watch(FUNCTIONS) as seconds:
        with pytest.raises(KeyError):
            fail()
        spend(1)
    assert seconds == {REST: 1, "fail": 8}
    assert sys.modules[__name__].fail is original
    with stopwatch.watch(FUNCTIONS) as seconds:
        inner()
    assert seconds == {REST: 0, "inner": 4}
