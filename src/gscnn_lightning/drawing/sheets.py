"""Sheets: many small pictures as one, with captions and a legend."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from gscnn_lightning.drawing.maps import Color, Picture, colorize_labels, gate_map, heat_map, overlay_boundaries
from gscnn_lightning.output import Prediction

_PAPER, _INK, _FAINT = (255, 255, 255), (30, 30, 30), (110, 110, 110)
_MARGIN = 12
_GAP = 6


def contact_sheet(
    rows: Sequence[Prediction],
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
    networks: Sequence[Sequence[Prediction]],
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
    cells = [_compared_cells(rows, titles, class_colors) for rows in zip(*networks, strict=True)]
    heads = list(cells[0])
    width = 2 * _MARGIN + len(heads) * (cell_width + _GAP) - _GAP
    strips = [_caption_strip(heads, cell_width, width, size=15, color=_INK)]
    for image, row in zip(networks[0], cells, strict=True):
        strips.append(_picture_strip([_fit_width(cell, cell_width) for cell in row.values()], width))
        strips.append(_caption_strip([image.name], cell_width, width, size=12, color=_FAINT))
    strips.append(_legend(class_names, class_colors, width))
    return np.concatenate(strips)


def _compared_cells(
    rows: Sequence[Prediction], titles: Sequence[str], class_colors: Sequence[Color]
) -> dict[str, Picture]:
    """Pictures by column title of one image, predicted by several networks."""
    image = rows[0]
    cells = {"photo": image.photo}
    if image.labels is not None:
        cells["labels"] = colorize_labels(image.labels, class_colors)
    cells |= {title: colorize_labels(row.preds, class_colors) for title, row in zip(titles, rows, strict=True)}
    if image.boundary is not None:
        cells["true boundary"] = heat_map(np.not_equal(image.boundary, 0))
    probs = {f"boundary, {t}": row.boundary_prob for t, row in zip(titles, rows, strict=True)}
    return cells | {title: heat_map(prob) for title, prob in probs.items() if prob is not None}


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
    groups = [
        (
            [_fit_width(picture, cell_width) for picture in _sample_cells(sample, cell_width, class_colors)],
            (sample.name, "", _void_share(sample, len(class_names))),
        )
        for sample in samples
    ]
    titles = ("photo", "with boundaries", "labels")
    return _grouped_sheet(titles, groups, class_names, class_colors, cell_width, per_row)


@dataclass(frozen=True)
class SuspectCrop:
    """Part of a frame whose labels are in doubt.

    Attributes:
        photo: (H, W, 3) uint8 RGB.
        labels: (H, W) integer train ids.
        preds: (H, W) integer train ids.
        region: (H, W) bool, the pixels in doubt.
        captions: what stands below photo, labels and prediction.
    """

    photo: Picture
    labels: npt.NDArray[np.integer]
    preds: npt.NDArray[np.integer]
    region: npt.NDArray[np.bool_]
    captions: tuple[str, str, str]


def suspect_sheet(
    crops: Sequence[SuspectCrop],
    class_names: Sequence[str],
    class_colors: Sequence[Color],
    cell_width: int = 320,
    per_row: int = 2,
) -> Picture:
    """One picture of labels in doubt: photo, labels and prediction with the region outlined, and a colour legend.

    Args:
        crops: the parts of frames, of any sizes.
        class_names: names for the legend.
        class_colors: one RGB colour (0 to 255) per class.
        cell_width: width of each small picture in pixels; pictures are at most as high.
        per_row: suspects side by side.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ValueError: if there are no crops.
    """
    if not crops:
        raise ValueError("no crops: give at least one")
    groups = [(_suspect_cells(crop, cell_width, class_colors), crop.captions) for crop in crops]
    titles = ("photo", "labels", "prediction")
    return _grouped_sheet(titles, groups, class_names, class_colors, cell_width, per_row)


def _grouped_sheet(
    titles: Sequence[str],
    groups: Sequence[tuple[Sequence[Picture], Sequence[str]]],
    class_names: Sequence[str],
    class_colors: Sequence[Color],
    cell_width: int,
    per_row: int,
) -> Picture:
    """Groups of pictures with a caption each, some groups side by side, below the titles of their columns."""
    per_row = min(per_row, len(groups))
    width = 2 * _MARGIN + per_row * len(titles) * (cell_width + _GAP) - _GAP
    strips = [_caption_strip([*titles] * per_row, cell_width, width, size=17, color=_INK)]
    for start in range(0, len(groups), per_row):
        row = groups[start : start + per_row]
        strips.append(_picture_strip([picture for pictures, _ in row for picture in pictures], width))
        captions = [caption for _, captions in row for caption in captions]
        strips.append(_caption_strip(captions, cell_width, width, size=12, color=_FAINT))
    strips.append(_legend(class_names, class_colors, width))
    return np.concatenate(strips)


def _suspect_cells(crop: SuspectCrop, cell_width: int, class_colors: Sequence[Color]) -> list[Picture]:
    """Photo, labels and prediction of one size, with the outline of the region in them."""
    height, width = crop.region.shape
    scale = min(cell_width / width, cell_width / height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))

    def fit(picture: npt.NDArray[np.generic], interpolation: int) -> npt.NDArray[np.uint8]:
        return cv2.resize(picture.astype(np.uint8), size, interpolation=interpolation).astype(np.uint8, copy=False)

    smooth = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    pictures = [
        fit(crop.photo, smooth),
        *(fit(colorize_labels(labels, class_colors), cv2.INTER_NEAREST) for labels in (crop.labels, crop.preds)),
    ]
    outlines, _ = cv2.findContours(fit(crop.region, cv2.INTER_NEAREST), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cells = []
    for picture in pictures:
        drawn = np.ascontiguousarray(picture)
        # Light on dark, to be seen on any class.
        cv2.drawContours(drawn, outlines, -1, (0, 0, 0), 3)
        cv2.drawContours(drawn, outlines, -1, (255, 255, 255), 1)
        cell = _blank(size[1], cell_width)
        cell[:, : size[0]] = drawn
        cells.append(cell)
    return cells


def _sample_cells(sample: TrainingSample, cell_width: int, class_colors: Sequence[Color]) -> tuple[Picture, ...]:
    # Shrinking the picture first and the boundary with it would wash the lines out.
    small = _fit_width(sample.photo, cell_width)
    reached = cv2.resize((sample.boundary != 0).astype(np.float32), small.shape[1::-1], interpolation=cv2.INTER_AREA)
    return small, overlay_boundaries(small, reached > 0.3), colorize_labels(sample.labels, class_colors)


def _void_share(sample: TrainingSample, num_classes: int) -> str:
    share = float(np.mean(sample.labels >= num_classes))
    return f"{share:.1%} void" if share else ""


def _row_cells(row: Prediction, class_colors: Sequence[Color]) -> dict[str, tuple[Picture, str]]:
    """Picture and caption per column title."""
    cells = {"photo": (row.photo, row.name)}
    if row.labels is not None:
        cells["labels"] = (colorize_labels(row.labels, class_colors), "")
    cells["prediction"] = (colorize_labels(row.preds, class_colors), "")
    if row.boundary is not None:
        cells["true boundary"] = (heat_map(np.not_equal(row.boundary, 0)), "")
    if row.boundary_prob is not None:
        cells["predicted boundary"] = (heat_map(row.boundary_prob), "")
    for index, gate in enumerate(row.gates, start=1):
        picture, (low, high) = gate_map(gate, row.photo.shape[:2])
        cells[f"gate {index}"] = picture, f"{low:.2f} to {high:.2f}"
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
    """Text in one line, cut from the left, where paths differ least, until it fits."""
    text = " ".join(text.splitlines())
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
    return ImageFont.truetype(str(Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)
