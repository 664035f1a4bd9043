# SPDX-License-Identifier: Apache-2.0
"""The command in this process."""

from __future__ import annotations

import sys

import pytest

from rtdetr.cli import main


def run_command(*words: str) -> None:
    """Run it; it must end without an error."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["rtdetr", *words])
        with pytest.raises(SystemExit) as end:
            main()
    assert end.value.code in (0, None), words
