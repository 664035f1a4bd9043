# SPDX-License-Identifier: Apache-2.0
"""The one form of a result, and the file it lives in."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

__all__ = [
    "DETECTOR",
    "SUITES",
    "TRAINING",
    "Record",
    "Run",
    "from_pytest",
    "load",
    "save",
    "summarize",
]

DETECTOR = "detector"
TRAINING = "training step"

SUITES = (
    "forward",
    "forward+backward",
    "backward",
    "backward, deterministic",
    "fused forward",
    "fused forward+backward",
    "fused forward, graph",
    "fused forward+backward, graph",
    "model",
    DETECTOR,
    TRAINING,
    "import",
    "call",
)
"""What a record may be about: the operator (its fused entry, its replay from a CUDA graph), a whole
detector of transformers and patched, our own detector, a step of its training, the import, one tiny call."""

SCHEMA = 2

RECORDED_NAMES = {"as it comes": "unpatched"}
"""Names in older result files, and what they are called now."""


@dataclass(frozen=True)
class Record:
    """One contender on one case.

    Args:
        suite: one of ``SUITES``.
        case: what was run; records of the same suite and case are compared.
        contender: which implementation.
        median_s: median, in seconds.
        min_s: shortest, in seconds.
        rounds: how many measurements.
        details: whatever else was measured, such as the difference of two models' outputs, or seconds by part.
            ``q1_s`` and ``q3_s`` are quartiles, ``gather_bytes`` what the sampled corners weigh.
    """

    suite: str
    case: str
    contender: str
    median_s: float
    min_s: float
    rounds: int
    details: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """One run of the benchmarks on one machine.

    Args:
        machine: CPU, threads, versions, commit, date.
        contenders: name to version, or to None when it was not installed.
        records: the results.
        gpu_check: of a run on a GPU: its steps, ceilings, failures, and whether it was a dry run.
    """

    machine: dict[str, Any]
    contenders: dict[str, str | None]
    records: tuple[Record, ...]
    gpu_check: dict[str, Any] | None = None


def summarize(
    suite: str, case: str, seconds: Mapping[str, Sequence[float]], **details: float
) -> list[Record]:
    """Records of contenders that took turns; ``details`` go to each."""
    return [
        Record(suite, case, contender, median(times), min(times), len(times), dict(details))
        for contender, times in seconds.items()
    ]


def from_pytest(document: Mapping[str, Any]) -> list[Record]:
    """Records of a pytest-benchmark document; rounds of a contender become one, the median of medians."""
    rounds: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for entry in document["benchmarks"]:
        info = entry["extra_info"]
        key = (info["suite"], info["case"], info["contender"])
        rounds.setdefault(key, []).append(entry["stats"])
    return [
        Record(
            *key,
            median_s=median(stats["median"] for stats in entries),
            min_s=min(stats["min"] for stats in entries),
            rounds=sum(stats["rounds"] for stats in entries),
        )
        for key, entries in rounds.items()
    ]


def save(run: Run, path: Path) -> None:
    """Write ``run`` as JSON, one record per line; a reader sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    head = {"schema": SCHEMA, "machine": run.machine, "contenders": run.contenders}
    if run.gpu_check is not None:
        head["gpu_check"] = run.gpu_check
    lines = ",\n".join(f"  {json.dumps(_rounded(record))}" for record in run.records)
    text = json.dumps(head, indent=1).removesuffix("\n}")
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(f'{text},\n "records": [\n{lines}\n ]\n}}\n', encoding="utf-8")
    unfinished.replace(path)


def load(path: Path) -> Run:
    """Read a file that ``save`` wrote.

    Raises:
        ValueError: the file has another schema.
    """
    document = json.loads(path.read_text(encoding="utf-8"))
    if document.get("schema") != SCHEMA:
        raise ValueError(f"{path}: expected schema {SCHEMA}, got {document.get('schema')!r}")
    records = tuple(_read_record(entry) for entry in document["records"])
    return Run(document["machine"], document["contenders"], records, document.get("gpu_check"))


def _read_record(entry: Mapping[str, Any]) -> Record:
    name = entry["contender"]
    return Record(**{**entry, "contender": RECORDED_NAMES.get(name, name)})


def _rounded(record: Record) -> dict[str, Any]:
    """Four digits: more than any timing is worth."""
    entries = asdict(record)
    entries["details"] = _four_digits(entries["details"])
    return _four_digits(entries)


def _four_digits(entries: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: float(f"{value:.4g}") if isinstance(value, float) else value
        for key, value in entries.items()
    }
