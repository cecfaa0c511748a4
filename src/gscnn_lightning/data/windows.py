"""Windows of pictures that are too large to be decoded for the sake of a crop: out of the tiles of TIFF files."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]

_LOSSLESS = (1, 5, 8, 32773, 32946, 34925, 50000)
"""Compressions that every decoder undoes to the same pixels: none, LZW, deflate, PackBits, deflate, LZMA, Zstandard."""

_BLACK, _RGB = 1, 2


class FrameWindows(Protocol):
    """A frame of which parts can be read.

    Attributes:
        shape: height and width.
    """

    shape: tuple[int, int]

    def image(self, top: int, left: int, bottom: int, right: int) -> Bytes:
        """RGB pixels (bottom - top, right - left, 3) of a part that lies inside."""

    def labels(self, top: int, left: int, bottom: int, right: int) -> Bytes:
        """Train ids (bottom - top, right - left) of a part that lies inside."""


class TiffWindows:
    """A TIFF file of which parts can be read; needs tifffile, and imagecodecs for LZW and Zstandard.

    Args:
        path: the file.
        page: its first page.
    """

    def __init__(self, path: Path, page: Any) -> None:  # noqa: ANN401
        self.path = path
        self.shape = (int(page.imagelength), int(page.imagewidth))
        self.samples = int(page.samplesperpixel)
        self._page = page
        self._step = (
            (int(page.tilelength), int(page.tilewidth))
            if page.is_tiled
            else (min(int(page.rowsperstrip), self.shape[0]), self.shape[1])
        )

    def read(self, top: int, left: int, bottom: int, right: int) -> npt.NDArray[Any]:
        """Pixels (bottom - top, right - left, samples) as stored, of a part that lies inside."""
        result = np.empty((bottom - top, right - left, self.samples), self._page.dtype)
        (height, width), columns = self._step, -(-self.shape[1] // self._step[1])
        rows, places = range(top // height, -(-bottom // height)), range(left // width, -(-right // width))
        with self.path.open("rb") as file:
            for row, column in itertools.product(rows, places):
                tile = self._tile(file, row * columns + column)
                first, start = row * height, column * width
                inside = tile[max(top - first, 0) : bottom - first, max(left - start, 0) : right - start]
                y, x = max(first - top, 0), max(start - left, 0)
                result[y : y + inside.shape[0], x : x + inside.shape[1]] = inside
        return result

    def _tile(self, file: Any, index: int) -> npt.NDArray[Any]:  # noqa: ANN401
        file.seek(self._page.dataoffsets[index])
        tile = self._page.decode(file.read(self._page.databytecounts[index]), index)[0]
        return tile[0]


def open_tiff(path: Path, colors: bool = False, ids: bool = False) -> TiffWindows | None:
    """A TIFF file to read parts of; None if it cannot be, or if the parts would not be those of the decoded picture.

    Parts are the same where pixels of 8 bits, upright, grey or RGB without transparency, are compressed without loss.

    Args:
        path: the file.
        colors: only pictures of three channels will do.
        ids: only those of one channel will do, which may have 16 bits.
    """
    if path.suffix.lower() not in (".tif", ".tiff"):
        return None
    try:
        import tifffile
    except ImportError:
        return None
    try:
        with tifffile.TiffFile(path) as file:
            page: Any = file.pages[0]
            page.dataoffsets, page.databytecounts  # noqa: B018 - read while the file is open
        orientation = page.tags.get("Orientation")
        fits = (
            page.compression in _LOSSLESS
            and page.planarconfig == 1
            and (page.photometric, page.samplesperpixel) in ((_BLACK, 1), (_RGB, 3))
            and page.imagedepth == 1
            and page.dtype in ((np.uint8, np.uint16) if ids else (np.uint8,))
            and page.bitspersample in (8, 16)
            and (orientation is None or orientation.value == 1)
            and all(page.databytecounts)
            and not (colors and page.samplesperpixel != 3)
            and not (ids and page.samplesperpixel != 1)
        )
        if not fits:
            return None
        windows = TiffWindows(path, page)
        windows.read(0, 0, 1, 1)  # a decoder may be missing
    except Exception:  # damaged in whatever way, which is said when it is decoded as a whole
        return None
    return windows


class FileWindows:
    """An image and its label map, of which parts can be read.

    Args:
        image: the image.
        labels: the label map; None where it has to be decoded as a whole.
        whole: decodes it.
        translate: train ids of stored values, or an error.
    """

    def __init__(
        self,
        image: TiffWindows,
        labels: TiffWindows | None,
        whole: Callable[[], Bytes],
        translate: Callable[[npt.NDArray[Any]], Bytes],
    ) -> None:
        self.shape = image.shape
        self._image, self._labels, self._whole, self._translate = image, labels, whole, translate
        self._decoded: Bytes | None = None

    def image(self, top: int, left: int, bottom: int, right: int) -> Bytes:
        """RGB pixels of a part that lies inside."""
        pixels = self._image.read(top, left, bottom, right)
        return pixels if pixels.shape[2] == 3 else np.repeat(pixels, 3, axis=2)

    def labels(self, top: int, left: int, bottom: int, right: int) -> Bytes:
        """Train ids of a part that lies inside.

        Raises:
            DataError: there is a value that the data set does not define.
        """
        if self._labels is not None:
            raw = self._labels.read(top, left, bottom, right)
            # Colours in the order of OpenCV, as of maps that are decoded as a whole.
            return self._translate(np.ascontiguousarray(raw[..., 0] if raw.shape[2] == 1 else raw[..., ::-1]))
        if self._decoded is None:
            self._decoded = self._whole()
        return self._decoded[top:bottom, left:right]
