"""The one reader of pictures, for data sets and for prediction, and that of maps, whose pixels are values."""

import io
import math
import os
import struct
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageFile, TiffImagePlugin, UnidentifiedImageError

from gscnn_lightning.errors import DataError

Bytes = npt.NDArray[np.uint8]

_PNG, _JPEG, _TIFF = b"\x89PNG", b"\xff\xd8", (b"II", b"MM")
_ENDS = {_PNG: b"IEND", _JPEG: b"\xff\xd9"}
_DAMAGED = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    struct.error,
    Image.DecompressionBombError,  # of the few formats that look at this themselves
)
MOST_PIXELS = 1 << 30
"""Pixels of the largest picture that is decoded, which is OpenCV's own limit."""

_DEPTHS = (8, 10, 12, 14, 16)
_TURNS: dict[int, Callable[[Any], Any]] = {
    2: lambda picture: cv2.flip(picture, 1),
    3: lambda picture: cv2.rotate(picture, cv2.ROTATE_180),
    4: lambda picture: cv2.flip(picture, 0),
    5: cv2.transpose,
    6: lambda picture: cv2.rotate(picture, cv2.ROTATE_90_CLOCKWISE),
    7: lambda picture: cv2.flip(cv2.transpose(picture), -1),
    8: lambda picture: cv2.rotate(picture, cv2.ROTATE_90_COUNTERCLOCKWISE),
}
"""What makes a picture upright, by the number of its orientation."""

_NO_PICTURES = {
    "F": "floating-point pixels, of which nobody knows what is white",
    "I": "pixels of 32 bits or with a sign, of which nobody knows what is white",
    "LAB": "colours of CIE Lab",
    "HSV": "colours of HSV",
}

TURNED = "turned as the orientation tag says"
DEEP = (
    "reduced from 16 to 8 bits, the upper ones of the 8, 10, 12, 14 or 16 that the largest value of the picture needs"
)
STRETCHED = "stretched from the largest value that the file names to 255"
OPAQUE = "read without transparency"
UNPROFILED = "converted from CMYK without a colour profile"
FIRST = "read without what comes after the first of several pictures in the file"


class Header(NamedTuple):
    """What the beginning of an image file tells.

    Attributes:
        stored: width and height of the pixels in the file.
        mode: Pillow's name of the type of the pixels.
        orientation: from 1, upright, to 8, as in EXIF.
        largest: value that stands for white if the file names another one than 255 or 65535.
        converted: what `read_picture` changes or leaves out.
        refused: what keeps `read_picture` from reading it, "" if nothing is known to.
    """

    stored: tuple[int, int]
    mode: str
    orientation: int = 1
    largest: int | None = None
    converted: tuple[str, ...] = ()
    refused: str = ""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the picture when it is upright."""
        return self.stored[::-1] if self.orientation > 4 else self.stored


def look(path: Path | bytes, called: str = "") -> Header:
    """Header of an image file, after a look at its last bytes.

    Args:
        path: the file, or what is in it.
        called: what messages call it; its path by default.

    Raises:
        DataError: the file is missing, no image, or lacks its end.
    """
    called = called or str(path)
    try:
        _refuse_truncated(path, called)
        with io.BytesIO(path) if isinstance(path, bytes) else path.open("rb") as file:
            return _header(file)
    except (UnidentifiedImageError, Image.DecompressionBombError) as error:
        # OpenCV reads some that Pillow does not, and what it cannot read gets its message there.
        picture = read_picture(path, called, refuse=f"{called} is not a readable image ({error}): replace the file")
        return Header((picture.shape[1], picture.shape[0]), "RGB")
    except _DAMAGED as error:
        raise DataError(f"{called} is not a readable image ({error}): replace the file") from error


def read_picture(path: Path | bytes, called: str = "", refuse: str = "") -> Bytes:
    """Picture as (H, W, 3) uint8 RGB, upright as its orientation tag (EXIF or TIFF) says.

    Grey, palette, 1-bit and YCbCr pictures are converted, CMYK without its colour profile. Transparency is dropped. Of
    an animation, or a file of several pages, the first picture is taken. Of 16 bits per channel the upper 8 of the
    fewest of 8, 10, 12, 14 or 16 bits are taken that hold the picture's largest value, as cameras leave the upper ones
    empty; where PPM and PGM files name their largest value, it becomes 255.

    Args:
        path: the file, or what is in it.
        called: what messages call it; its path by default.
        refuse: message about a file that cannot be decoded, in place of the usual one.

    Raises:
        DataError: the file cannot be read, is truncated, has more than `MOST_PIXELS`, cannot be decoded, or has pixels
            of another kind, such as floating-point numbers.
    """
    called = called or str(path)
    content = _content(path, called)
    header = _checked_header(content, called)
    if header.refused:
        raise DataError(f"{called} {header.refused}")
    is_tiff = content[:2] in _TIFF
    if _is_darkened(content, header):
        picture = _by_pillow(content)
        picture = None if picture is None else np.ascontiguousarray(picture[..., :3])
    else:
        # OpenCV gives TIFF files of 16 bits in its own order of channels whatever it is told.
        flags = (cv2.IMREAD_COLOR if is_tiff else cv2.IMREAD_COLOR_RGB) | cv2.IMREAD_ANYDEPTH
        picture = _decoded(content, flags | cv2.IMREAD_IGNORE_ORIENTATION)
        if is_tiff and picture is not None:
            picture = np.ascontiguousarray(picture[..., ::-1])
    if picture is None:
        raise DataError(refuse or f"{called} cannot be decoded as an image: replace the file")
    if picture.dtype not in (np.uint8, np.uint16):
        raise DataError(f"{called} {_no_picture(f'pixels of type {picture.dtype}')}")
    picture = _eight_bits(picture, header.largest)
    # The decoders turn TIFF files themselves.
    return picture if is_tiff or header.orientation == 1 else _TURNS[header.orientation](picture)


def read_map(path: Path | bytes, called: str = "", indices: bool = False) -> npt.NDArray[Any]:
    """Pixels of an image file as stored, (H, W) or (H, W, 3 or 4) in BGR order, whatever its orientation tag says.

    Args:
        path: the file, or what is in it.
        called: what messages call it; its path by default.
        indices: an image with a palette comes as indices into it, else in colours.

    Raises:
        DataError: the file cannot be read, is truncated, has more than `MOST_PIXELS`, or cannot be decoded.
    """
    called = called or str(path)
    content = _content(path, called)
    header = _checked_header(content, called)
    if indices and header.mode == "P":
        pixels = _by_pillow(content)
    elif _is_darkened(content, header):
        pixels = _by_pillow(content)
        pixels = None if pixels is None else pixels[..., [2, 1, 0, 3]]
    else:
        pixels = _decoded(content, cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise DataError(f"{called} cannot be decoded as an image: replace the file")
    return pixels


def is_truncated(content: bytes) -> bool:
    """Whether the end of a PNG or JPEG is missing. Decoders only warn then, and return grey or black pixels."""
    if content.startswith(_PNG):
        return content.rfind(_ENDS[_PNG]) < 0
    if content.startswith(_JPEG):
        # End of image after the last start of scan; an embedded thumbnail has both, before the scan of the image.
        return content.rfind(_ENDS[_JPEG]) < content.rfind(b"\xff\xda")
    return False


def told_once(converted: Iterable[tuple[object, Sequence[str]]]) -> list[str]:
    """What was converted or left out when pictures were read, a line for each kind with the number of them.

    Args:
        converted: name or path of every picture, and `Header.converted`.

    Example:
        >>> told_once([("a.png", []), ("b.png", ["read without transparency"])])
        ['read without transparency: 1 of 2 pictures, the first is b.png']
    """
    first: dict[str, object] = {}
    counts: dict[str, int] = {}
    total = 0
    for name, kinds in converted:
        total += 1
        for kind in kinds:
            first.setdefault(kind, name)
            counts[kind] = counts.get(kind, 0) + 1
    return [f"{kind}: {counts[kind]} of {total} pictures, the first is {name}" for kind, name in first.items()]


def _header(file: BinaryIO) -> Header:
    """What Pillow finds in a header.

    Raises:
        UnidentifiedImageError: Pillow does not know the format.
        Exception: one of `_DAMAGED`, as the file is.
    """
    image = _opened(file)
    # Of a TIFF file, some versions of Pillow give the size before it is turned, others that after.
    tags = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else None
    stored = image.size if tags is None else (tags[256], tags[257])
    orientation = _orientation(image)
    largest, deep = _depth(image)
    # JPEG files of several pictures have previews of the first, or what it takes to show it brighter.
    several = image.format not in ("JPEG", "MPO") and getattr(image, "n_frames", 1) > 1
    found = {
        TURNED: orientation > 1,
        DEEP: deep and largest is None,
        STRETCHED: largest is not None,
        OPAQUE: image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info,
        UNPROFILED: image.mode == "CMYK",
        FIRST: several,
    }
    no_picture = _NO_PICTURES.get(image.mode, "")
    if image.mode == "I" and tags is None:
        no_picture = ""  # 16 bits, for which Pillow has no better name in these formats
    converted = tuple(kind for kind, is_so in found.items() if is_so)
    return Header(stored, image.mode, orientation, largest, converted, no_picture and _no_picture(no_picture))


def _opened(file: BinaryIO) -> ImageFile.ImageFile:
    """As `Image.open`, which refuses large pictures whether they are decoded or, as here, only looked at."""
    Image.init()
    start = file.read(16)
    for factory, accepts in Image.OPEN.values():
        try:
            # Formats that are not known by their first bytes are none of those that are read here.
            accepted = accepts is not None and accepts(start)
            if accepted and not isinstance(accepted, str):
                file.seek(0)
                return factory(file, "")
        except _DAMAGED:
            continue
    raise UnidentifiedImageError("its format is not known")


def _orientation(image: Image.Image) -> int:
    """Orientation by the tag of a TIFF file, or the EXIF block in front of the pixels; 1 where there is none."""
    tags: Any = {}
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        tags = image.tag_v2
    elif block := image.info.get("exif"):
        tags = Image.Exif()
        try:
            tags.load(block)
        except Exception:  # damaged in whatever way, as for other readers
            return 1
    found = tags.get(ExifTags.Base.Orientation, 1)
    return found if found in range(1, 9) else 1


def _depth(image: ImageFile.ImageFile) -> tuple[int | None, bool]:
    """The value of white if a PPM or PGM file names an unusual one, and whether there are more than 8 bits."""
    args = image.tile[0][3] if image.tile else ()
    parts = args if isinstance(args, tuple) else (args,)
    if image.format == "PPM":
        named = next((part for part in parts if isinstance(part, int) and part > 1), None)
        return None if named in (255, 65535) else named, image.mode.startswith("I") or named == 65535
    return None, image.mode.startswith("I;16") or any(isinstance(part, str) and ";16" in part for part in parts)


def _no_picture(what: str) -> str:
    return f"has {what}: pictures have 8 or 16 bits per channel, convert it"


def _eight_bits(picture: npt.NDArray[Any], largest: int | None) -> Bytes:
    if largest is not None:
        return cv2.convertScaleAbs(picture, alpha=255 / largest).astype(np.uint8, copy=False)
    if picture.dtype == np.uint8:
        return picture
    # By a shift, as OpenCV and others reduce 16 bits; multiples of 257 and of 16 become what they were made of.
    bits = next(bits for bits in _DEPTHS if int(picture.max()) < 1 << bits)
    return (picture >> (bits - 8)).astype(np.uint8)


def _content(path: Path | bytes, called: str) -> bytes:
    try:
        return path if isinstance(path, bytes) else path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {called}: {error.strerror or error}") from error


def _checked_header(content: bytes, called: str) -> Header:
    """Header of a whole picture, one without anything where Pillow does not know the format."""
    if is_truncated(content):
        raise DataError(f"{called} is truncated after {len(content)} bytes: copy it again")
    try:
        header = _header(io.BytesIO(content))
    except _DAMAGED:
        return Header((0, 0), "")
    if math.prod(header.stored) > MOST_PIXELS:
        width, height = header.stored
        raise DataError(
            f"{called} has {width}x{height} pixels by its header, more than the {MOST_PIXELS // 10**6} million that "
            "are read: cut it into tiles, or replace it if it is damaged"
        )
    return header


def _is_darkened(content: bytes, header: Header) -> bool:
    """Whether OpenCV would multiply colours by their opacity."""
    return content[:2] in _TIFF and header.mode == "RGBA" and DEEP not in header.converted


def _by_pillow(content: bytes) -> npt.NDArray[Any] | None:
    try:
        return np.asarray(_opened(io.BytesIO(content)))
    except Exception:  # its decoders raise whatever comes when a file is damaged
        return None


def _decoded(content: bytes, flags: int) -> npt.NDArray[Any] | None:
    try:
        return cv2.imdecode(np.frombuffer(content, np.uint8), flags) if content else None
    except cv2.error:
        return None


def _refuse_truncated(path: Path | bytes, called: str) -> None:
    """Raise if the end of a file is missing, reading the whole file only where the last bytes are not the usual."""
    with io.BytesIO(path) if isinstance(path, bytes) else path.open("rb") as file:
        start = file.read(8)
        file.seek(max(0, file.seek(0, os.SEEK_END) - 64))
        end = file.read()
    if any(start.startswith(head) and tail not in end for head, tail in _ENDS.items()):
        content = path if isinstance(path, bytes) else path.read_bytes()
        if is_truncated(content):
            raise DataError(f"{called} is truncated after {len(content)} bytes: copy it again")
