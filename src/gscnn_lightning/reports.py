"""Scores as files: tables that other programs read, confusion matrix, curve of the distance-based evaluation."""

import csv
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from gscnn_lightning.evaluation import ImageScores

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


def write_image_scores(path: Path, images: "Sequence[ImageScores]") -> None:
    """Write the scores of single images as CSV: a row per image, a column per score; NaN stays empty.

    Args:
        path: file to write; an existing one is replaced.
        images: the images, all with the same scores.
    """
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "index", *(images[0].values if images else ())])
        writer.writerows([image.name, image.index, *map(_cell, image.values.values())] for image in images)


def write_confusion(path: Path, counts: npt.NDArray[np.integer], class_names: Sequence[str]) -> None:
    """Write a confusion matrix as CSV: a row per true class, a column per predicted class.

    Args:
        path: file to write; an existing one is replaced.
        counts: (K, K) pixels, rows are true classes.
        class_names: K names.
    """
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["truth", *class_names])
        writer.writerows([name, *row] for name, row in zip(class_names, counts.tolist(), strict=True))


def plot_confusion(path: Path, counts: npt.NDArray[np.integer], class_names: Sequence[str]) -> None:
    """Draw a confusion matrix in percent of the pixels of each true class; classes without pixels have empty rows.

    Args:
        path: picture to write; its suffix decides the format.
        counts: (K, K) pixels, rows are true classes.
        class_names: K names.
    """
    total = counts.sum(1, keepdims=True)
    percent = np.where(total > 0, 100 * counts / np.maximum(total, 1), np.nan)
    side = 2.6 + 0.36 * len(class_names)
    figure = Figure(figsize=(side, side), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.imshow(percent, cmap="Blues", vmin=0, vmax=100)
    ticks = range(len(class_names))
    # A dollar sign in a name begins no formula.
    axes.set_xticks(ticks, class_names, rotation=90, parse_math=False)
    axes.set_yticks(ticks, class_names, parse_math=False)
    axes.set(title="confusion in % of the true class", xlabel="predicted", ylabel="truth")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for row, column in np.argwhere(percent >= 0.5):
        value = percent[row, column]
        color = "white" if value > 55 else "black"
        axes.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize="small", color=color)
    figure.savefig(path, dpi=110)


def folder_name(number: int, name: str, digits: int = 3) -> str:
    """Name of an image's folder: its number and the last part of its name, safe on every file system.

    Example:
        >>> folder_name(7, "frankfurt/frankfurt_000001 left")
        '007_frankfurt_000001_left'
    """
    return f"{number:0{digits}}_{re.sub(r'[^A-Za-z0-9._-]+', '_', name.rpartition('/')[2])}"


def loosest_boundary_score(names: Iterable[str]) -> str | None:
    """The boundary F at the largest tolerance; None if there is none.

    A fraction of the diagonal counts as that of a frame of 1024x2048.

    Example:
        >>> loosest_boundary_score(["miou", "boundary_f1_12px", "boundary_f1_3px"])
        'boundary_f1_12px'
    """
    prefix, diagonal = "boundary_f1_", 2290

    def pixels(name: str) -> float:
        value = name.removeprefix(prefix)
        return float(value.removesuffix("px")) if value.endswith("px") else float(value.removesuffix("diag")) * diagonal

    return max((name for name in names if name.startswith(prefix)), key=pixels, default=None)


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
