# SPDX-License-Identifier: Apache-2.0
"""Ask another program, a compiler or an interpreter, a question."""

from __future__ import annotations

import os
import re
import subprocess
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

# For a compiler on a slow network disk; one that takes longer to say its version does not work.
TIMEOUT = 60.0  # seconds

_ERROR = re.compile(r"\b(?:fatal|error)\b.*", re.IGNORECASE)


@dataclass(frozen=True)
class Answer:
    """What a program did with a question."""

    output: str
    refusal: str = ""  # why it failed, in one line; empty if it did not


def ask(
    *command: str,
    source: str = "",
    environ: Mapping[str, str] = os.environ,
    folder: Path | None = None,
) -> Answer:
    """Run a program, with a source on its standard input; whatever goes wrong is its answer."""
    try:
        done = subprocess.run(
            command,
            input=source,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=TIMEOUT,
            env={**environ, "LC_ALL": "C"},
            cwd=folder,
        )
    except FileNotFoundError:
        return Answer("", "not found")
    except OSError as error:
        return Answer("", error.strerror or str(error))
    except subprocess.TimeoutExpired:
        return Answer("", f"no answer within {TIMEOUT:g} s")
    if done.returncode == 0:
        return Answer(done.stdout)
    return Answer(done.stdout, _first_error(done.stderr + done.stdout) or _ending(done.returncode))


def _first_error(text: str) -> str:
    """Return the first error without the path before it, else the first line, shortened."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [match[0] for match in map(_ERROR.search, lines) if match]
    line = next(iter(errors or lines), "")
    printable = "".join(letter if letter.isprintable() else " " for letter in line)
    return textwrap.shorten(printable, 160, placeholder=" ...")


def _ending(returncode: int) -> str:
    return f"signal {-returncode}" if returncode < 0 else f"exit status {returncode}"
