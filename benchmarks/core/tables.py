# SPDX-License-Identifier: Apache-2.0
"""A run as Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from core.machine import display_name
from core.records import DETECTOR, Record, Run

__all__ = ["full_report", "is_ours", "readme_block", "seconds_text", "speedups"]

TITLES = {
    "forward": "Forward",
    "forward+backward": "Forward and backward",
    "backward": "Backward",
    "backward, deterministic": "Backward under torch.use_deterministic_algorithms",
    "fused forward": "Fused entry, forward",
    "fused forward+backward": "Fused entry, forward and backward",
    "fused forward, graph": "Fused entry, forward, replayed from a CUDA graph",
    "fused forward+backward, graph": "Fused entry, forward and backward, replayed from a CUDA graph",
    "model": "Whole detectors of transformers, batch 1",
    DETECTOR: "RT-DETRv2 from image tensor to boxes",
    "call": "One call on next to no data: what dispatch costs",
    "import": "Import, after torch is imported",
}

README_ROWS = ("torch-ms-deform-attn", "msda-triton", "grid_sample")
README_SUITES = (
    "forward",
    "forward+backward",
    "fused forward, graph",
    "fused forward+backward, graph",
)

DETECTOR_BASE = "transformers eager"
"""The many detectors stand below each other and are compared with this one."""

BUSY = 1.5
"""Median over minimum above which something else ran beside the measurement."""

UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))


def full_report(run: Run) -> str:
    """Everything: machine, one table per suite, 16-bit storage against float32, who was absent."""
    parts = ["# Benchmarks", *_dry_run_section(run), _machine_text(run), *_noise_section(run)]
    for suite, title in TITLES.items():
        cases = _cases(run, suite)
        if suite == DETECTOR and cases:
            parts += [f"## {title}", _detector_table(run)]
        elif cases:
            picked = [(suite, case) for case in cases]
            parts += [f"## {title}", _table(run, picked, _rows(run, suite))]
    parts += _differences(run)
    parts += _storage_section(run)
    parts.append(_participants(run))
    return "\n\n".join(parts) + "\n"


def readme_block(run: Run, source: str) -> str:
    """The few numbers a newcomer wants; ``source`` names the file they come from."""
    picked = [
        (suite, case)
        for suite in README_SUITES
        for case in _cases(run, suite)
        if case.endswith("float32 ring")
    ]
    timed = {record.row for record in run.records if (record.suite, record.case) in picked}
    rows = [row for row in run.rows if row in timed and (is_ours(row) or row in README_ROWS)]
    parts = [_table(run, picked, rows, spread=False, name_suite=True)]
    models = [("model", case) for case in _cases(run, "model")]
    if models:
        parts.append(_table(run, models, _rows(run, "model"), spread=False))
    if _cases(run, DETECTOR):
        parts.append(_detector_table(run))
    maker = "make gpu-check" if "gpu" in run.machine else "python benchmarks/run.py"
    parts.append(
        f"{_machine_text(run)} Medians; in brackets how many times slower than the first column"
        f"{' (detectors: how many times faster than ' + DETECTOR_BASE + ')' if _cases(run, DETECTOR) else ''}. "
        f"Numbers from `{source}`, made by `{maker}`."
    )
    return "\n\n".join(parts)


def speedups(run: Run, suite: str, case: str) -> dict[str, float]:
    """How many times slower than the first of our rows each other row is, by medians."""
    found = {record.row: record for record in _records(run, suite, case)}
    base = next((record for row, record in found.items() if is_ours(row)), None)
    if base is None:
        return {}
    return {
        row: record.median_s / base.median_s for row, record in found.items() if not is_ours(row)
    }


def is_ours(row: str) -> bool:
    """Whether a row is this package's."""
    return row.startswith("rtdetr")


def seconds_text(seconds: float) -> str:
    """Three digits and a unit."""
    size, unit = next((pair for pair in UNITS if seconds >= pair[0]), UNITS[-1])
    scaled = seconds / size
    decimals = 2 if scaled < 10 else 1 if scaled < 100 else 0
    return f"{scaled:.{decimals}f} {unit}"


def _records(run: Run, suite: str, case: str) -> list[Record]:
    return [record for record in run.records if (record.suite, record.case) == (suite, case)]


def _cases(run: Run, suite: str) -> list[str]:
    """In the order they were run."""
    return list(dict.fromkeys(record.case for record in run.records if record.suite == suite))


def _rows(run: Run, suite: str) -> list[str]:
    """Ours first, the others in the order they were run."""
    names = dict.fromkeys(record.row for record in run.records if record.suite == suite)
    return sorted(names, key=lambda name: not is_ours(name))


def _table(
    run: Run,
    picked: Iterable[tuple[str, str]],
    rows: Sequence[str],
    spread: bool = True,
    name_suite: bool = False,
) -> str:
    lines = [["", *rows], ["---", *["---:"] * len(rows)]]
    for suite, case in picked:
        found = {record.row: record for record in _records(run, suite, case)}
        slower = speedups(run, suite, case)
        label = f"{case}, {suite}" if name_suite else case
        lines.append([label, *[_cell(found.get(row), slower.get(row), spread) for row in rows]])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _detector_table(run: Run) -> str:
    """A line for each row, a column for each case."""
    cases = _cases(run, DETECTOR)
    lines = [["", *cases], ["---", *["---:"] * len(cases)]]
    for row in _rows(run, DETECTOR):
        lines += [[row, *(_detector_cell(run, case, row) for case in cases)]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _detector_cell(run: Run, case: str, row: str) -> str:
    found = {record.row: record for record in _records(run, DETECTOR, case)}
    if row not in found:
        return "-"
    text = seconds_text(found[row].median_s)
    text = f"**{text}**" if is_ours(row) else text
    if row == DETECTOR_BASE or DETECTOR_BASE not in found:
        return text
    return f"{text} ({found[DETECTOR_BASE].median_s / found[row].median_s:.2f}x)"


def _cell(record: Record | None, slower: float | None, spread: bool) -> str:
    if record is None:
        return "-"
    text = seconds_text(record.median_s)
    text = f"**{text}**" if slower is None and is_ours(record.row) else text
    if slower is not None:
        text += f" ({slower:.{2 if slower < 2 else 1}f}x)"
    return f"{text}, min {seconds_text(record.min_s)}" if spread else text


def _storage_section(run: Run) -> list[str]:
    """Our bfloat16 storage against our float32."""
    lines = [["", "float32", "bfloat16", "float32 / bfloat16"], ["---", "---:", "---:", "---:"]]
    for wide in run.records:
        if not is_ours(wide.row) or " float32 " not in wide.case:
            continue
        narrow_case = wide.case.replace(" float32 ", " bfloat16 ")
        for narrow in _records(run, wide.suite, narrow_case):
            if narrow.row == wide.row:
                times = seconds_text(wide.median_s), seconds_text(narrow.median_s)
                label = f"{wide.case.replace(' float32', '')}, {wide.suite}, {wide.row}"
                lines.append([label, *times, f"{wide.median_s / narrow.median_s:.2f}x"])
    if len(lines) == 2:
        return []
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return ["## 16-bit storage", table]


def _differences(run: Run) -> list[str]:
    """How far the outputs of a patched detector are from those it had before."""
    found = {r.case: r.details["max_difference"] for r in run.records if r.suite == "model"}
    return [
        f"{case}: logits and boxes before and after patching differ by {difference:.0e} at most."
        for case, difference in found.items()
    ]


def _machine_text(run: Run) -> str:
    machine = run.machine
    changed = ", with uncommitted changes" if machine["modified"] else ""
    detail = f"CUDA {machine['cuda']}" if "gpu" in machine else machine["isa"]
    return (
        f"{display_name(machine)} ({detail}), torch {machine['torch']}, "
        f"commit {machine['commit']}{changed}, {machine['date']}."
    )


def _dry_run_section(run: Run) -> list[str]:
    if not (run.gpu_check or {}).get("dry_run"):
        return []
    return ["**A dry run: these numbers mean nothing.**"]


def _noise_section(run: Run) -> list[str]:
    """A warning when many medians are far from their minima."""
    noisy = [record for record in run.records if record.median_s > BUSY * record.min_s]
    if len(noisy) * 10 <= len(run.records):
        return []
    return [
        f"**The machine was busy:** {len(noisy)} of {len(run.records)} medians are more than "
        f"{BUSY} times the minimum. Measure again."
    ]


def _participants(run: Run) -> str:
    lines = [
        "Median and minimum; in brackets how many times slower than the first of our rows. "
        "A dash: the row does not take the case.",
        "",
    ]
    lines += [f"- {row}: {version or 'not installed'}" for row, version in run.rows.items()]
    return "\n".join(lines)
