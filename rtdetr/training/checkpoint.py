# SPDX-License-Identifier: Apache-2.0
"""All that a run needs to go on as if it had never stopped, in one file that is always whole."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import torch

from ..errors import RTDetrError
from ..files import HIDDEN, atomic_write, exists

__all__ = ["LAST", "PREVIOUS", "read_checkpoint", "remove_leftovers", "write_checkpoint"]

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"
FORM = 1
"""Of the content; another number is of another version of this package."""

PARTS = frozenset(
    {"options", "config", "names", "data", "plan", "versions", "model", "step", "progress"}
)
"""Of the content."""


def write_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Write ``last.ckpt``, whole or not at all; the one before stays as ``previous.ckpt``.

    Args:
        folder: of the run.
        state: tensors, numbers, texts, lists and dicts.

    Raises:
        OSError: the file cannot be written; ``last.ckpt`` is then the one of before.
    """
    last = folder / LAST
    # Into a file of Python's, whose errors say what is wrong with the disk.
    with atomic_write(last, durable=True) as temporary:
        with temporary.open("wb") as file:
            torch.save({"form": FORM, **state}, file)
        _keep(last, folder / PREVIOUS)


def read_checkpoint(folder: Path) -> dict[str, Any]:
    """The state in ``last.ckpt``. Nothing in the file is run.

    Raises:
        RTDetrError: there is none, or it is damaged; the sentence names the one before, if that is whole.
    """
    last, previous = folder / LAST, folder / PREVIOUS
    if not exists(last):
        raise RTDetrError(f"{folder}: no {LAST} to go on from; expected the folder of a run")
    try:
        return _read(last)
    except RTDetrError as error:
        try:
            position = _read(previous)["progress"]
        except (RTDetrError, KeyError):
            raise error from None
        raise RTDetrError(
            f"{error}. The one before it, of epoch {position['epoch'] + 1}, is whole: "
            f"mv {previous} {last}"
        ) from None


def remove_leftovers(folder: Path) -> None:
    """Remove the halves of files that a kill has left behind."""
    for path in folder.glob(f"{HIDDEN}*"):
        path.unlink(missing_ok=True)


def _keep(last: Path, previous: Path) -> None:
    """Give a file a second name, under which it stays when another takes the first."""
    second = previous.with_name(f"{HIDDEN}{previous.name}")
    if exists(last):
        second.unlink(missing_ok=True)
        try:
            os.link(last, second)
        except OSError:
            return  # a file system without second names has no checkpoint but the last
        second.replace(previous)


def _read(path: Path) -> dict[str, Any]:
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        why = " ".join(str(error).split())[:200] or type(error).__name__
        raise RTDetrError(f"{path}: damaged, or no checkpoint of a run ({why})") from error
    if broken is not None:
        raise RTDetrError(f"{path}: damaged (a check sum of {broken} is wrong)")
    form = state.get("form") if isinstance(state, dict) else None
    if form != FORM:
        raise RTDetrError(f"{path}: expected a checkpoint of a run in form {FORM}, got {form}")
    missing = ", ".join(sorted(PARTS - set(state)))
    if missing:
        raise RTDetrError(f"{path}: no checkpoint of a run; it has no {missing}")
    return dict(state)
