"""Pairs of image and label files on disk: finding them, checking them, translating their labels."""

import hashlib
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from gscnn_lightning.classes import IGNORE_INDEX
from gscnn_lightning.data.ahead import results_in_order
from gscnn_lightning.data.pictures import FIRST, Header, look, read_map, read_picture, told_once
from gscnn_lightning.data.source import Source
from gscnn_lightning.data.windows import FileWindows, FrameWindows, open_tiff
from gscnn_lightning.errors import DataError

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm"})
LABEL_SUFFIXES = frozenset({".png", ".bmp", ".tif", ".tiff", ".pgm"})
"""Formats that keep every pixel as it was."""
UNKNOWN = 254
"""Entry of a label table for raw values that the data set does not define."""

Bytes = npt.NDArray[np.uint8]
Color = tuple[int, int, int]

_MOST_PIXELS = 180_000_000
_IDS, _COLORS = 1 << 16, 1 << 24
_MODES = {_IDS: {"1", "L", "P", "I", "I;16", "I;16B"}, _COLORS: {"RGB", "RGBA", "P"}}
_KINDS = {
    _IDS: "8- or 16-bit images with one channel (or a palette) whose values are class ids",
    _COLORS: "8-bit colour images (masks: colors)",
}


@dataclass(frozen=True)
class Frame:
    """One image and, unless unlabelled, its label map.

    Attributes:
        name: unique within the data set, relative, without suffix.
        image: file of the image.
        labels: file of the label map, or None.
        instances: file of the instance map, 8- or 16-bit with one channel, or None.
    """

    name: str
    image: Path
    labels: Path | None = None
    instances: Path | None = None


def data_root(root: str | Path | None, variable: str, name: str) -> Path:
    """Folder of a data set from an argument or else an environment variable.

    Raises:
        DataError: neither is given or the folder does not exist.
    """
    chosen = root if root is not None else os.environ.get(variable)
    if not chosen:
        raise DataError(f"where is {name}? Pass root (--data.root FOLDER) or set the environment variable {variable}")
    path = user_path(chosen, "data.root")
    if not path.is_dir():
        raise DataError(f"{name} root {path} does not exist: correct root (--data.root FOLDER) or {variable}")
    return path


def user_path(given: str | Path, name: str) -> Path:
    """A path that a user gave, which may be there or not, with the user's folder in place of ~.

    Args:
        given: the path.
        name: of the setting, for the message.

    Raises:
        DataError: no file can have the path: it is empty or too long, or ~ is followed by a user who is not there.
    """
    try:
        if not str(given):
            raise ValueError("it is empty")
        path = Path(given).expanduser()
        path.exists()
    except (OSError, RuntimeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{name} {shown(given)} cannot be a path ({reason}): correct it") from error
    return path


def shown(path: str | Path) -> str:
    """A path as messages show it: a name that is too long for a file is too long for a message."""
    text = str(path)
    return repr(text) if not text else text if len(text) <= 200 else f"{text[:60]}... ({len(text)} characters)"


class FileSource(Source):
    """Frames on disk, decoded when asked for. Raw label values are translated by a table of train ids.

    Args:
        frames: what to serve.
        table: train id of each raw value or colour, from `label_table` or `color_table`.
        problems: what is wrong with the data beside the frames, one message each, such as files without a partner.

    Attributes:
        remarks: what was left out beside the frames, one message each.
    """

    def __init__(self, frames: Iterable[Frame], table: Bytes, problems: Sequence[str] = ()) -> None:
        self.frames = list(frames)
        self.table = table
        self.problems = list(problems)
        self.notes: list[str] = []
        self.remarks: list[str] = []

    def __len__(self) -> int:
        return len(self.frames)

    def name(self, index: int) -> str:
        """Name of a frame: relative, unique, without suffix."""
        return self.frames[index].name

    def identity(self, index: int) -> str:
        """Its files: the test split may have instance maps beside what the validation split has."""
        return f"{self.frames[index].image} {self.frames[index].labels}"

    def load(self, index: int) -> tuple[Bytes, Bytes | None]:
        """RGB image (H, W, 3) and train ids (H, W) or None, both uint8.

        Raises:
            DataError: a file is unreadable or truncated, or has a label value outside the table.
        """
        path = self.frames[index].image
        return read_picture(path, f"{path} (sample {index})"), self.load_labels(index)

    def load_labels(self, index: int) -> Bytes | None:
        """Train ids (H, W) uint8, or None of an unlabelled frame.

        Raises:
            DataError: the file is unreadable or truncated, or has a value outside the table.
        """
        path = self.frames[index].labels
        if path is None:
            return None
        return read_labels(path, self.table, f"{path} (sample {index})")

    def load_instances(self, index: int) -> npt.NDArray[np.int32] | None:
        """Instance map (H, W) as the data set encodes it, None of a frame without.

        Raises:
            DataError: the file is unreadable or truncated, or has more than one channel.
        """
        path = self.frames[index].instances
        if path is None:
            return None
        raw = read_map(path, f"{path} (sample {index})")
        if raw.ndim != 2:
            raise DataError(f"{path} (sample {index}) has shape {raw.shape}: instance maps have one channel")
        return raw.astype(np.int32)

    def open_windows(self, index: int) -> FrameWindows | None:
        """Parts of a frame whose image is a TIFF file that `windows.open_tiff` takes; None of others."""
        frame = self.frames[index]
        # What is drawn when it is asked for is no file of labels.
        if frame.labels is None or (image := open_tiff(frame.image)) is None:
            return None
        path, colored = frame.labels, len(self.table) == _COLORS
        labels = open_tiff(path, colors=colored, ids=not colored)
        if labels is not None and labels.shape != image.shape:
            return None  # which is refused by whoever decodes them
        called = f"{path} (sample {index})"

        def translated(raw: npt.NDArray[Any]) -> Bytes:
            return translated_labels(raw, self.table, called)

        return FileWindows(image, labels, lambda: read_labels(path, self.table, called), translated)

    def check(self) -> None:
        """Report what can be known without decoding: unpaired files, and what `check_frame` finds.

        Raises:
            DataError: the first thing that is wrong.
        """
        for problem in self.problems:
            raise DataError(problem)
        # Threads only for the sake of network drives, where every file costs a round trip.
        converted = list(results_in_order(self.check_frame, range(len(self.frames)), 8))
        self.notes = [*self.remarks, *told_once(zip((frame.image for frame in self.frames), converted, strict=True))]

    def check_frame(self, index: int) -> Sequence[str]:
        """Look at the first and last bytes of the files of a frame.

        Returns:
            What is converted or left out when the frame is read.

        Raises:
            DataError: a file is not an image or lacks its end, sizes differ, or the pixels are of the wrong kind.
        """
        frame = self.frames[index]
        image = look_at_image(frame.image)
        if frame.labels is None:
            return image.converted
        return (*image.converted, *look_at_labels(frame.labels, self.table, image, frame.image.name))

    def image_file(self, index: int) -> Path | None:
        """File of the image; None where a class of one's own loads frames in its own way."""
        return self.frames[index].image if type(self).load is FileSource.load else None

    def fingerprint(self) -> str:
        """Digest of the label files' names, sizes and dates and of the table: other labels, another digest."""
        digest = hashlib.sha256(self.table.tobytes())
        for frame in self.frames:
            if frame.labels is not None:
                status = frame.labels.stat()
                named = f"{frame.labels.absolute()}\0{status.st_size}\0{status.st_mtime_ns}\n"
                digest.update(named.encode(errors="surrogateescape"))
        return digest.hexdigest()


def look_at_image(file: Path | bytes, called: str = "") -> Header:
    """Header of an image of a data set, after a look at its first and last bytes.

    Args:
        file: the file, or what is in it.
        called: what messages call it; its path by default.

    Raises:
        DataError: the file is no image that can be read, lacks its end, or has too many pixels.
    """
    image, called = look(file, called), called or str(file)
    if image.refused:
        raise DataError(f"{called} {image.refused}")
    if math.prod(image.size) > _MOST_PIXELS:
        raise DataError(
            f"{called} has {_text(image.size)} pixels, more than the {_MOST_PIXELS // 10**6} million that a picture of "
            "a data set can have: cut it, and its label map, into tiles"
        )
    return image


def look_at_labels(
    file: Path | bytes, table: Bytes, image: Header, image_name: str, called: str = ""
) -> tuple[str, ...]:
    """Look at the first and last bytes of a label map.

    Args:
        file: the file, or what is in it.
        table: from `label_table` or `color_table`.
        image: header of its image.
        image_name: what messages call the image.
        called: what messages call the label map; its path by default.

    Returns:
        What is left out when it is read.

    Raises:
        DataError: by its header it does not go with its image, or with the table.
    """
    labels, called = look(file, called), called or str(file)
    is_tiff = file[:2] in (b"II", b"MM") if isinstance(file, bytes) else file.suffix.lower() in (".tif", ".tiff")
    if labels.orientation > 1 and is_tiff:
        raise DataError(
            f"{called} has an orientation tag ({labels.orientation}), and label maps are taken as they are stored: "
            "save it without the tag, as PNG for instance"
        )
    check_sizes(called, labels.stored, image, image_name)
    if labels.mode not in _MODES[len(table)] or labels.refused:
        colored = len(table) == _IDS and labels.mode in ("RGB", "RGBA")
        hint = "; keep one of channels that are all the same, or say masks: colors there" if colored else ""
        raise DataError(
            f"{called} has pixels of type {labels.mode}: label maps are {_KINDS[len(table)]}, as the class table has "
            f"them{hint}"
        )
    if labels.mode == "1" and table[255] in (UNKNOWN, IGNORE_INDEX):
        raise DataError(
            f"{called} has 1 bit per pixel, whose white is the value 255, and 255 is none of the classes: save it with "
            "8 bits, or give 255 to a class in the class table"
        )
    return tuple(f"label map {kind}" for kind in labels.converted if kind == FIRST)


def check_sizes(called: str, size: tuple[int, int], image: Header, image_name: str) -> None:
    """Raise if labels are not of the size of their upright image.

    Args:
        called: what the message calls the labels.
        size: width and height of the labels.
        image: header of the image.
        image_name: what the message calls it.

    Raises:
        DataError: the sizes differ.
    """
    if image.size == size:
        return
    sizes = f"{called} is {_text(size)} pixels but its image {image_name} is {_text(image.size)}"
    if image.stored == size:
        raise DataError(
            f"{sizes} when turned as its orientation tag ({image.orientation}) says, so the labels were drawn on the "
            "picture as it is stored: remove the tag from the image, or turn the label map likewise"
        )
    raise DataError(f"{sizes}: resize one of them (labels by nearest neighbour)")


def read_labels(file: Path | bytes, table: Bytes, called: str) -> Bytes:
    """Train ids (H, W) uint8 of a label map.

    Args:
        file: the file, or what is in it.
        table: from `label_table` or `color_table`.
        called: what messages call it.

    Raises:
        DataError: the file is unreadable or truncated, or has a value outside the table.
    """
    return translated_labels(read_map(file, called, indices=len(table) == _IDS), table, called)


def translated_labels(raw: npt.NDArray[Any], table: Bytes, called: str) -> Bytes:
    """Train ids of stored values, see `translate`.

    Args:
        raw: the values.
        table: from `label_table` or `color_table`.
        called: what messages call the label map.

    Raises:
        DataError: the pixels are of another kind, or there is a value outside the table.
    """
    labels = translate(raw, table)
    if labels is None:
        raise DataError(f"{called} has shape {raw.shape} and type {raw.dtype}: label maps are {_KINDS[len(table)]}")
    unknown = labels == UNKNOWN
    if unknown.any():
        raise DataError(
            f"{called} has label values that the data set does not define: {listed_values(raw[unknown])} "
            f"({np.count_nonzero(unknown)} pixels). Correct the file or its class table"
        )
    return labels


def translate(raw: npt.NDArray[Any], table: Bytes) -> Bytes | None:
    """Train ids of raw values, None if these are not of the kind that the table is for.

    Args:
        raw: (H, W) uint8 or uint16, or (H, W, 3 or 4) uint8 colours in BGR order.
        table: from `label_table` or `color_table`.
    """
    if len(table) == _COLORS:
        if raw.ndim != 3 or raw.dtype != np.uint8:
            return None
        # Blue is the lowest byte; what OpenCV adds as fourth byte, or finds there, is transparency.
        four = raw if raw.shape[2] == 4 else cv2.cvtColor(raw, cv2.COLOR_BGR2BGRA)
        return table[np.ascontiguousarray(four).view("<u4")[..., 0] & (_COLORS - 1)]
    if raw.ndim != 2 or raw.dtype not in (np.uint8, np.uint16):
        return None
    return cv2.LUT(raw, table[:256]) if raw.dtype == np.uint8 else table[raw]


def label_table(train_ids: Mapping[int, int], others: int = UNKNOWN) -> Bytes:
    """Table of 65536 entries from {raw value: train id}; raw values that are not named become `others`."""
    table = np.full(_IDS, others, np.uint8)
    for raw, train_id in train_ids.items():
        table[raw] = train_id
    return table


def color_table(train_ids: Mapping[Color, int], others: int = UNKNOWN) -> Bytes:
    """Table of 2^24 entries from {RGB colour: train id}; colours that are not named become `others`."""
    table = np.full(_COLORS, others, np.uint8)
    for (red, green, blue), train_id in train_ids.items():
        table[red << 16 | green << 8 | blue] = train_id
    return table


def find_files(folder: Path, suffixes: Iterable[str] = IMAGE_SUFFIXES, ending: str = "") -> dict[str, Path]:
    """All files below a folder whose name ends in `ending` plus a suffix, by relative path without these, sorted.

    Raises:
        DataError: two files differ in nothing but the suffix, or a name belongs to something else than a file.
    """
    found: dict[str, Path] = {}
    for path in sorted(walk(folder)):
        if path.suffix.lower() not in suffixes or not path.stem.endswith(ending) or path.name.startswith("."):
            continue
        if not path.is_file():  # opening a pipe would wait for ever
            raise DataError(f"{path} is no file but a broken link, a folder or a pipe: restore or remove it")
        key = path.relative_to(folder).with_suffix("").as_posix().removesuffix(ending)
        if key in found:
            raise DataError(f"{found[key]} and {path.name} are the same frame twice: remove one of them")
        found[key] = path
    return found


class Paired(NamedTuple):
    """What `pair_files` found.

    Attributes:
        frames: images with their label maps.
        problems: one message per kind of file without a partner.
    """

    frames: list[Frame]
    problems: list[str]


def pair_files(images: Mapping[str, Path], labels: Mapping[str, Path], where: str) -> Paired:
    """Pair images and label maps of the same name.

    Raises:
        DataError: both are empty.
    """
    if not images and not labels:
        raise DataError(f"no images in {where}: check the path, or that the archive was unpacked completely")
    problems = []
    both_ways = ((images, labels, "image", "label map"), (labels, images, "label map", "image"))
    for present, others, kind, missing in both_ways:
        alone = [path for name, path in present.items() if name not in others]
        if alone:
            problems.append(
                f"{len(alone)} of {len(present)} {kind}s in {where} have no {missing}, the first is {alone[0]}: add "
                f"the missing files or remove the {kind}s"
            )
    return Paired([Frame(name, image, labels[name]) for name, image in images.items() if name in labels], problems)


def walk(folder: Path) -> Iterator[Path]:
    """Everything below a folder, through links to other folders too, each of them once."""
    seen = set()
    for place, folders, files in os.walk(folder, onerror=_cannot_list, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:  # a link to a folder above
            folders.clear()
            continue
        seen.add(real)
        yield from (Path(place, name) for name in folders + files)


def _cannot_list(error: OSError) -> None:
    # A folder that does not exist is a split without files, which is reported with more knowledge elsewhere.
    if not isinstance(error, FileNotFoundError):
        raise DataError(f"cannot list {error.filename} ({error.strerror}): make it readable") from error


def _text(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def listed_values(raw: npt.NDArray[Any]) -> str:
    """Different raw values as text, the first ten of them; colours (N, 3 or 4) in BGR order are written as RGB."""
    different = np.unique(raw[:, 2::-1] if raw.ndim == 2 else raw, axis=0).tolist()
    shown = ", ".join(str(tuple(value) if isinstance(value, list) else value) for value in different[:10])
    return shown + (f" and {len(different) - 10} more" if len(different) > 10 else "")
