# SPDX-License-Identifier: Apache-2.0
"""A run that goes on: what it was, and what may be different now."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..config import RTDetrV2Config
from ..data.fingerprint import list_changes
from ..errors import RTDetrError, UsageError
from ..files import home_path, is_file
from .checkpoint import LAST, read_checkpoint
from .options import RECIPE_FIELDS, TrainOptions, known_words
from .plan import Plan

__all__ = ["Resumed"]

WAY_OUT = "start a new run, or go on anyway (resume_anyway)"


@dataclass(frozen=True)
class Resumed:
    """The checkpoint of a run.

    Args:
        folder: of the run.
        state: what the checkpoint holds.
        anyway: whether data and recipe may have changed.
    """

    folder: Path
    state: Mapping[str, Any]
    anyway: bool

    @classmethod
    def read(cls, folder: str | Path, anyway: bool) -> Resumed:
        """The run in a folder.

        Raises:
            RTDetrError: there is no checkpoint, or it is damaged.
        """
        folder = home_path(folder)
        folder = folder.parent if folder.name == LAST and is_file(folder) else folder
        resumed = cls(folder, read_checkpoint(folder), anyway)
        resumed._check_known()
        return resumed

    @property
    def config(self) -> RTDetrV2Config:
        """Of the model."""
        return RTDetrV2Config.from_dict(json.loads(self.state["config"]))

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the input."""
        height, width = self.state["plan"]["size"]
        return height, width

    @property
    def words(self) -> dict[str, Any]:
        """The options of the run, without where its data were."""
        return {name: value for name, value in self.state["options"].items() if name != "data"}

    def check_options(self, changes: Mapping[str, Any]) -> None:
        """Look whether options change what decides the weights.

        Raises:
            UsageError: naming those that do.
        """
        known = vars(TrainOptions())
        words = {name: value for name, value in self.words.items() if name in known}
        before = TrainOptions(**words).to_dict()
        new = {name: value for name, value in changes.items() if name in RECIPE_FIELDS}
        after = TrainOptions(**{**words, **new}).to_dict()
        changed = [
            f"{name} was {before[name]!r}" for name in sorted(new) if before[name] != after[name]
        ]
        self._refuse(changed)

    def check_data(self, fingerprint: Mapping[str, str]) -> None:
        """Look whether the data are the same.

        Raises:
            UsageError: saying what differs.
        """
        changes = list_changes(self.state["data"], fingerprint)
        self._refuse(changes, "the data have changed since this run began: ")

    def adapt(self, plan: Plan) -> Plan:
        """The plan of the longer run: what was a share of the shorter one stays what it was.

        Raises:
            UsageError: the run cannot be that short, or a step is not what it was.
        """
        before, done = self.state["plan"], self.state["progress"]["epoch"]
        if plan.recipe.epochs < done:
            raise UsageError(
                f"epochs: expected at least {done}, which are over, got {plan.recipe.epochs}"
            )
        after = plan.to_dict()
        names = ("steps_per_epoch", "effective_batch", "size")
        self._refuse(
            [f"{n} was {before[n]}, is {after[n]}" for n in names if before[n] != after[n]]
        )
        kept = {name: before["recipe"][name] for name in ("warmup", "ema_tau", "ema_decay")}
        return replace(plan, recipe=replace(plan.recipe, **kept))

    @contextmanager
    def naming_version(self) -> Iterator[None]:
        """Let the error of what does not fit into this model or this version say which one wrote it."""
        try:
            yield
        except (RuntimeError, ValueError, TypeError, KeyError) as error:
            why = " ".join(str(error).split())[:200]
            raise RTDetrError(
                f"the checkpoint, written by rtdetr {self._version}, does not fit this version ({why})"
            ) from error

    @property
    def _version(self) -> str | None:
        version: str | None = self.state["versions"].get("rtdetr")
        return version

    def _check_known(self) -> None:
        unknown = sorted(set(self.words) - known_words())
        if unknown:
            raise RTDetrError(
                f"{self.folder}: rtdetr {self._version} wrote this run, with options that this version does not "
                f"have: {', '.join(unknown)}. Go on with that version"
            )

    def _refuse(self, changes: list[str], title: str = "") -> None:
        if changes and not self.anyway:
            raise UsageError(f"{title}{', '.join(changes)}: {WAY_OUT}")
