"""Scores as files: tables that other programs read, and the curve of the distance-based evaluation."""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

MEAN_NAMES = {
    "miou": "mean IoU",
    "accuracy": "pixel accuracy",
    "mean_accuracy": "class accuracy",
    "fwiou": "frequency-weighted IoU",
    "category_miou": "category IoU",
    "iiou": "mean iIoU",
    "category_miiou": "category iIoU",
    "boundary_iou": "Boundary IoU",
    "boundary_ods": "boundary map, best F",
}
"""Names of mean scores as headings."""


def write_table(path: Path, rows: Mapping[str, Mapping[str, float | None]], first: str) -> None:
    """Write a table as CSV; what is missing or NaN stays empty.

    Args:
        path: file to write; an existing one is replaced.
        rows: {row name: {column name: value}}.
        first: heading of the row names.
    """
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([first, *columns])
        for name, row in rows.items():
            writer.writerow([name, *(_cell(row.get(column)) for column in columns)])


def plot_distance_curves(curves: Mapping[str, Mapping[str, float]], path: Path) -> None:
    """Draw mean IoU against the crop factor of the distance-based evaluation.

    Args:
        curves: {name of the network: {crop factor: mean IoU in [0, 1]}}.
        path: picture to write; its suffix decides the format.
    """
    figure = Figure(figsize=(5.2, 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for name, curve in curves.items():
        factors, values = [float(factor) for factor in curve], [100 * value for value in curve.values()]
        axes.plot(factors, values, ".-", label=name, linewidth=1.6)
        for factor, value in zip(factors, values, strict=True):
            if math.isfinite(value) and len(curves) == 1:
                axes.annotate(f"{value:.1f}", (factor, value), (0, 6), textcoords="offset points", ha="center")
    axes.set(
        title="mean IoU toward the vanishing point",
        xlabel="crop factor: rows cut off above and below, of 1024",
        ylabel="mean IoU in %",
    )
    axes.margins(y=0.15)
    axes.grid(alpha=0.25)
    axes.spines[["right", "top"]].set_visible(False)
    if len(curves) > 1:
        axes.legend(frameon=False, fontsize="small")
    figure.savefig(path, dpi=130)


def score_headings(columns: Sequence[str]) -> list[str]:
    """Names of scores as headings.

    Example:
        >>> score_headings(["iou", "boundary_f1_3px", "boundary_f1_0.01diag", "boundary_iou", "iiou"])
        ['IoU', 'F 3 px', 'F 0.01diag', 'BIoU', 'iIoU']
    """
    known = {"iou": "IoU", "boundary_iou": "BIoU", "iiou": "iIoU"}
    return [known.get(name, name.replace("boundary_f1_", "F ").replace("px", " px")) for name in columns]


def _cell(value: float | None) -> str:
    return "" if value is None or not math.isfinite(value) else repr(float(value))
