# SPDX-License-Identifier: Apache-2.0
"""Training leaves the process as it was, and depends on nothing in it."""

from __future__ import annotations

import multiprocessing
import random
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from runs import STEPS, At, digest, make_trainer, prepare

from rtdetr.training.interruption import Interruption


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("state")
    prepare(path)
    return path


def look_at_the_process() -> dict[str, Any]:
    return {
        "torch": torch.get_rng_state().tolist(),
        "python": random.getstate(),
        "numpy": np.random.get_state()[1].tolist(),  # type: ignore[index] # noqa: NPY002
        "gradients": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "warns only": torch.is_deterministic_algorithms_warn_only_enabled(),
        "threads": torch.get_num_threads(),
        "dtype": torch.get_default_dtype(),
        "signals": [signal.getsignal(number) for number in signal.valid_signals()],
    }


@pytest.mark.parametrize("deterministic", [False, True])
def test_the_process_is_as_before(deterministic: bool, folder: Path, tmp_path: Path) -> None:
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        before = look_at_the_process()
        make_trainer(
            folder, out=str(tmp_path / "run"), epochs=1, plots=True, deterministic=deterministic
        ).train()
        assert look_at_the_process() == before
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize(
    "around", [nullcontext, torch.no_grad, torch.inference_mode], ids=lambda around: around.__name__
)
def test_training_trains_inside_of_anything(
    around: Callable[[], AbstractContextManager[object]], folder: Path, tmp_path: Path
) -> None:
    plain = make_trainer(folder, out=str(tmp_path / "plain"), epochs=1).train()
    torch.manual_seed(11)
    with around():
        inside = make_trainer(folder, out=str(tmp_path / "inside"), epochs=1).train()
    assert digest(inside.best) == digest(plain.best)


@pytest.mark.parametrize("epoch", [1, 2])
def test_a_run_that_fails_leaves_no_processes_behind(
    epoch: int, folder: Path, tmp_path: Path
) -> None:
    def fail(_: Any) -> None:
        raise KeyError("mine")

    stop = At((epoch - 1) * STEPS + 1, fail)
    with pytest.raises(KeyError) as error:  # its traceback names the loaders
        make_trainer(folder, out=str(tmp_path / "run"), workers=2, callbacks=[stop]).train()
    assert multiprocessing.active_children() == [], error


def test_signals_of_a_program_that_is_not_python_s(monkeypatch: pytest.MonkeyPatch) -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    # What C has installed, Python calls None.
    monkeypatch.setattr(signal, "getsignal", lambda _: None)
    try:
        with Interruption.listening() as interruption:
            assert interruption.signal_number is None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
