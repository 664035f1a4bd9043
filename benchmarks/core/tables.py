# SPDX-License-Identifier: Apache-2.0
"""A run as Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from core.machine import display_name
from core.records import DETECTOR, TRAINING, Record, Run

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
    TRAINING: "One training step of RT-DETRv2",
    "call": "One call on next to no data: what dispatch costs",
    "import": "Import, after torch is imported",
}

README_PEERS = ("torch-ms-deform-attn", "msda-triton", "grid_sample")
README_SUITES = (
    "forward",
    "forward+backward",
    "fused forward, graph",
    "fused forward+backward, graph",
)

BASES = {DETECTOR: "transformers eager", TRAINING: "transformers"}
"""Suites whose many contenders stand below each other and are compared with this one."""

DIFFERENCE = "max_difference"
"""Of the details of a record, the one that is no time."""

BUSY = 1.5
"""Median over minimum above which something else ran beside the measurement."""

UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))


def full_report(run: Run) -> str:
    """Everything: machine, one table per suite, 16-bit storage against float32, who was absent."""
    parts = ["# Benchmarks", *_dry_run_section(run), _machine_text(run), *_noise_section(run)]
    for suite, title in TITLES.items():
        cases = _cases(run, suite)
        if suite in BASES and cases:
            parts += [f"## {title}", _based_table(run, suite)]
        elif cases:
            pairs = [(suite, case) for case in cases]
            parts += [f"## {title}", _table(run, pairs, _contenders(run, suite))]
    parts += _parts_section(run)
    parts += _differences(run)
    parts += _storage_section(run)
    parts.append(_participants(run))
    return "\n\n".join(parts) + "\n"


def readme_block(run: Run, source: str) -> str:
    """The few numbers a newcomer wants; ``source`` names the file they come from."""
    pairs = [
        (suite, case)
        for suite in README_SUITES
        for case in _cases(run, suite)
        if case.endswith("float32 ring")
    ]
    names = {record.contender for record in run.records if (record.suite, record.case) in pairs}
    contenders = [
        name for name in run.contenders if name in names and (is_ours(name) or name in README_PEERS)
    ]
    parts = [_table(run, pairs, contenders, spread=False, name_suite=True)]
    models = [("model", case) for case in _cases(run, "model")]
    if models:
        parts.append(_table(run, models, _contenders(run, "model"), spread=False))
    based = [suite for suite in BASES if _cases(run, suite)]
    parts += [_based_table(run, suite) for suite in based]
    bases = [f"{suite}: how many times faster than {BASES[suite]}" for suite in based]
    maker = "make gpu-check" if "gpu" in run.machine else "python benchmarks/run.py"
    parts.append(
        f"{_machine_text(run)} Medians; in brackets how many times slower than the first column"
        f"{' (' + '; '.join(bases) + ')' if bases else ''}. "
        f"Numbers from `{source}`, made by `{maker}`."
    )
    return "\n\n".join(parts)


def speedups(run: Run, suite: str, case: str) -> dict[str, float]:
    """How many times slower than the first contender of ours each other one is, by medians."""
    records = _records(run, suite, case)
    base = next((record for name, record in records.items() if is_ours(name)), None)
    if base is None:
        return {}
    return {
        name: record.median_s / base.median_s
        for name, record in records.items()
        if not is_ours(name)
    }


def is_ours(contender: str) -> bool:
    """Whether a contender is this package's."""
    return contender.startswith("rtdetr")


def seconds_text(seconds: float) -> str:
    """Three digits and a unit."""
    size, unit = next((pair for pair in UNITS if seconds >= pair[0]), UNITS[-1])
    scaled = seconds / size
    decimals = 2 if scaled < 10 else 1 if scaled < 100 else 0
    return f"{scaled:.{decimals}f} {unit}"


def _records(run: Run, suite: str, case: str) -> dict[str, Record]:
    """By contender."""
    return {
        record.contender: record
        for record in run.records
        if (record.suite, record.case) == (suite, case)
    }


def _cases(run: Run, suite: str) -> list[str]:
    """In the order they were run."""
    return list(dict.fromkeys(record.case for record in run.records if record.suite == suite))


def _contenders(run: Run, suite: str) -> list[str]:
    """Ours first, the others in the order they were run."""
    names = dict.fromkeys(record.contender for record in run.records if record.suite == suite)
    return sorted(names, key=lambda name: not is_ours(name))


def _table(
    run: Run,
    pairs: Iterable[tuple[str, str]],
    contenders: Sequence[str],
    spread: bool = True,
    name_suite: bool = False,
) -> str:
    """A row for each (suite, case), a column for each contender."""
    rows = []
    for suite, case in pairs:
        records, slower = _records(run, suite, case), speedups(run, suite, case)
        label = f"{case}, {suite}" if name_suite else case
        cells = (_cell(records.get(name), slower.get(name), spread) for name in contenders)
        rows.append([label, *cells])
    return _markdown(["", *contenders], rows)


def _based_table(run: Run, suite: str) -> str:
    """A row for each contender, a column for each case."""
    cases = _cases(run, suite)
    rows = [
        [contender, *(_based_cell(_records(run, suite, case), contender) for case in cases)]
        for contender in _contenders(run, suite)
    ]
    return _markdown(["", *cases], rows)


def _based_cell(records: Mapping[str, Record], contender: str) -> str:
    base = BASES[next(iter(records.values())).suite]
    if contender not in records:
        return "-"
    median_s = records[contender].median_s
    text = seconds_text(median_s)
    text = f"**{text}**" if is_ours(contender) else text
    if contender == base or base not in records:
        return text
    return f"{text} ({records[base].median_s / median_s:.2f}x)"


def _parts_section(run: Run) -> list[str]:
    """What a training step consists of, in seconds and in shares of all parts."""
    columns = {
        record.case: {part: s for part, s in record.details.items() if part != DIFFERENCE}
        for record in run.records
        if record.suite == TRAINING and record.details.keys() - {DIFFERENCE}
    }
    if not columns:
        return []
    rows = [
        [part, *(_share(column[part], sum(column.values())) for column in columns.values())]
        for part in next(iter(columns.values()))
    ]
    return ["## Parts of a training step of rtdetr", _markdown(["", *columns], rows)]


def _share(seconds: float, total: float) -> str:
    return f"{seconds_text(seconds)} ({seconds / total:.1%})"


def _cell(record: Record | None, slower: float | None, spread: bool) -> str:
    if record is None:
        return "-"
    text = seconds_text(record.median_s)
    text = f"**{text}**" if slower is None and is_ours(record.contender) else text
    if slower is not None:
        text += f" ({slower:.{2 if slower < 2 else 1}f}x)"
    return f"{text}, min {seconds_text(record.min_s)}" if spread else text


def _storage_section(run: Run) -> list[str]:
    """Our bfloat16 storage against our float32."""
    rows = []
    for wide in run.records:
        if not is_ours(wide.contender) or " float32 " not in wide.case:
            continue
        narrow_case = wide.case.replace(" float32 ", " bfloat16 ")
        narrow = _records(run, wide.suite, narrow_case).get(wide.contender)
        if narrow is not None:
            times = seconds_text(wide.median_s), seconds_text(narrow.median_s)
            label = f"{wide.case.replace(' float32', '')}, {wide.suite}, {wide.contender}"
            rows.append([label, *times, f"{wide.median_s / narrow.median_s:.2f}x"])
    head = ["", "float32", "bfloat16", "float32 / bfloat16"]
    return ["## 16-bit storage", _markdown(head, rows)] if rows else []


def _differences(run: Run) -> list[str]:
    """How far the outputs of a patched detector are from those it had before."""
    differences = {r.case: r.details[DIFFERENCE] for r in run.records if r.suite == "model"}
    return [
        f"{case}: logits and boxes before and after patching differ by {difference:.0e} at most."
        for case, difference in differences.items()
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
    lines += [f"- {name}: {version or 'not installed'}" for name, version in run.contenders.items()]
    return "\n".join(lines)


def _markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose first column is text and whose other columns are numbers."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
