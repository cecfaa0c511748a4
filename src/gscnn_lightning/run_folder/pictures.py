"""Pictures of a run as files: photo, labels, prediction, boundaries and gates of single images."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from gscnn_lightning.drawing.files import write_picture
from gscnn_lightning.drawing.maps import Color
from gscnn_lightning.output import Prediction

MAX_WIDTH = 1024
"""Width in pixels that pictures of a run have at most."""


def shrunk(row: Prediction, width: int = MAX_WIDTH) -> Prediction:
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
        labels=None if row.labels is None else fit(row.labels.astype(np.uint8), nearest),
        preds=fit(row.preds.astype(np.uint8), nearest),
        boundary=None if row.boundary is None else fit((row.boundary != 0).astype(np.uint8), nearest),
        boundary_prob=None if row.boundary_prob is None else fit(row.boundary_prob.astype(np.float32), area),
        gates=tuple(fit(gate.astype(np.float32), area) for gate in row.gates),
    )


def write_pictures(folder: Path, row: Prediction, class_colors: Sequence[Color]) -> None:
    """Write an image with all its maps.

    - ``photo.jpg``;
    - ``labels.png``, ``prediction.png``: train ids with the class colours as palette, so that they can both be looked
      at and be read back; void is 255, black;
    - ``boundary.png``: boundary probability times 255, and ``boundary_truth.png``, 0 or 255;
    - ``gate_1.png``, ``gate_2.png``, ``gate_3.png``: attention of the gated convolutions times 255.

    What is not known of the image, such as the boundary probability of a network without shape stream, has no file.

    Args:
        folder: made when needed; files of the same name are replaced.
        row: the image.
        class_colors: one RGB colour (0 to 255) per class.

    Raises:
        DataError: a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(row.photo).save(layer_file(folder, "photo"), quality=90)
    for name, labels in (("labels", row.labels), ("prediction", row.preds)):
        if labels is not None:
            palette_picture(labels, class_colors).save(layer_file(folder, name))
    for name, values in grey_maps(row).items():
        write_picture(layer_file(folder, name), values, overwrite=True)


def layer_file(folder: Path, layer: str) -> Path:
    """File of a photo or map in the folder of an image.

    Args:
        folder: of the image.
        layer: "photo", "labels", "prediction", "boundary", "boundary_truth", "gate_1", "gate_2" or "gate_3".
    """
    return folder / f"{layer}.{'jpg' if layer == 'photo' else 'png'}"


def read_layer(folder: Path, layer: str) -> npt.NDArray[np.uint8] | None:
    """A photo (H, W, 3) in RGB or a grey map (H, W), uint8; None if it is missing or damaged.

    Args:
        folder: of the image.
        layer: as for `layer_file`, but no label map.
    """
    path = layer_file(folder, layer)
    if not path.is_file():
        return None
    data = np.fromfile(path, np.uint8)
    kind = cv2.IMREAD_COLOR_RGB if layer == "photo" else cv2.IMREAD_GRAYSCALE
    try:
        picture = cv2.imdecode(data, kind) if data.size else None
    except cv2.error:  # more pixels by its header than any picture of a run
        return None
    return None if picture is None else picture.astype(np.uint8, copy=False)


def read_labels(folder: Path, layer: str) -> tuple[npt.NDArray[np.uint8], list[int]] | None:
    """Train ids (H, W) and the palette they are shown in; None if the file is missing or damaged.

    Args:
        folder: of the image.
        layer: "labels" or "prediction".
    """
    try:
        with Image.open(layer_file(folder, layer)) as image:
            palette = image.getpalette()
            return (np.array(image), palette) if image.mode == "P" and palette else None
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError):
        return None


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


def grey_maps(row: Prediction) -> dict[str, npt.NDArray[np.uint8]]:
    """Boundaries and gates of an image by the names of their files, (h, w) uint8: 255 stands for 1."""
    maps: dict[str, npt.NDArray[Any]] = {}
    if row.boundary is not None:
        maps["boundary_truth"] = row.boundary != 0
    if row.boundary_prob is not None:
        maps["boundary"] = row.boundary_prob
    maps.update({f"gate_{index}": gate for index, gate in enumerate(row.gates, start=1)})
    # A network that has diverged says NaN; its pictures are black there.
    return {name: np.rint(255 * np.nan_to_num(v.astype(np.float32))).astype(np.uint8) for name, v in maps.items()}


def folder_name(number: int, name: str, digits: int = 3) -> str:
    """Name of an image's folder: its number and the last part of its name, safe on every file system.

    Example:
        >>> folder_name(7, "frankfurt/frankfurt_000001 left")
        '007_frankfurt_000001_left'
    """
    return f"{number:0{digits}}_{re.sub(r'[^A-Za-z0-9._-]+', '_', name.rpartition('/')[2])}"


@dataclass(frozen=True)
class PictureFolder:
    """The pictures of one image.

    Attributes:
        path: folder with photo.jpg, labels.png, prediction.png, ...
        number: place in the validation set, or rank among the worst.
        name: of the sample, made safe for file names.
    """

    path: Path
    number: int
    name: str


def picture_folders(path: Path) -> list[PictureFolder]:
    """Folders of single images below a folder of pictures, by number; empty if it is not there."""
    found = []
    for folder in path.glob("*_*"):
        number, _, name = folder.name.partition("_")
        if folder.is_dir() and number.isdigit():
            found.append(PictureFolder(folder, int(number), name))
    return sorted(found, key=lambda item: (item.number, item.name))
