"""Pictures of a run as files: photo, labels, prediction, boundaries and gates of single images."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from gscnn_lightning.drawing import Color, SheetRow
from gscnn_lightning.prediction_files import write_png

MAX_WIDTH = 1024
"""Width in pixels that pictures of a run have at most."""


def shrunk(row: SheetRow, width: int = MAX_WIDTH) -> SheetRow:
    """An image with all its maps, no wider than a number of pixels.

    Args:
        row: the image.
        width: in pixels, >= 1.

    Returns:
        Photo, probabilities and gates averaged over areas; labels, prediction and true boundary by nearest neighbour,
        so that they keep their values. Gates narrower than ``width`` keep their own size.
    """

    def fit(values: npt.NDArray[Any], interpolation: int) -> npt.NDArray[Any]:
        if values.shape[1] <= width:
            return values
        size = (width, max(1, round(values.shape[0] * width / values.shape[1])))
        return cv2.resize(values, size, interpolation=interpolation)

    area, nearest = cv2.INTER_AREA, cv2.INTER_NEAREST
    return replace(
        row,
        photo=fit(row.photo, area),
        labels=fit(row.labels.astype(np.uint8), nearest),
        preds=fit(row.preds.astype(np.uint8), nearest),
        boundary=fit((row.boundary != 0).astype(np.uint8), nearest),
        boundary_prob=None if row.boundary_prob is None else fit(row.boundary_prob.astype(np.float32), area),
        gates=tuple(fit(gate.astype(np.float32), area) for gate in row.gates),
    )


def write_pictures(folder: Path, row: SheetRow, class_colors: Sequence[Color]) -> None:
    """Write an image with all its maps.

    - ``photo.jpg``;
    - ``labels.png``, ``prediction.png``: train ids with the class colours as palette, so that they can both be looked
      at and be read back; void is 255, black;
    - ``boundary.png``: boundary probability times 255, and ``boundary_truth.png``, 0 or 255;
    - ``gate_1.png``, ``gate_2.png``, ``gate_3.png``: attention of the gated convolutions times 255.

    Boundary probability and gates only exist for a network with shape stream.

    Args:
        folder: made when needed; files of the same name are replaced.
        row: the image.
        class_colors: one RGB colour (0 to 255) per class.

    Raises:
        DataError: a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(row.photo).save(folder / "photo.jpg", quality=90)
    for name, labels in (("labels", row.labels), ("prediction", row.preds)):
        palette_picture(labels, class_colors).save(folder / f"{name}.png")
    for name, values in grey_maps(row).items():
        write_png(folder / f"{name}.png", values, overwrite=True)


def palette_picture(labels: npt.NDArray[np.integer], class_colors: Sequence[Color]) -> Image.Image:
    """Label map as a picture whose pixels are the train ids and whose palette has the class colours.

    Args:
        labels: (H, W) integer train ids; 255 is void and black.
        class_colors: one RGB colour (0 to 255) per class, 255 classes at most.
    """
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(class_colors)] = np.asarray(class_colors, np.uint8).reshape(-1, 3)
    picture = Image.fromarray(labels.astype(np.uint8))
    picture.putpalette(palette.tobytes())
    return picture


def grey_maps(row: SheetRow) -> dict[str, npt.NDArray[np.uint8]]:
    """Boundaries and gates of an image by the names of their files, (h, w) uint8: 255 stands for 1."""
    maps = {"boundary_truth": row.boundary != 0}
    if row.boundary_prob is not None:
        maps["boundary"] = row.boundary_prob
    maps.update({f"gate_{index}": gate for index, gate in enumerate(row.gates, start=1)})
    # A network that has diverged says NaN; its pictures are black there.
    return {name: np.rint(255 * np.nan_to_num(v.astype(np.float32))).astype(np.uint8) for name, v in maps.items()}
