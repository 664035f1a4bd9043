# SPDX-License-Identifier: Apache-2.0
from contextlib import contextmanager

from core.timing import take_turns


def test_contenders_take_turns_inside_their_contexts_and_the_warm_up_is_not_counted():
    seen = []

    @contextmanager
    def noted():
        seen.append("enter")
        yield
        seen.append("leave")

    functions = {"a": lambda: seen.append("a"), "b": lambda: seen.append("b")}
    seconds = take_turns(functions, rounds=2, calls=2, warmup=1, around={"b": noted})
    assert seen == ["a", "a", "enter", "b", "b", "leave"] * 3
    assert {name: len(times) for name, times in seconds.items()} == {"a": 2, "b": 2}
