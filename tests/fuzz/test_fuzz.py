# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import faulthandler
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fuzz.forked import run_cases
from fuzz.outcomes import ANSWERED, Outcome, Verdict, attempt
from rtdetr.errors import DataError
from rtdetr.images.io import load_image

RUN = Path(__file__).with_name("run.py")

CASES = 2000
"""About 30 s on two cores; ``make fuzz`` runs fifty times as many."""


def test_nothing_crashes_hangs_answers_wrongly_or_fails_without_a_sentence(tmp_path: Path) -> None:
    counts = tmp_path / "counts.json"
    command = [sys.executable, str(RUN), f"--cases={CASES}", f"--json={counts}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    verdicts = json.loads(counts.read_text())
    assert sum(sum(target.values()) for target in verdicts.values()) >= CASES
    # A target of which every case is refused, or none, fuzzes nothing.
    for name, target in verdicts.items():
        assert target.get("ANSWERED"), name
        assert target.get("REFUSED") or name == "operator-valid", name


def _planted(seed: int) -> Outcome:
    """Each way a case can go wrong, by its seed."""
    if seed == 1:
        faulthandler.disable()  # pytest's would report it as a crash of the tests
        os.kill(os.getpid(), signal.SIGSEGV)
    if seed == 2:
        time.sleep(60)
    if seed == 3:
        os._exit(7)
    if seed == 4:
        raise LookupError("not a sentence")
    return ANSWERED


@pytest.mark.parametrize("jobs", [1, 2, 8])
def test_a_case_that_ends_its_process_is_counted_and_the_others_go_on(jobs: int) -> None:
    outcomes = dict(run_cases(_planted, range(7), jobs=jobs, limit_s=0.5))
    assert outcomes == {
        0: ANSWERED,
        1: Outcome(Verdict.CRASH, "SIGSEGV"),
        2: Outcome(Verdict.HANG, "not done after 0.5 s"),
        3: Outcome(Verdict.CRASH, "exit status 7"),
        4: Outcome(Verdict.BARE, "the case itself: LookupError: not a sentence"),
        5: ANSWERED,
        6: ANSWERED,
    }


def _fails(error: Exception) -> None:
    raise error


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (AssertionError("off by 3"), Verdict.WRONG),
        (KeyError("x"), Verdict.BARE),
        # The right type, but raised here: no check of ours spoke.
        (DataError("images: expected one image, got none"), Verdict.BARE),
    ],
    ids=["wrong_value", "other_type", "raised_elsewhere"],
)
def test_an_error_is_good_only_as_a_sentence_of_these_packages(
    error: Exception, verdict: Verdict
) -> None:
    assert attempt(lambda: _fails(error), (DataError,)).verdict is verdict


def test_a_sentence_of_these_packages_is_good(tmp_path: Path) -> None:
    outcome = attempt(lambda: load_image(tmp_path / "none.png"), (DataError,))
    assert outcome.verdict is Verdict.REFUSED
