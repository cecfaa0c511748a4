"""Curves of several runs as the numbers of an SVG: plain data for the template."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gscnn_lightning.drawing.plots import Series, running_mean

WIDTH, HEIGHT = 380, 216
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 10, 10, 34
_MOST_POINTS = 240


@dataclass(frozen=True)
class Tick:
    """A line of the grid: its place in the drawing and its label."""

    at: float
    label: str


@dataclass(frozen=True)
class Curve:
    """One drawn curve.

    Attributes:
        run: number of the run, which decides the colour.
        label: of the legend.
        dashed: validation beside training.
        lines: SVG paths; more than one where the curve has gaps.
        raw: SVG paths of the values before smoothing, or none.
        points: [x, y, epoch, value] in the drawing and in the units of the chart.
        marks: whether each point is drawn, as few are.
        best: [x, y] of the best value, or None.
        value: what the legend says.
    """

    run: int
    label: str
    dashed: bool
    lines: list[str]
    raw: list[str]
    points: list[list[float]]
    marks: bool
    best: list[float] | None
    value: str


@dataclass(frozen=True)
class Chart:
    """One chart with everything the template draws."""

    title: str
    unit: str
    curves: list[Curve]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    x_label: str = "epoch"
    width: int = WIDTH
    height: int = HEIGHT
    left: int = _LEFT
    right: int = WIDTH - _RIGHT
    top: int = _TOP
    bottom: int = HEIGHT - _BOTTOM


@dataclass
class Line:
    """What is to be drawn: x in epochs, y in the units of the chart."""

    run: int
    label: str
    x: npt.NDArray[np.float64]
    y: npt.NDArray[np.float64]
    dashed: bool = False
    raw: npt.NDArray[np.float64] | None = None


def as_line(run: int, label: str, series: Series, steps_per_epoch: float, scale: float, noisy: bool = False) -> Line:
    """A logged quantity over epochs, thinned out if it has many values.

    Args:
        run: number of the run.
        label: of the legend.
        series: steps and values.
        steps_per_epoch: optimizer steps.
        scale: factor of the values, 100 for percent.
        noisy: whether many values are smoothed, and drawn as they are behind it.
    """
    x, y = (series[0] + 1) / steps_per_epoch, series[1] * scale
    if len(y) <= 60 or not np.isfinite(y).all():
        return Line(run, label, x, y)
    drawn = [x, running_mean(y, max(1, len(y) // 40)), y] if noisy else [x, y]
    bins = np.linspace(0, len(y), min(len(y), _MOST_POINTS) + 1).astype(int)[:-1]
    thin = [np.add.reduceat(values, bins) / np.diff([*bins, len(y)]) for values in drawn]
    return Line(run, label, thin[0], thin[1], raw=thin[2] if noisy else None)


def draw(title: str, unit: str, lines: Sequence[Line], best: bool = False, may_be_log: bool = False) -> Chart:
    """A chart of lines.

    Args:
        title: heading.
        unit: of the values, for the axis.
        lines: at least one, with at least one finite value.
        best: whether the largest value is marked and named in the legend, else the last one.
        may_be_log: whether the axis becomes logarithmic where values differ by orders of magnitude.
    """
    values = np.concatenate([line.y for line in lines])
    values = values[np.isfinite(values)]
    log = may_be_log and values.min() > 0 and np.quantile(values, 0.98) > 8 * np.quantile(values, 0.02)
    low, high, y_ticks = _log_range(values) if log else _linear_range(values)
    end = max(float(line.x.max()) for line in lines)
    end = max(end, 1.0)

    def at(x: float, y: float) -> tuple[float, float]:
        share = (math.log(y / low) / math.log(high / low)) if log else (y - low) / (high - low)
        plot_width, plot_height = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM
        return round(_LEFT + plot_width * x / end, 1), round(_TOP + plot_height * (1 - min(max(share, 0), 1)), 1)

    def paths(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> list[str]:
        result, part = [], list[str]()
        for u, v in [*zip(x.tolist(), y.tolist(), strict=True), (0.0, math.nan)]:
            if math.isfinite(v) and (not log or v > 0):
                part.append("{} {}".format(*at(u, v)))
            elif part:
                result.append("M" + " L".join(part))
                part = []
        return result

    curves = []
    for line in lines:
        finite = np.isfinite(line.y) & (line.y > 0 if log else True)
        shown = [(float(u), float(v)) for u, v in zip(line.x[finite], line.y[finite], strict=True)]
        chosen = (max(shown, key=lambda point: point[1]) if best else shown[-1]) if shown else None
        curves.append(
            Curve(
                run=line.run,
                label=line.label,
                dashed=line.dashed,
                lines=paths(line.x, line.y),
                raw=paths(line.x, line.raw) if line.raw is not None else [],
                points=[[*at(u, v), round(u, 2), float(f"{v:.4g}")] for u, v in shown],
                marks=len(shown) <= 30,
                best=list(at(*chosen)) if chosen and best else None,
                value=format_value(chosen[1], unit) if chosen else "–",
            )
        )
    x_ticks = [Tick(at(tick, high)[0], f"{tick:g}") for tick in _nice_ticks(0, end, 6, whole=True)]
    scale = ", ".join(filter(None, (unit, "logarithmic" if log else "")))
    return Chart(title, scale, curves, x_ticks, [Tick(at(0, value)[1], text) for value, text in y_ticks])


def format_value(value: float, unit: str) -> str:
    """A value as it stands in a legend."""
    return f"{value:.1f}" if unit == "%" else f"{value:.3g}"


def _linear_range(values: npt.NDArray[np.float64]) -> tuple[float, float, list[tuple[float, str]]]:
    low, high = float(values.min()), float(values.max())
    room = (high - low) * 0.06 or max(abs(high) * 0.05, 1e-6)
    below = low - room if low < 0 or low > room else 0.0
    low, high = below, high + room
    ticks = _nice_ticks(low, high, 5)
    return low, high, [(tick, f"{tick:.6g}") for tick in ticks]


def _log_range(values: npt.NDArray[np.float64]) -> tuple[float, float, list[tuple[float, str]]]:
    low, high = float(values.min()) / 1.1, float(values.max()) * 1.1
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1,), (1, 3), (1, 2, 5), (1, 2, 3, 4, 5, 7)):
        ticks = [m * 10.0**e for e in exponents for m in steps if low <= m * 10.0**e <= high]
        if len(ticks) >= 3:
            break
    return low, high, [(tick, f"{tick:.3g}") for tick in ticks]


def _nice_ticks(low: float, high: float, most: int, whole: bool = False) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten within a range, at most about ``most`` of them."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
    step = max(step, 1.0) if whole else step
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 12) for k in range(first, math.floor(high / step + 1e-9) + 1)]
