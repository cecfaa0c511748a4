"""Plots: learning curves, confusion matrices, reliability, curves of the distance-based evaluation."""

import math
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from gscnn_lightning.errors import DataError
from gscnn_lightning.score_names import is_loss, loss_order, loss_title, main_scores, score_order, score_title

Series = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]
"""Steps and values of one logged quantity."""

_LONGEST = 40  # characters of a name beside an axis


def plot_learning_curves(series: Mapping[str, Series], steps_per_epoch: float, out: Path) -> None:
    """Draw the curves of a run: losses, validation scores and learning rates over training steps.

    Args:
        series: what was logged, by name; drawn are ``train/loss*``, ``val/loss_segmentation``, ``val/miou``,
            ``val/boundary_f1_*`` (in [0, 1]) and ``train/lr``, as far as they are there.
        steps_per_epoch: optimizer steps.
        out: picture to write; its suffix decides the format.

    Raises:
        DataError: none of these was logged.
    """
    trained = [key.removeprefix("train/") for key in series if key.startswith("train/") and not key.endswith("_epoch")]
    terms = sorted(filter(is_loss, trained), key=loss_order)
    losses = {loss_title(name): series[f"train/{name}"] for name in terms}
    if "val/loss_segmentation" in series:
        losses[f"{loss_title('loss_segmentation')}, validation"] = series["val/loss_segmentation"]
    names = [key.removeprefix("val/") for key in series if key.startswith("val/")]
    scores = {score_title(name): series[f"val/{name}"] for name in sorted(main_scores(names), key=score_order)}
    rates = {"learning rate": series["train/lr"]} if "train/lr" in series else {}
    panels = [
        (draw, curves)
        for draw, curves in ((_draw_losses, losses), (_draw_scores, scores), (_draw_rates, rates))
        if curves
    ]
    if not panels:
        raise DataError("no losses, validation scores or learning rates were logged: nothing to draw")
    figure = Figure(figsize=(5.2 * len(panels), 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (draw, curves) in zip(
        figure.subplots(1, len(panels), sharex=True, squeeze=False)[0], panels, strict=True
    ):
        draw(axes, curves)
        _finish_axes(axes, steps_per_epoch)
    figure.savefig(out, dpi=130)


def _draw_losses(axes: Axes, curves: dict[str, Series]) -> None:
    for index, (label, (steps, values)) in enumerate(curves.items()):
        color = "black" if label.startswith("total") else f"C{index}"
        smooth = running_mean(values, max(1, len(values) // 40))
        if len(values) > 80:
            axes.plot(steps, values, color=color, alpha=0.2, linewidth=0.6)
        style = "--" if label.endswith("validation") else "-"
        width, dot = 2.0 if color == "black" else 1.4, "." if len(steps) == 1 else ""
        axes.plot(steps, smooth, style, marker=dot, color=color, label=label, linewidth=width)
    # A term may be exactly zero (no confident boundary yet): leave the gap, a logarithm has no place for it.
    axes.set_yscale("log", nonpositive="mask")
    axes.set(title="weighted loss terms", ylabel="loss")


def _draw_scores(axes: Axes, curves: dict[str, Series]) -> None:
    for index, (label, (steps, values)) in enumerate(curves.items()):
        color = "black" if index == 0 else f"C{index - 1}"
        axes.plot(steps, 100 * values, ".-", color=color, label=label, linewidth=1.6)
        if np.isfinite(values).any():
            best = int(np.nanargmax(values))
            axes.annotate(
                f"{100 * values[best]:.1f}",
                (steps[best], 100 * values[best]),
                xytext=(0, 6),
                textcoords="offset points",
                ha="center",
                color=color,
            )
    axes.margins(y=0.12)
    axes.set(title="validation scores (best value marked)", ylabel="score in %")


def _draw_rates(axes: Axes, curves: dict[str, Series]) -> None:
    for label, (steps, values) in curves.items():
        axes.plot(steps, values, label=label, linewidth=1.6)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(lambda rate, _: f"{rate:.3g}")
    axes.set(title="learning rate", ylabel="learning rate")


def _finish_axes(axes: Axes, steps_per_epoch: float) -> None:
    axes.set_xlabel("optimizer step")
    to_epoch, to_step = partial(_scaled, factor=1 / steps_per_epoch), partial(_scaled, factor=steps_per_epoch)
    epochs = axes.secondary_xaxis("top", functions=(to_epoch, to_step))
    epochs.set_xlabel("epoch")
    epochs.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))
    axes.grid(alpha=0.25)
    axes.spines["right"].set_visible(False)
    axes.legend(frameon=False, fontsize="small")


def _scaled(values: npt.ArrayLike, factor: float) -> npt.NDArray[np.float64]:
    return np.asarray(values, np.float64) * factor


def running_mean(values: npt.NDArray[np.float64], radius: int) -> npt.NDArray[np.float64]:
    """Mean over a centred window, narrower at the ends instead of padded.

    Args:
        values: (N,) numbers.
        radius: neighbours on either side, >= 0.

    Example:
        >>> import numpy as np
        >>> running_mean(np.array([0.0, 3.0, 6.0, 0.0]), 1).tolist()
        [0.0, 3.0, 3.0, 0.0]
    """
    total = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    half = np.minimum(np.minimum(index, index[::-1]), radius)
    return (total[index + half + 1] - total[index - half]) / (2 * half + 1)


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


def plot_score_curves(
    curves: Mapping[str, Mapping[str, tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]]], path: Path
) -> None:
    """Draw validation scores of several networks over the time of their trainings, a panel per score.

    Args:
        curves: {title of the score: {name of the network: minutes (N,) and values (seeds, N) in [0, 1]}}. Drawn are
            means over seeds, and one sample standard deviation to either side where there are several.
        path: picture to write; its suffix decides the format.
    """
    figure = Figure(figsize=(5.2 * len(curves), 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (title, lines) in zip(figure.subplots(1, len(curves), squeeze=False)[0], curves.items(), strict=True):
        for index, (name, (minutes, values)) in enumerate(lines.items()):
            mean = 100 * values.mean(0)
            axes.plot(minutes, mean, ".-", color=f"C{index}", label=name, linewidth=1.6)
            if len(values) > 1:
                width = 100 * values.std(0, ddof=1)
                axes.fill_between(minutes, mean - width, mean + width, color=f"C{index}", alpha=0.15, linewidth=0)
        axes.set(title=title, xlabel="minutes of training", ylabel="score in %")
        axes.set_xlim(left=0)
        axes.grid(alpha=0.25)
        axes.spines[["right", "top"]].set_visible(False)
        axes.legend(frameon=False, fontsize="small")
    figure.savefig(path, dpi=130)


def plot_reliability(
    regions: Mapping[str, Mapping[str, Sequence[float]]], errors: Mapping[str, float], path: Path
) -> None:
    """Draw accuracy against confidence, and below it how many pixels have which confidence.

    Where a curve lies below the diagonal, the network is right less often than it says.

    Args:
        regions: "pixels", "confidence" and "accuracy" by bin, of "all" pixels and of those near a "boundary"; bins are
            of one width from 0 to 1, NaN where they are empty.
        errors: calibration error of each region, in [0, 1] or NaN.
        path: picture to write; its suffix decides the format.
    """
    titles = {"all": "all pixels", "boundary": "within 3 px of boundaries"}
    figure = Figure(figsize=(5.2, 5.6), layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    upper.plot([0, 100], [0, 100], "--", color="0.6", linewidth=1, label="as often right as it says")
    for index, (region, bins) in enumerate(regions.items()):
        pixels, confidence, accuracy = (
            np.asarray(bins[part], np.float64) for part in ("pixels", "confidence", "accuracy")
        )
        known = pixels > 0
        error = errors.get(region, math.nan)
        label = f"{titles.get(region, region)}: ECE {100 * error:.1f} %" if math.isfinite(error) else titles[region]
        upper.plot(100 * confidence[known], 100 * accuracy[known], ".-", color=f"C{index}", label=label, linewidth=1.6)
        edges = np.linspace(0, 100, len(pixels) + 1)
        lower.stairs(100 * pixels / max(1.0, pixels.sum()), edges, color=f"C{index}", linewidth=1.6)
    upper.set(title="reliability", ylabel="right, in % of the pixels", xlim=(0, 100), ylim=(0, 100))
    lower.set(xlabel="confidence: probability of the predicted class in %", ylabel="pixels in %", ylim=(0, None))
    for axes in (upper, lower):
        axes.grid(alpha=0.25)
        axes.spines[["right", "top"]].set_visible(False)
    upper.legend(frameon=False, fontsize="small", loc="upper left")
    figure.savefig(path, dpi=130)


def plot_confusion(counts: npt.NDArray[np.integer], class_names: Sequence[str], path: Path) -> None:
    """Draw a confusion matrix in percent of the pixels of each true class; classes without pixels have empty rows.

    Args:
        counts: (K, K) pixels, rows are true classes.
        class_names: K names.
        path: picture to write; its suffix decides the format.
    """
    total = counts.sum(1, keepdims=True)
    percent = np.where(total > 0, 100 * counts / np.maximum(total, 1), np.nan)
    names = [name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…" for name in class_names]
    side = 2.6 + 0.36 * len(names) + 0.1 * max(0, max(map(len, names), default=0) - 14)
    figure = Figure(figsize=(side, side), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.imshow(percent, cmap="Blues", vmin=0, vmax=100)
    ticks = range(len(names))
    # A dollar sign in a name begins no formula.
    axes.set_xticks(ticks, names, rotation=90, parse_math=False)
    axes.set_yticks(ticks, names, parse_math=False)
    axes.set(title="confusion in % of the true class", xlabel="predicted", ylabel="truth")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for row, column in np.argwhere(percent >= 0.5):
        value = percent[row, column]
        color = "white" if value > 55 else "black"
        axes.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize="small", color=color)
    with warnings.catch_warnings():
        # Names in other scripts than those of the font that comes with matplotlib are boxes.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(path, dpi=110)
