# SPDX-License-Identifier: Apache-2.0
"""Which commands pass for a C++ compiler."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from environments import ROOT

sys.path.insert(0, str(ROOT / "build_tools"))

import compilers

MUTE = '#!/bin/sh\nwhile [ "$1" != -o ]; do [ $# = 0 ] && exit; shift; done; : > "$2"\n'


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("no-such-compiler -O3", "  no-such-compiler -O3: not found"),
        ("true", "  true: no error, and no output"),
        ("echo", "  echo: no error, and no output"),
        ("false", "  false: exit status 1"),
        ("mute", "  mute: names no target"),
        (
            "'unbalanced",
            "CXX: expected a command such as 'ccache g++', got \"'unbalanced\": No closing",
        ),
    ],
)
def test_a_command_that_is_no_compiler_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, reason: str
) -> None:
    (tmp_path / "mute").write_text(MUTE)
    (tmp_path / "mute").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("CXX", command)

    with pytest.raises(SystemExit, match=re.escape(reason)):
        compilers.find_cxx()


def test_setup_refuses_it_in_one_sentence_too() -> None:
    command = (sys.executable, "setup.py", "-q", "build_ext")
    environ = {**os.environ, "CXX": "'unbalanced"}

    done = subprocess.run(
        command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False
    )

    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("CXX: expected a command")
    assert "Traceback" not in done.stderr


def test_where_no_compiler_is_the_error_says_which_would_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CXX", " ")

    with pytest.raises(SystemExit) as refusal:
        compilers.find_cxx()
    assert str(refusal.value).splitlines() == [
        "rtdetr_ops: no C++20 compiler; install g++ from 11 on or clang++ from 13 on, or set CXX. Tried:",
        *("  c++: not found", "  g++: not found", "  clang++: not found"),
    ]
