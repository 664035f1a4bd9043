# SPDX-License-Identifier: Apache-2.0
"""Numbers as images, for people. Nothing here touches pyplot, whose state belongs to the program."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data import Annotations
from ..errors import MissingExtraError
from ..files import atomic_write
from ..results.drawing import PALETTE
from ..results.fonts import plain_text
from .curves import Confusion
from .metrics import Evaluation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

__all__ = [
    "plot_confusion",
    "plot_history",
    "plot_labels",
    "plot_precision_recall",
    "require_matplotlib",
]

DPI = 120
COLORS = ["#{:02x}{:02x}{:02x}".format(*color) for color in PALETTE]
INK = "#222222"
MUTED = "#8a8a8a"
MOST_COLORED = 10
"""Classes with a line of their own color; more are gray."""
MOST_BARS = 30
MOST_LABELED = 60
"""Classes whose names fit beside a matrix."""
MOST_COUNTED = 20
"""Classes whose numbers fit into it."""
MOST_LINES = 7
"""Of a panel of the history; the first ones, sums before terms."""

PANELS: tuple[tuple[str, Callable[[str], bool]], ...] = (
    ("loss", lambda name: name == "loss" or name.endswith("_loss")),
    ("terms of the loss", lambda name: "loss_" in name),
    ("average precision", lambda name: name in ("ap", "ap50", "ap75")),
    ("AP by size", lambda name: name.startswith("ap_")),
    ("at the best threshold", lambda name: name in ("precision", "recall", "f1", "threshold")),
    ("learning rate", lambda name: name == "lr" or name.startswith("lr_") or name.endswith("_lr")),
)
"""What belongs together in a history, by the names of its columns; other columns are not drawn."""


def require_matplotlib() -> None:
    """Look for it before an hour of work depends on it.

    Raises:
        MissingExtraError: if it is not installed.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("A plot", "matplotlib", '"rtdetr-ops[train]"') from error


def plot_history(rows: Sequence[Mapping[str, float | None]], path: str | os.PathLike[str]) -> None:
    """The numbers of a training run over its epochs.

    Args:
        rows: one for each epoch, with "epoch" and any of "loss", "loss_..." and other names with "loss", the names of
            :meth:`Evaluation.numbers`, and "lr", "lr_..." or "..._lr". None and NaN leave a gap.
        path: of the image; its suffix names the format.
    """
    known = [name for row in rows for name, value in row.items() if np.isfinite(_number(value))]
    names = list(dict.fromkeys(known))
    panels = [(title, [name for name in names if belongs(name)]) for title, belongs in PANELS]
    panels = [(title, columns) for title, columns in panels if columns] or [("no numbers yet", [])]
    width = min(3, len(panels))
    height = -(-len(panels) // width)
    figure = _figure(4.6 * width, 3.4 * height)
    epochs = [row.get("epoch", number) for number, row in enumerate(rows)]
    for place, (title, columns) in enumerate(panels, start=1):
        axes = _axes(figure, (height, width, place), title, "epoch")
        for index, name in enumerate(columns[:MOST_LINES]):
            values = [_number(row.get(name)) for row in rows]
            _line(axes, epochs, values, index, f"{name}  {_last(values)}")
        if "ap" in columns:
            _mark_best(axes, epochs, rows)
        if title == "learning rate":
            axes.ticklabel_format(axis="y", style="scientific", scilimits=(0, 0))
        _legend(axes)
    _save(figure, path)


def plot_precision_recall(evaluation: Evaluation, path: str | os.PathLike[str]) -> None:
    """Precision over recall by class, and precision, recall and F1 over the score, at an IoU of 0.5."""
    figure = _figure(11, 4.8)
    left = _axes(figure, (1, 2, 1), "precision over recall, IoU 0.5", "recall", "precision")
    _class_curves(left, evaluation)
    right = _axes(figure, (1, 2, 2), "above a score", "score")
    curves = evaluation.curves
    lines = {
        # Of no predictions at all it is not defined.
        "precision": np.where(curves.recall_above > 0, curves.precision_above, np.nan),
        "recall": curves.recall_above,
        "F1": curves.f1_above,
    }
    for index, (name, values) in enumerate(lines.items()):
        _line(right, curves.threshold, values, index, name)
    if evaluation.threshold is not None:
        right.axvline(evaluation.threshold, color=MUTED, linewidth=1, linestyle="--")
        label = f"best F1 {evaluation.f1:.3f} above {evaluation.threshold:.3f}"
        right.plot([], [], color=MUTED, linewidth=1, linestyle="--", label=label)
    for axes in (left, right):
        axes.set(xlim=(0, 1), ylim=(0, 1.02))
        _legend(axes)
    _save(figure, path)


def plot_confusion(confusion: Confusion, path: str | os.PathLike[str]) -> None:
    """What the boxes of each class were taken for; a row is shared out among what its boxes were taken for."""
    counts = confusion.counts
    total = len(counts)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = min(14.0, 3.2 + 0.36 * total)
    figure = _figure(side + 1.2, side)
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    _colorbar(figure, image, axes, "share of the row")
    axes.set_title("what boxes were taken for", fontsize=11, color=INK, loc="left")
    axes.set(xlabel="predicted", ylabel="annotated")
    names = [*map(_text, confusion.names)]
    if total <= MOST_LABELED:
        axes.set_xticks(range(total), [*names, "missed"], rotation=90, fontsize=8)
        axes.set_yticks(range(total), [*names, "nothing there"], fontsize=8)
    if total <= MOST_COUNTED:
        for row, column in zip(*np.nonzero(counts), strict=True):
            color = "white" if shares[row, column] > 0.55 else INK
            text = f"{counts[row, column]:,}"
            axes.text(column, row, text, ha="center", va="center", color=color, fontsize=7)
    _save(figure, path)


def plot_labels(annotations: Annotations, path: str | os.PathLike[str]) -> None:
    """What there is to learn: boxes by class, where they are, how large they are, how many in an image."""
    figure = _figure(11, 8)
    boxes = annotations.boxes[~annotations.crowds].astype(np.float64)
    images = np.repeat(np.arange(len(annotations)), annotations.counts())[~annotations.crowds]
    sizes = annotations.sizes[images][:, ::-1]
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2 / sizes
    sides = (boxes[:, 2:] - boxes[:, :2]) / sizes
    _class_bars(figure, annotations)
    _density(figure, (2, 2, 2), "where boxes are", centers, ("center x", "center y"), down=True)
    _density(figure, (2, 2, 3), "how large boxes are", sides, ("width", "height"))
    axes = _axes(figure, (2, 2, 4), "boxes in an image", "boxes", "images")
    counts = np.bincount(images, minlength=len(annotations))
    most = int(counts.max(initial=0))
    edges = np.arange(most + 2) - 0.5 if most < 60 else np.linspace(-0.5, most + 0.5, 61)
    axes.hist(counts, bins=edges.tolist(), color=COLORS[1], edgecolor="white")
    _save(figure, path)


def _class_curves(axes: Axes, evaluation: Evaluation) -> None:
    curves = evaluation.curves
    measured = [one for one in evaluation.classes if one.boxes]
    rows = curves.class_precision[~np.isnan(curves.class_precision[:, 0])]
    few = len(measured) <= MOST_COLORED
    for index, (one, precision) in enumerate(zip(measured, rows, strict=True)):
        label = f"{one.name}  {one.ap50:.3f}" if few else None
        _line(axes, curves.recall, precision, index, label, None if few else "#c9c9c9")
    if evaluation.ap50 is not None:
        label = f"all  {evaluation.ap50:.3f}"
        axes.plot(curves.recall, curves.precision, color=INK, linewidth=2.6, label=label)


def _class_bars(figure: Figure, annotations: Annotations) -> None:
    counts = annotations.class_counts()
    order = np.argsort(-counts, kind="stable")[:MOST_BARS]
    title = "boxes of each class"
    if len(counts) > MOST_BARS:
        title = f"boxes of the {MOST_BARS} most frequent of {len(counts):,} classes"
    axes = _axes(figure, (2, 2, 1), title, "boxes")
    places = range(len(order))
    axes.barh(places, counts[order], color=[COLORS[index % len(COLORS)] for index in order])
    axes.set_yticks(places, [_text(annotations.categories.names[index]) for index in order])
    axes.tick_params("y", labelsize=8 if len(order) <= 15 else 6)
    axes.grid(axis="y", visible=False)
    axes.invert_yaxis()
    if len(order) <= 15:
        for place, count in zip(places, counts[order], strict=True):
            axes.annotate(f" {count:,}", (count, place), va="center", fontsize=7, color=INK)


def _density(
    figure: Figure,
    place: tuple[int, int, int],
    title: str,
    points: Any,
    labels: tuple[str, str],
    down: bool = False,
) -> None:
    """Points [n, 2] in 0..1 as a map; ``down`` lets y grow downwards, as in images."""
    axes = _axes(figure, place, title, *(f"{label}, share of the image" for label in labels))
    counts, *_ = np.histogram2d(points[:, 1], points[:, 0], bins=40, range=[[0, 1], [0, 1]])
    shown = np.ma.masked_equal(counts, 0)
    image = axes.imshow(shown, extent=(0, 1, 0, 1), origin="lower", cmap="viridis", aspect="auto")
    _colorbar(figure, image, axes, "boxes")
    axes.set(xlim=(0, 1), ylim=(1, 0) if down else (0, 1))
    axes.grid(visible=False)


def _figure(width: float, height: float) -> Figure:
    require_matplotlib()
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")


def _axes(
    figure: Figure, place: tuple[int, int, int], title: str, across: str = "", up: str = ""
) -> Axes:
    axes = figure.add_subplot(*place)
    axes.set_title(title, fontsize=11, color=INK, loc="left")
    axes.set_xlabel(across, color=INK, fontsize=9)
    axes.set_ylabel(up, color=INK, fontsize=9)
    axes.grid(color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8, colors=INK)
    return axes


def _colorbar(figure: Figure, image: AxesImage, axes: Axes, label: str) -> None:
    bar = figure.colorbar(image, ax=axes, fraction=0.046, pad=0.02)
    bar.set_label(label, color=INK, fontsize=9)
    bar.ax.tick_params(labelsize=8, colors=INK)
    if label == "boxes":
        from matplotlib.ticker import MaxNLocator

        bar.ax.yaxis.set_major_locator(MaxNLocator(integer=True))


def _line(
    axes: Axes, xs: Any, ys: Any, index: int, label: str | None, color: str | None = None
) -> None:
    """A line; a single point is drawn as one."""
    axes.plot(
        xs,
        ys,
        color=color or COLORS[LINE_COLORS[index % len(LINE_COLORS)]],
        linewidth=1.6 if color is None else 0.8,
        marker="o" if len(xs) < 3 else None,
        markersize=4,
        label=None if label is None else _text(label),
    )


LINE_COLORS = (1, 3, 4, 0, 5, 2, 7, 9, 11, 10)
"""Of the palette, those that are dark enough for a thin line on white."""


def _legend(axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        axes.legend(handles, labels, fontsize=8, frameon=True, framealpha=0.85, edgecolor="none")


def _mark_best(axes: Axes, epochs: Sequence[Any], rows: Sequence[Mapping[str, Any]]) -> None:
    values = np.asarray([_number(row.get("ap")) for row in rows])
    if np.isfinite(values).any():
        best = int(np.nanargmax(values))
        label = f"best {values[best]:.4g}, epoch {epochs[best]}"
        axes.plot(epochs[best], values[best], "o", color=INK, markersize=5, zorder=5, label=label)


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def _last(values: Sequence[float]) -> str:
    known = [value for value in values if np.isfinite(value)]
    return f"{known[-1]:.4g}" if known else ""


def _text(name: str) -> str:
    """A name as matplotlib takes it: a dollar begins no formula, and a leading underscore hides nothing."""
    text = plain_text(name).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def _save(figure: Figure, path: str | os.PathLike[str]) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    path = Path(path)
    options = {"quality": 95} if path.suffix.lower() in (".jpg", ".jpeg") else {}
    with atomic_write(path) as temporary:
        figure.savefig(temporary, pil_kwargs=options)
