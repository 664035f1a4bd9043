# SPDX-License-Identifier: Apache-2.0
"""Run pytest once for each line of standard input, in a child of one process that has imported torch and the package.

A line is JSON: arguments of pytest, environment variables to add, and the file that takes the output. The answer is
a line with the exit status of the child, negative where a signal ended it.
"""

from __future__ import annotations

import json
import os
import sys
from typing import NoReturn

import hypothesis  # noqa: F401  # imported here once, for every child
import pytest

import rtdetr_ops.testing.tester  # noqa: F401  # as hypothesis; no kernel has run yet


def main() -> None:
    for line in sys.stdin:
        arguments, env, output = json.loads(line)
        child = os.fork()
        if child == 0:
            run(arguments, env, output)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)  # noqa: T201


def run(arguments: list[str], env: dict[str, str], output: str) -> NoReturn:
    """Run pytest and leave, without what the parent would do at its end."""
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(file, stream.fileno())
    os.environ.update(env)
    status = 1
    try:
        status = int(pytest.main(arguments))
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)


if __name__ == "__main__":
    main()
