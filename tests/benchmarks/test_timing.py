# SPDX-License-Identifier: Apache-2.0
from contextlib import contextmanager

from core.devices import CpuDevice
from core.timing import take_turns


def test_contenders_take_turns_inside_their_contexts_and_the_warm_up_is_not_counted():
    events = []

    @contextmanager
    def log():
        events.append("enter")
        yield
        events.append("leave")

    functions = {"a": lambda: events.append("a"), "b": lambda: events.append("b")}
    seconds = take_turns(CpuDevice(), functions, rounds=2, calls=2, warmup=1, around={"b": log})
    assert events == ["a", "a", "enter", "b", "b", "leave"] * 3
    assert {name: len(times) for name, times in seconds.items()} == {"a": 2, "b": 2}
