"""One file of a prediction: a label map in values or colours, or the scores of all classes."""

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gscnn_lightning.data.pictures import look, read_map
from gscnn_lightning.errors import DataError

_ARRAYS = (".npy", ".npz")
_IDS = 1 << 16


@dataclass(frozen=True)
class LabelFile:
    """Pixels of a label map.

    Attributes:
        pixels: (H, W) uint8 or uint16, or (H, W, 3 or 4) uint8 colours in BGR order.
        path: file with a palette, whose colours can be read, too; else None.
        scores: (K, H, W), scores of the classes, of which the pixels are those with the highest: train ids; else None.
    """

    pixels: npt.NDArray[Any]
    path: Path | None = None
    scores: npt.NDArray[Any] | None = None

    @property
    def from_scores(self) -> bool:
        """Whether it comes from scores of the classes."""
        return self.scores is not None

    @property
    def is_color(self) -> bool:
        """Whether it has colours, not values."""
        return self.pixels.ndim == 3

    @property
    def is_grey(self) -> bool:
        """Whether its colours are values that were stored three times."""
        first = self.pixels[..., 0]
        return self.is_color and all(bool((self.pixels[..., other] == first).all()) for other in (1, 2))

    def in_colors(self) -> npt.NDArray[Any] | None:
        """Colours (H, W, 3 or 4) uint8 in BGR order, of a palette, too; None if it has none."""
        if self.is_color:
            return self.pixels
        return None if self.path is None else read_map(self.path)


def is_array(path: Path) -> bool:
    """Whether a file is NumPy's, which may hold the scores of all classes."""
    return path.suffix.lower() in _ARRAYS


def class_scores(path: Path, num_classes: int, size: tuple[int, int] | None = None) -> npt.NDArray[Any] | None:
    """Scores of all classes, probabilities or logits, as a program has stored them.

    Args:
        path: .npy or .npz file with (K, H, W) or (H, W, K) numbers; a batch of one is taken, too.
        num_classes: number of classes K.
        size: height and width to expect, which tells the axes apart where both could be the classes.

    Returns:
        (K, H, W), of the type that it is stored in; None for a label map.

    Raises:
        DataError: the file cannot be read, or has another shape.
    """
    return _as_scores(read_array(path), num_classes, size, path)


def read_label_file(path: Path, num_classes: int, size: tuple[int, int] | None = None) -> LabelFile:
    """Pixels of a label map; of the scores of all classes, the class with the highest, as a train id.

    Args:
        path: PNG, BMP, TIFF, PGM, .npy or .npz file.
        num_classes: number of classes K.
        size: height and width to expect, as in `class_scores`.

    Raises:
        DataError: the file cannot be read, or holds something else.
    """
    if not is_array(path):
        header = look(path)
        if header.mode == "1":
            raise DataError(f"{path} has 1 bit per pixel, whose white is the value 255: save it with 8 bits")
        pixels = read_map(path, indices=True)
        return LabelFile(_values(pixels, path), path if header.mode == "P" else None)
    array = read_array(path)
    scores = _as_scores(array, num_classes, size, path)
    if scores is not None:
        return LabelFile(scores.argmax(0).astype(np.uint8 if num_classes <= 256 else np.uint16), scores=scores)
    if array.ndim == 3:
        array = array[..., ::-1]  # arrays have red first
    return LabelFile(_values(array, path))


def read_array(path: Path) -> npt.NDArray[Any]:
    """The array of a .npy file, or of a .npz file with one; a batch of one, or one channel, is taken out of it.

    Raises:
        DataError: the file cannot be read, or has several arrays.
    """
    try:
        content: Any = np.load(path, allow_pickle=False)
        if path.suffix.lower() == ".npz":
            with content:
                if len(content.files) != 1:
                    raise DataError(
                        f"{path} holds {len(content.files)} arrays ({', '.join(content.files[:5])}): store one, the "
                        "label map or the scores of the classes"
                    )
                content = content[content.files[0]]
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{path} is no readable array ({reason}): store it again, without objects in it") from error
    return _squeezed(content)


def _squeezed(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    while array.ndim > 2 and array.shape[0] == 1:
        array = array[0]
    return array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array


def _class_axis(array: npt.NDArray[Any], num_classes: int, size: tuple[int, int] | None) -> int | None:
    """Axis of the classes; None of a label map. -1 if it cannot be told."""
    if array.ndim != 3 or array.dtype.kind not in "fiu":
        return None
    shape = array.shape
    is_picture = array.dtype == np.uint8 and shape[2] in (3, 4)
    if is_picture and num_classes not in shape:
        return None
    axes = [axis for axis in (0, 2) if shape[axis] == num_classes]
    if size is not None and len(axes) == 2:
        axes = [axis for axis in axes if (shape[:axis] + shape[axis + 1 :]) == size] or axes
    if is_picture and num_classes in (3, 4):
        return -1
    return axes[0] if len(axes) == 1 else -1


def _as_scores(
    array: npt.NDArray[Any], num_classes: int, size: tuple[int, int] | None, path: Path
) -> npt.NDArray[Any] | None:
    axis = _class_axis(array, num_classes, size)
    if axis is None:
        return None
    if axis < 0:
        raise DataError(
            f"{path} has shape {array.shape} and type {array.dtype}, with {num_classes} classes: label maps are (H, W) "
            f"whole numbers, scores of the classes ({num_classes}, H, W) or (H, W, {num_classes})"
        )
    if array.size and array.dtype.kind == "f" and np.isnan(array.max()):
        raise DataError(f"{path} has scores that are not a number (NaN): predict it again")
    return np.moveaxis(array, axis, 0)


def _values(pixels: npt.NDArray[Any], path: Path) -> npt.NDArray[Any]:
    """Pixels as they are translated: bytes, or 16 bits."""
    if pixels.dtype == np.bool_:
        pixels = pixels.view(np.uint8)
    is_color = pixels.ndim == 3 and pixels.shape[2] in (3, 4) and pixels.dtype == np.uint8
    if is_color or (pixels.ndim == 2 and pixels.dtype in (np.uint8, np.uint16)):
        return np.ascontiguousarray(pixels)
    if pixels.ndim != 2 or pixels.dtype.kind not in "iu":
        hint = ": store whole numbers, such as .astype(numpy.uint8)" if pixels.dtype.kind == "f" else ""
        raise DataError(
            f"{path} has shape {pixels.shape} and type {pixels.dtype}: label maps are (H, W) whole numbers or 8-bit "
            f"colours{hint}"
        )
    low, high = (int(pixels.min()), int(pixels.max())) if pixels.size else (0, 0)
    if low < 0 or high >= _IDS:
        raise DataError(f"{path} has values from {low} to {high}: ids are whole numbers from 0 to 65535")
    return pixels.astype(np.uint16)
