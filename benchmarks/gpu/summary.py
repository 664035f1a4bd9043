# SPDX-License-Identifier: Apache-2.0
"""The short report that ends a check: steps, failures, times, targets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from core.records import DETECTOR, Record, Run
from core.tables import is_ours, seconds_text

__all__ = ["summary"]

GATHERS = {"float32": "gather_128B_22MB", "bfloat16": "gather_64B_22MB"}
"""The ceiling of an encoder's gathers by dtype: its vectors have 32 channels and fit the L2 cache."""

REDUCTIONS = ("red_f32_22MB", "red_f32x4_22MB", "bulk_reduce_22MB")
"""Ways to add to the gradient of the value; the fastest is the ceiling."""

BYTES = {"float32": 4, "bfloat16": 2}


def summary(run: Run) -> str:
    """A screenful."""
    notes = run.gpu_check or {}
    parts = ["Dry run: these numbers mean nothing."] if notes["dry_run"] else []
    parts.append(_table(("step", "status", "seconds", "note"), map(_step, notes["steps"])))
    parts += _section("failures", _failures(notes.get("failures", [])))
    parts += _section("no time for", _counted(notes.get("not_reached", [])))
    parts += _section("ceilings, GB/s", _ceilings(notes.get("ceilings", {})))
    parts += _section("detectors", _detectors(run))
    parts += [_times(run, ours) for ours in run.contenders if _has_times(run, ours)]
    parts.append(_table(("target", "reached", "asked for", "met"), map(_target, notes["targets"])))
    return "\n\n".join(parts)


def _step(step: dict[str, Any]) -> tuple[str, ...]:
    return step["name"], step["status"], f"{step['seconds']:.1f}", step["note"][:90]


def _target(target: dict[str, Any]) -> tuple[str, ...]:
    value, unit = target["value"], target["unit"]
    answers = {None: "not measured", True: "yes", False: "NO"}
    sign = "at most" if target["at_most"] else "at least"
    return (
        target["target"],
        "-" if value is None else f"{value:.2f}{unit}",
        f"{sign} {target['bound']}{unit}",
        answers[target["met"]],
    )


def _failures(entries: Sequence[Sequence[str]]) -> Iterable[str]:
    """Where each contender failed first, for each reason, and how often after that."""
    places: dict[tuple[str, str], list[str]] = {}
    for suite, case, contender, reason in entries:
        places.setdefault((contender, reason[:160]), []).append(f"{suite} | {case}")
    for (contender, reason), (first, *rest) in places.items():
        more = f" and {len(rest)} more" if rest else ""
        yield f"{contender}, {first}{more}: {reason}"


def _counted(keys: Sequence[Sequence[str]]) -> Iterable[str]:
    """How many contenders of each case there was no time for."""
    cases = [f"{suite} | {case}" for suite, case, _ in keys]
    return [f"{case}: {cases.count(case)} contenders" for case in dict.fromkeys(cases)]


def _ceilings(ceilings: dict[str, Any]) -> Iterable[str]:
    return [f"{name}: {v / 1e9:.0f}" for name, v in ceilings.items() if isinstance(v, float)]


def _detectors(run: Run) -> Iterable[str]:
    return [f"{r.case}, {r.contender}: {_spread(r)}" for r in run.records if r.suite == DETECTOR]


def _has_times(run: Run, contender: str) -> bool:
    return is_ours(contender) and any(
        r.contender == contender and r.suite != DETECTOR for r in run.records
    )


def _times(run: Run, ours: str) -> str:
    """One contender of ours: its time, what it gathers, and how many times longer the others take."""
    records = {(r.suite, r.case, r.contender): r for r in run.records if r.suite != DETECTOR}
    names = {contender for _, _, contender in records} - {ours}
    others = [name for name in run.contenders if name in names]
    lines = [
        (
            f"{record.case}, {record.suite}",
            _spread(record),
            _moved(run, record),
            *(_slower(records.get((record.suite, record.case, name)), record) for name in others),
        )
        for record in records.values()
        if record.contender == ours
    ]
    return _table((ours, "median (quartiles)", "corners", *others), lines)


def _spread(record: Record) -> str:
    quartiles = (seconds_text(record.details[name]) for name in ("q1_s", "q3_s"))
    return f"{seconds_text(record.median_s)} ({' - '.join(quartiles)})"


def _moved(run: Run, record: Record) -> str:
    """Bytes per second that corners weigh, and what part of the ceiling that is.

    A forward reads them; a backward by itself adds to them in float32.
    """
    dtype, ceilings = record.case.split()[1], (run.gpu_check or {}).get("ceilings", {})
    weight = record.details["gather_bytes"]
    if "forward+backward" in record.suite:
        return ""
    if record.suite.startswith("backward"):
        weight *= 4 / BYTES[dtype]
        ceiling = max((ceilings.get(name, 0.0) for name in REDUCTIONS), default=0.0)
    else:
        ceiling = ceilings.get(GATHERS[dtype], 0.0)
    rate = weight / record.median_s
    return f"{rate / 1e12:.2f} TB/s" + (f", {100 * rate / ceiling:.0f} %" if ceiling else "")


def _slower(other: Record | None, ours: Record) -> str:
    return "-" if other is None else f"{other.median_s / ours.median_s:.2f}x"


def _section(title: str, lines: Iterable[str]) -> list[str]:
    body = "\n".join(f"  {line}" for line in lines)
    return [f"{title}\n{body}"] if body else []


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [tuple(head), *map(tuple, lines)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
