# SPDX-License-Identifier: Apache-2.0
"""A run as a plot: how many times slower every other implementation is."""

from __future__ import annotations

from pathlib import Path

from core.machine import display_name
from core.records import Run
from core.tables import speedups

__all__ = ["plot"]

SUITES = ("forward", "forward+backward")


def plot(run: Run, path: Path) -> None:
    """Write a PNG: one panel per direction, one group of bars per case, one color per contender."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    cases = list(dict.fromkeys(r.case for r in run.records if r.suite in SUITES))
    peers = [
        name
        for name in run.contenders
        if any(name in speedups(run, suite, case) for suite in SUITES for case in cases)
    ]
    figure, panels = pyplot.subplots(
        1, len(SUITES), sharey=True, figsize=(12, 1.5 + 0.6 * len(cases)), layout="constrained"
    )
    for panel, suite in zip(panels, SUITES, strict=True):
        _draw(panel, run, suite, cases, peers)
    panels[0].set_yticks(range(len(cases)), cases)
    panels[0].invert_yaxis()
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    figure.suptitle(
        f"Times slower than rtdetr_ops: {display_name(run.machine)}, {run.machine['commit']}"
    )
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _draw(panel, run: Run, suite: str, cases: list[str], peers: list[str]) -> None:  # type: ignore[no-untyped-def]
    height = 0.8 / max(len(peers), 1)
    for index, peer in enumerate(peers):
        shift = (index - (len(peers) - 1) / 2) * height
        ratios = {i: speedups(run, suite, case).get(peer) for i, case in enumerate(cases)}
        bars = {i: ratio for i, ratio in ratios.items() if ratio is not None}
        panel.barh([i + shift for i in bars], list(bars.values()), height, label=peer)
    panel.axvline(1.0, color="black", linewidth=1)
    panel.set_xscale("log")
    panel.set_xlabel("times slower")
    panel.set_title(suite)
