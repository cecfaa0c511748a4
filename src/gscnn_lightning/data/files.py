"""Pairs of image and label files on disk: finding them, checking them, reading them."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from gscnn_lightning.errors import DataError

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg"})
UNKNOWN = 254
"""Entry of a label table for raw values that the data set does not define."""

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Frame:
    """One image and, unless unlabelled, its label map.

    Attributes:
        name: unique within the data set, relative, without suffix.
        image: file of the image.
        labels: file of the 8-bit single-channel label map, or None.
    """

    name: str
    image: Path
    labels: Path | None = None


def data_root(root: str | Path | None, variable: str, name: str) -> Path:
    """Folder of a data set from an argument or else an environment variable.

    Raises:
        DataError: neither is given or the folder does not exist.
    """
    chosen = root if root is not None else os.environ.get(variable)
    if not chosen:
        raise DataError(f"where is {name}? Pass root (--data.root FOLDER) or set the environment variable {variable}")
    path = Path(chosen).expanduser()
    if not path.is_dir():
        raise DataError(f"{name} root {path} does not exist: correct root (--data.root FOLDER) or {variable}")
    return path


class FileSource:
    """Frames on disk, decoded when asked for. Raw label values are translated by a table of 256 train ids.

    Args:
        frames: what to serve.
        label_table: uint8 (256,): train id of each raw value, 255 for void, 254 (`UNKNOWN`) for values that must not
            occur.
    """

    def __init__(self, frames: Iterable[Frame], label_table: Bytes) -> None:
        self.frames = list(frames)
        self.label_table = label_table

    def __len__(self) -> int:
        return len(self.frames)

    def name(self, index: int) -> str:
        """Name of a frame: relative, unique, without suffix."""
        return self.frames[index].name

    def load(self, index: int) -> tuple[Bytes, Bytes | None]:
        """RGB image (H, W, 3) and train ids (H, W) or None, both uint8.

        Raises:
            DataError: a file is unreadable or truncated, or has a label value outside the table.
        """
        frame = self.frames[index]
        image = cv2.cvtColor(_decode(frame.image, cv2.IMREAD_COLOR, index), cv2.COLOR_BGR2RGB)
        return image, None if frame.labels is None else self._load_labels(frame.labels, index)

    def check(self) -> None:
        """Compare the sizes of images and label maps, reading only the file headers.

        Raises:
            DataError: two sizes differ or a file is not an image.
        """
        for frame in self.frames:
            if frame.labels is None:
                continue
            image, labels = _size(frame.image), _size(frame.labels)
            if image != labels:
                raise DataError(
                    f"{frame.labels} is {labels[0]}x{labels[1]} pixels but its image {frame.image.name} is "
                    f"{image[0]}x{image[1]}: resize one of them (labels by nearest neighbour)"
                )

    def _load_labels(self, path: Path, index: int) -> Bytes:
        raw = _decode(path, cv2.IMREAD_UNCHANGED, index)
        if raw.ndim != 2 or raw.dtype != np.uint8:
            raise DataError(
                f"{path} (sample {index}) has shape {raw.shape} and type {raw.dtype}: label maps are 8-bit images with "
                "one channel whose values are class ids"
            )
        labels = cv2.LUT(raw, self.label_table)
        unknown = labels == UNKNOWN
        if unknown.any():
            values = ", ".join(map(str, np.unique(raw[unknown])))
            raise DataError(
                f"{path} (sample {index}) has label values that the data set does not define: {values} "
                f"({np.count_nonzero(unknown)} pixels). Correct the file or its class table"
            )
        return labels


def label_table(train_ids: Mapping[int, int]) -> Bytes:
    """Table of 256 entries from {raw value: train id}; raw values that are not named become `UNKNOWN`."""
    table = np.full(256, UNKNOWN, np.uint8)
    for raw, train_id in train_ids.items():
        table[raw] = train_id
    return table


def find_files(folder: Path, suffixes: Iterable[str] = IMAGE_SUFFIXES, ending: str = "") -> dict[str, Path]:
    """All files below a folder whose name ends in `ending` plus a suffix, by relative path without these, sorted.

    Raises:
        DataError: two files differ in nothing but the suffix.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in suffixes or not path.stem.endswith(ending) or path.name.startswith("."):
            continue
        key = path.relative_to(folder).with_suffix("").as_posix().removesuffix(ending)
        if key in found:
            raise DataError(f"{found[key]} and {path.name} are the same frame twice: remove one of them")
        found[key] = path
    return found


def pair_files(images: Mapping[str, Path], labels: Mapping[str, Path], where: str) -> list[Frame]:
    """Frames of the names that both mappings share.

    Raises:
        DataError: there is none, or a name is in one mapping only.
    """
    if not images and not labels:
        raise DataError(f"no images in {where}: check the path, or that the archive was unpacked completely")
    both_ways = ((images, labels, "image", "label map"), (labels, images, "label map", "image"))
    for present, others, kind, missing in both_ways:
        alone = [path for name, path in present.items() if name not in others]
        if alone:
            raise DataError(
                f"{len(alone)} of {len(present)} {kind}s in {where} have no {missing}, the first is {alone[0]}: add "
                f"the missing files or remove the {kind}s"
            )
    return [Frame(name, image, labels[name]) for name, image in images.items()]


def _size(path: Path) -> tuple[int, int]:
    """Width and height from the header of an image file."""
    try:
        with Image.open(path) as image:
            return image.size
    except (UnidentifiedImageError, OSError) as error:
        raise DataError(f"{path} is not a readable image ({error}): replace the file") from error


def _decode(path: Path, flags: int, index: int) -> npt.NDArray[Any]:
    """Pixels of an image file as stored, whatever its orientation tag says, since label maps have no such tag."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path} (sample {index}): {error}") from error
    if _is_truncated(content):
        raise DataError(f"{path} (sample {index}) is truncated after {len(content)} bytes: copy it again")
    image = cv2.imdecode(np.frombuffer(content, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION) if content else None
    if image is None:
        raise DataError(f"{path} (sample {index}) cannot be decoded as an image: replace the file")
    return image


def _is_truncated(content: bytes) -> bool:
    """Whether the end of a PNG or JPEG is missing. Decoders only warn then, and return grey or black pixels."""
    if content.startswith(b"\x89PNG"):
        return content.rfind(b"IEND") < 0
    if content.startswith(b"\xff\xd8"):
        # End of image after the last start of scan; an embedded thumbnail has both, before the scan of the image.
        return content.rfind(b"\xff\xd9") < content.rfind(b"\xff\xda")
    return False
