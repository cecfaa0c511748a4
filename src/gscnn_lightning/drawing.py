"""Pictures of labels, boundaries, gates and training runs: plain functions on arrays, independent of Lightning.

Pictures are (H, W, 3) uint8 RGB arrays throughout.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image, ImageDraw, ImageFont

from gscnn_lightning.curves import Series, read_metrics, running_mean
from gscnn_lightning.errors import DataError

Picture = npt.NDArray[np.uint8]
Color = tuple[int, int, int]

_PAPER, _INK, _FAINT = (255, 255, 255), (30, 30, 30), (110, 110, 110)
_MARGIN = 12
_GAP = 6


def colorize_labels(labels: npt.NDArray[np.integer], class_colors: Sequence[Color]) -> Picture:
    """Label map in class colours; whatever is no class, such as void, is black.

    Args:
        labels: (H, W) integer train ids.
        class_colors: one RGB colour (0 to 255) per class.

    Returns:
        (H, W, 3) uint8.

    Example:
        >>> import numpy as np
        >>> colorize_labels(np.array([[0, 255]]), [(128, 64, 128)]).tolist()
        [[[128, 64, 128], [0, 0, 0]]]
    """
    table = np.zeros((len(class_colors) + 1, 3), np.uint8)
    table[:-1] = np.asarray(class_colors, np.uint8).reshape(-1, 3)
    is_class = (labels >= 0) & (labels < len(class_colors))
    return table[np.where(is_class, labels, len(class_colors))]


def overlay_labels(photo: Picture, labels: npt.NDArray[np.integer], class_colors: Sequence[Color]) -> Picture:
    """Photo tinted with class colours, half and half; the plain photo where there is no class.

    Args:
        photo: (H, W, 3) uint8.
        labels: (H, W) integer train ids.
        class_colors: one RGB colour (0 to 255) per class.

    Returns:
        (H, W, 3) uint8.
    """
    is_class = (labels >= 0) & (labels < len(class_colors))
    tinted = cv2.addWeighted(photo, 0.5, colorize_labels(labels, class_colors), 0.5, 0)
    return np.where(is_class[..., None], tinted, photo)


def overlay_boundaries(photo: Picture, boundary: npt.NDArray[np.generic], color: Color = (255, 235, 60)) -> Picture:
    """Photo with boundary pixels painted over it.

    Args:
        photo: (H, W, 3) uint8.
        boundary: (H, W) bool, or any type of which non-zero means boundary.
        color: RGB colour (0 to 255) of the boundary.

    Returns:
        (H, W, 3) uint8.
    """
    return np.where((boundary != 0)[..., None], np.asarray(color, np.uint8), photo)


def heat_map(
    values: npt.NDArray[np.generic], low: float = 0.0, high: float = 1.0, colormap: str = "inferno"
) -> Picture:
    """Map of numbers in a perceptually uniform colour map, values outside the range clipped to its ends.

    Args:
        values: (H, W) numbers, such as boundary probabilities or gate values.
        low: value drawn in the darkest colour.
        high: value drawn in the brightest colour, > ``low``.
        colormap: name of a matplotlib colour map.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ValueError: if ``high`` is not above ``low``.
    """
    if high <= low:
        raise ValueError(f"the range is {low} to {high}; high must be above low")
    share = (np.asarray(values, np.float32) - low) / (high - low)
    return mpl.colormaps[colormap](np.clip(share, 0, 1), bytes=True)[..., :3]


@dataclass(frozen=True)
class SheetRow:
    """One image of a contact sheet with all that is known about it.

    Attributes:
        name: caption.
        photo: (H, W, 3) uint8 RGB.
        labels: (H, W) integer, true train ids.
        preds: (H, W) integer, predicted train ids.
        boundary: (H, W), true boundary in {0, 1}.
        boundary_prob: (H, W) float in [0, 1]; None for a network without shape stream.
        gates: (h, w) float in [0, 1] each, of any size; empty for a network without shape stream.
    """

    name: str
    photo: Picture
    labels: npt.NDArray[np.integer]
    preds: npt.NDArray[np.integer]
    boundary: npt.NDArray[np.generic]
    boundary_prob: npt.NDArray[np.floating] | None = None
    gates: tuple[npt.NDArray[np.floating], ...] = ()


def contact_sheet(
    rows: Sequence[SheetRow],
    class_names: Sequence[str],
    class_colors: Sequence[Color],
    cell_width: int = 320,
) -> Picture:
    """One picture of several images: photo, labels, prediction, boundaries and gates side by side, and a colour legend.

    Gates rarely use all of [0, 1]: each is stretched to its own range, which is printed below it.

    Args:
        rows: the images; all with the same number of gates, and all or none with ``boundary_prob``.
        class_names: names for the legend.
        class_colors: one RGB colour (0 to 255) per class.
        cell_width: width of each small picture in pixels.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ValueError: if there are no rows, or they do not agree in their columns.
    """
    cells = [_row_cells(row, class_colors) for row in rows]
    titles = list(cells[0]) if cells else []
    if not cells or any(list(row) != titles for row in cells):
        raise ValueError(f"{len(rows)} rows with columns {[list(row) for row in cells]}; give rows of equal columns")
    small = [[(_fit_width(picture, cell_width), caption) for picture, caption in row.values()] for row in cells]
    width = 2 * _MARGIN + len(titles) * (cell_width + _GAP) - _GAP
    strips = [_caption_strip(titles, cell_width, width, size=17, color=_INK)]
    for row in small:
        strips.append(_picture_strip([picture for picture, _ in row], width))
        strips.append(_caption_strip([caption for _, caption in row], cell_width, width, size=12, color=_FAINT))
    strips.append(_legend(class_names, class_colors, width))
    return np.concatenate(strips)


def comparison_sheet(
    titles: Sequence[str],
    networks: Sequence[Sequence[SheetRow]],
    class_names: Sequence[str],
    class_colors: Sequence[Color],
    cell_width: int = 256,
) -> Picture:
    """One picture of what several networks make of the same images: their predictions, then their boundaries.

    Args:
        titles: a name per network.
        networks: the same images in the same order for each; networks without boundaries have no column of theirs.
        class_names: names for the legend.
        class_colors: one RGB colour (0 to 255) per class.
        cell_width: width of each small picture in pixels.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ValueError: if there is no network or no image.
    """
    if not networks or not networks[0]:
        raise ValueError(f"{len(networks)} networks without images; give at least one of both")
    bounded = [title for title, rows in zip(titles, networks, strict=True) if rows[0].boundary_prob is not None]
    heads = ["photo", "labels", *titles, "true boundary", *(f"boundary, {title}" for title in bounded)]
    width = 2 * _MARGIN + len(heads) * (cell_width + _GAP) - _GAP
    strips = [_caption_strip(heads, cell_width, width, size=15, color=_INK)]
    for rows in zip(*networks, strict=True):
        image = rows[0]
        cells = [image.photo, colorize_labels(image.labels, class_colors)]
        cells += [colorize_labels(row.preds, class_colors) for row in rows]
        cells.append(heat_map(image.boundary != 0))
        cells += [heat_map(row.boundary_prob) for row in rows if row.boundary_prob is not None]
        strips.append(_picture_strip([_fit_width(cell, cell_width) for cell in cells], width))
        strips.append(_caption_strip([image.name], cell_width, width, size=12, color=_FAINT))
    strips.append(_legend(class_names, class_colors, width))
    return np.concatenate(strips)


@dataclass(frozen=True)
class TrainingSample:
    """One augmented sample as the network gets it.

    Attributes:
        name: caption.
        photo: (H, W, 3) uint8 RGB.
        labels: (H, W) integer train ids.
        boundary: (H, W), boundary in {0, 1}.
    """

    name: str
    photo: Picture
    labels: npt.NDArray[np.integer]
    boundary: npt.NDArray[np.generic]


def sample_sheet(
    samples: Sequence[TrainingSample],
    class_names: Sequence[str],
    class_colors: Sequence[Color],
    cell_width: int = 320,
    per_row: int = 2,
) -> Picture:
    """One picture of training samples: photo, photo with boundaries, labels side by side, and a colour legend.

    Args:
        samples: the samples.
        class_names: names for the legend.
        class_colors: one RGB colour (0 to 255) per class.
        cell_width: width of each small picture in pixels.
        per_row: samples side by side.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ValueError: if there are no samples.
    """
    if not samples:
        raise ValueError("no samples: give at least one")
    per_row = min(per_row, len(samples))
    titles = ["photo", "with boundaries", "labels"] * per_row
    width = 2 * _MARGIN + len(titles) * (cell_width + _GAP) - _GAP
    strips = [_caption_strip(titles, cell_width, width, size=17, color=_INK)]
    for start in range(0, len(samples), per_row):
        row = samples[start : start + per_row]
        pictures = [
            _fit_width(p, cell_width) for sample in row for p in _sample_cells(sample, cell_width, class_colors)
        ]
        captions = [caption for sample in row for caption in (sample.name, "", _void_share(sample, len(class_names)))]
        strips.append(_picture_strip(pictures, width))
        strips.append(_caption_strip(captions, cell_width, width, size=12, color=_FAINT))
    strips.append(_legend(class_names, class_colors, width))
    return np.concatenate(strips)


def _sample_cells(sample: TrainingSample, cell_width: int, class_colors: Sequence[Color]) -> tuple[Picture, ...]:
    # Shrinking the picture first and the boundary with it would wash the lines out.
    small = _fit_width(sample.photo, cell_width)
    reached = cv2.resize((sample.boundary != 0).astype(np.float32), small.shape[1::-1], interpolation=cv2.INTER_AREA)
    return small, overlay_boundaries(small, reached > 0.3), colorize_labels(sample.labels, class_colors)


def _void_share(sample: TrainingSample, num_classes: int) -> str:
    share = float(np.mean(sample.labels >= num_classes))
    return f"{share:.1%} void" if share else ""


def _row_cells(row: SheetRow, class_colors: Sequence[Color]) -> dict[str, tuple[Picture, str]]:
    """Picture and caption per column title."""
    cells = {
        "photo": (row.photo, row.name),
        "labels": (colorize_labels(row.labels, class_colors), ""),
        "prediction": (colorize_labels(row.preds, class_colors), ""),
        "true boundary": (heat_map(row.boundary != 0), ""),
    }
    if row.boundary_prob is not None:
        cells["predicted boundary"] = (heat_map(row.boundary_prob), "")
    for index, gate in enumerate(row.gates, start=1):
        low, high = float(gate.min()), float(gate.max())
        # Nearly constant gates stay flat: without a least range their rounding noise would look like structure.
        stretched = heat_map(gate, low, max(high, low + 0.05), colormap="viridis")
        shape = (row.photo.shape[1], row.photo.shape[0])
        cells[f"gate {index}"] = (
            cv2.resize(stretched, shape, interpolation=cv2.INTER_LINEAR).astype(np.uint8),
            f"{low:.2f} to {high:.2f}",
        )
    return cells


def _fit_width(picture: Picture, width: int) -> Picture:
    height = max(1, round(picture.shape[0] * width / picture.shape[1]))
    # Area averaging keeps thin boundaries visible, if dimmer, where nearest neighbour would break them up.
    interpolation = cv2.INTER_AREA if width < picture.shape[1] else cv2.INTER_CUBIC
    return cv2.resize(picture, (width, height), interpolation=interpolation).astype(np.uint8)


def _blank(height: int, width: int) -> Picture:
    return np.full((height, width, 3), _PAPER, np.uint8)


def _picture_strip(pictures: Sequence[Picture], width: int) -> Picture:
    strip = _blank(max(picture.shape[0] for picture in pictures), width)
    for index, picture in enumerate(pictures):
        left = _MARGIN + index * (picture.shape[1] + _GAP)
        strip[: picture.shape[0], left : left + picture.shape[1]] = picture
    return strip


def _caption_strip(captions: Sequence[str], cell_width: int, width: int, size: int, color: Color) -> Picture:
    strip = Image.fromarray(_blank(size * 2, width))
    draw, font = ImageDraw.Draw(strip), _font(size)
    for index, caption in enumerate(captions):
        left = _MARGIN + index * (cell_width + _GAP)
        draw.text((left, size // 3), _shorten(caption, font, cell_width), fill=color, font=font)
    return np.asarray(strip)


def _shorten(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """Text cut from the left, where paths differ least, until it fits."""
    if font.getlength(text) <= width:
        return text
    start = next((i for i in range(len(text)) if font.getlength("…" + text[i:]) <= width), len(text))
    return "…" + text[start:]


def _legend(class_names: Sequence[str], class_colors: Sequence[Color], width: int) -> Picture:
    """Colour swatches with class names in as many equal columns as fit, void last."""
    entries = [*zip(class_names, class_colors, strict=True), ("void", (0, 0, 0))]
    size, swatch = 15, 22
    font = _font(size)
    column = swatch + 8 + math.ceil(max(font.getlength(name) for name, _ in entries)) + 18
    per_line = max(1, (width - 2 * _MARGIN) // column)
    line = size + 12
    legend = Image.fromarray(_blank(math.ceil(len(entries) / per_line) * line + _MARGIN, width))
    draw = ImageDraw.Draw(legend)
    for index, (name, color) in enumerate(entries):
        left, top = _MARGIN + index % per_line * column, 4 + index // per_line * line
        draw.rectangle((left, top, left + swatch, top + size), fill=color, outline=_FAINT)
        draw.text((left + swatch + 8, top - 2), name, fill=_INK, font=font)
    return np.asarray(legend)


def _font(size: int) -> ImageFont.FreeTypeFont:
    """The font that comes with matplotlib, so that pictures are the same on every machine."""
    return ImageFont.truetype(Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)


_LOSS_NAMES = {
    "train/loss": "total",
    "train/loss_boundary": "boundary",
    "train/loss_segmentation": "segmentation",
    "train/loss_regularizer": "regularizer",
    "train/loss_attention": "attention",
    "val/loss_segmentation": "segmentation, validation",
}


def plot_learning_curves(metrics_csv: Path, out: Path) -> None:
    """Draw the curves of a run: losses, validation scores and learning rates over training steps.

    Args:
        metrics_csv: file written by Lightning's ``CSVLogger``; reads the columns ``step``, ``epoch``, ``train/loss*``,
            ``val/loss_segmentation``, ``val/miou``, ``val/boundary_f1_*`` (in [0, 1]) and ``train/lr``, as far as they
            are there.
        out: picture to write; its suffix decides the format.

    Raises:
        DataError: if the file cannot be read or has none of these columns.
    """
    series, steps_per_epoch = read_metrics(metrics_csv)
    losses = {label: series[key] for key, label in _LOSS_NAMES.items() if key in series}
    scores = {_score_label(key): series[key] for key in sorted(series, key=_score_order) if _is_score(key)}
    rates = {"learning rate": series["train/lr"]} if "train/lr" in series else {}
    panels = [
        (draw, curves)
        for draw, curves in ((_draw_losses, losses), (_draw_scores, scores), (_draw_rates, rates))
        if curves
    ]
    if not panels:
        raise DataError(f"{metrics_csv} has no losses, validation scores or learning rates: nothing to draw")
    figure = Figure(figsize=(5.2 * len(panels), 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (draw, curves) in zip(
        figure.subplots(1, len(panels), sharex=True, squeeze=False)[0], panels, strict=True
    ):
        draw(axes, curves)
        _finish_axes(axes, steps_per_epoch)
    figure.savefig(out, dpi=130)


def _is_score(key: str) -> bool:
    return key == "val/miou" or key.startswith("val/boundary_f1")


def _score_order(key: str) -> tuple[bool, float, str]:
    """The mean IoU first, then boundary F by tolerance."""
    digits = "".join(char for char in key.rpartition("_")[2] if char.isdigit() or char == ".")
    return key != "val/miou", float(digits) if digits else 0.0, key


def _score_label(key: str) -> str:
    if key == "val/miou":
        return "mean IoU"
    return "boundary F, " + key.removeprefix("val/boundary_f1_").replace("px", " px")


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
