"""Labels that are outlines and runs instead of maps: checking them, and the one way of drawing them."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from gscnn_lightning.checks import is_number
from gscnn_lightning.classes import IGNORE_INDEX, ClassTable, colors_of
from gscnn_lightning.data.base import Split
from gscnn_lightning.data.files import UNKNOWN, Color, FileSource, Frame, check_sizes, label_table, look_at_image
from gscnn_lightning.data.mask_classes import kept_classes
from gscnn_lightning.data.pictures import look
from gscnn_lightning.data.splits import SplitDataModule
from gscnn_lightning.errors import DataError, SettingError
from gscnn_lightning.score_names import check_class_names

Bytes = npt.NDArray[np.uint8]
Overlap = Literal["smaller", "later", "earlier", "classes", "void"]

TOO_SHORT = "polygons of fewer than 3 points left out"
ONLY_BOXES = "boxes without an outline left out"


@dataclass(frozen=True, eq=False)
class Region:
    """A part of an image that has one class.

    Attributes:
        label: train id.
        polygons: x and y of the corners in turns, in pixels or, in frames without a size, as shares of width and
            height; all of them together are the region.
        runs: instead of polygons, runs of pixels as COCO encodes them, compressed or not; they fill the image.
    """

    label: int
    polygons: tuple[npt.NDArray[np.float64], ...] = ()
    runs: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class RegionFrame(Frame):
    """An image and its regions.

    Attributes:
        regions: in the order of the file; None if the image is unlabelled.
        size: width and height of the image by the file that has the regions, None where that does not say it.
        where: that file, and the place in it, for messages.
        left_out: what of its regions was left out, a few words for each kind.
    """

    regions: tuple[Region, ...] | None = None
    size: tuple[int, int] | None = None
    where: str = ""
    left_out: tuple[str, ...] = ()


class RegionSource(FileSource):
    """Frames whose label maps are drawn when they are asked for.

    Args:
        frames: what to serve.
        number: of classes.
        background: train id of pixels in no region, 255 for void.
        overlap: what a pixel in several regions gets, see `draw`.
        problems: what is wrong with the data beside the frames, one message each.
    """

    def __init__(
        self,
        frames: Iterable[RegionFrame],
        number: int,
        background: int,
        overlap: Overlap,
        problems: Sequence[str] = (),
    ) -> None:
        # What is drawn are train ids, and so are the label maps of others that are scored against it.
        table = label_table({**{label: label for label in range(number)}, IGNORE_INDEX: IGNORE_INDEX})
        super().__init__(frames, table, problems)
        self.background = background
        self.overlap: Overlap = overlap

    def load_labels(self, index: int) -> Bytes | None:
        """Train ids (H, W) uint8, or None of an unlabelled frame.

        Raises:
            DataError: the image is unreadable.
        """
        frame = self._frame(index)
        if frame.regions is None:
            return None
        size = frame.size or look(frame.image).size
        return draw(frame, size, self.background, self.overlap)

    def check_frame(self, index: int) -> Sequence[str]:
        """Look at the first and last bytes of an image, and whether its size is that of the labels.

        Returns:
            What is converted or left out when the frame is read.

        Raises:
            DataError: the file is not an image or lacks its end, or the sizes differ.
        """
        frame = self._frame(index)
        image = look_at_image(frame.image)
        if frame.size is not None:
            check_sizes(frame.where, frame.size, image, frame.image.name)
        return (*image.converted, *frame.left_out)

    def fingerprint(self) -> str:
        """Digest of all regions and how they are drawn: other labels, another digest."""
        digest = hashlib.sha256(f"{self.background} {self.overlap}\n".encode())
        for index in range(len(self)):
            frame = self._frame(index)
            digest.update(f"{frame.image.absolute()} {frame.size}\n".encode(errors="surrogateescape"))
            for region in frame.regions or ():
                shapes = [len(polygon) for polygon in region.polygons]
                digest.update(f"{region.label} {shapes} {region.runs}\n".encode())
                for polygon in region.polygons:
                    digest.update(polygon.tobytes())
        return digest.hexdigest()

    def _frame(self, index: int) -> RegionFrame:
        frame = self.frames[index]
        assert isinstance(frame, RegionFrame)
        return frame


def draw(frame: RegionFrame, size: tuple[int, int], background: int, overlap: Overlap) -> Bytes:
    """Label map of regions, by pycocotools, whose pixels are inside where their centres are.

    Args:
        frame: with regions.
        size: width and height of the map.
        background: train id of pixels in no region.
        overlap: what a pixel in several regions gets: the class of the "smaller" one, by pixels; of the "later" or the
            "earlier" one in the file; of the one whose class comes last in the list of "classes"; or "void" where the
            classes differ. Of equally small ones, or of the same class, the later one.

    Returns:
        (H, W) uint8.
    """
    width, height = size
    drawn = [(region.label, _ends(region, frame.size is None, width, height)) for region in frame.regions or ()]
    if overlap == "smaller":
        drawn.sort(key=lambda region: -int((region[1][1::2] - region[1][0::2]).sum()))
    elif overlap == "earlier":
        drawn.reverse()
    elif overlap == "classes":
        drawn.sort(key=lambda region: region[0])
    # Column by column, as the runs are: what it takes depends on the regions, and not on how large the image is.
    labels = np.full(width * height, background, np.uint8)
    taken = np.zeros(width * height if overlap == "void" else 0, bool)
    for label, ends in drawn:
        for start, stop in ends.reshape(-1, 2).tolist():
            if overlap == "void":
                differs = taken[start:stop] & (labels[start:stop] != label)
                taken[start:stop] = True
                labels[start:stop] = np.where(differs, IGNORE_INDEX, label)
            else:
                labels[start:stop] = label
    return np.ascontiguousarray(labels.reshape(width, height).T)


def _ends(region: Region, is_in_shares: bool, width: int, height: int) -> npt.NDArray[np.int64]:
    """Where the runs of a region start and stop in turns, in pixels counted column by column."""
    runs: Any = region.runs
    if runs is None:
        masks = coco_masks()
        scale = np.array((width, height) if is_in_shares else (1, 1), np.float64)
        polygons = [(polygon.reshape(-1, 2) * scale).ravel().tolist() for polygon in region.polygons]
        runs = masks.merge(masks.frPyObjects(polygons, height, width))
    counts = runs["counts"]
    if isinstance(counts, bytes):
        counts = counts.decode("ascii")
    ends = np.cumsum(unpacked(counts) if isinstance(counts, str) else counts, dtype=np.int64)
    return ends[: len(ends) // 2 * 2]  # the last run may be one of pixels outside


def unpacked(text: str) -> list[int]:
    """Counts of compressed runs, as rleFrString of https://github.com/cocodataset/cocoapi unpacks them.

    Each has five bits per character and a sign; from the fourth on it is relative to the last but one.

    Args:
        text: the compressed runs.

    Returns:
        Numbers of pixels outside and inside in turns, column by column.
    """
    counts: list[int] = []
    number = bits = 0
    for character in text:
        part = ord(character) - 48
        number |= (part & 31) << bits
        bits += 5
        if part & 32:
            continue
        if part & 16:
            number -= 1 << bits
        counts.append(number + (counts[-2] if len(counts) > 2 else 0))
        number = bits = 0
    return counts


def coco_masks() -> ModuleType:
    """The module of pycocotools that draws.

    Raises:
        SettingError: it is not installed.
    """
    try:
        from pycocotools import mask
    except ImportError as error:
        raise SettingError(
            f"polygons and runs are drawn by pycocotools, which cannot be imported ({error}): pip install "
            "'gscnn-lightning[formats]'"
        ) from error
    return mask


def checked_polygons(
    polygons: object, size: tuple[float, float], where: str, reach: float = 1.0
) -> tuple[tuple[npt.NDArray[np.float64], ...], bool]:
    """Polygons as pycocotools takes them.

    Args:
        polygons: a list of lists of x and y in turns.
        size: width and height that the coordinates belong to.
        where: file and place in it, for messages.
        reach: how far outside a point may be, in widths and heights: annotation tools leave some a little outside.

    Returns:
        Those of at least three points, and whether others were left out.

    Raises:
        DataError: they are no such lists, or points are far outside.
    """
    if not isinstance(polygons, list | tuple):
        raise DataError(f"{where} has {str(polygons)[:100]!r} for polygons: write lists of x and y in turns")
    kept = []
    for polygon in polygons:
        try:
            points = np.array(polygon, np.float64)
        except (ValueError, TypeError):
            points = np.full(1, np.nan)
        if (
            not isinstance(polygon, list | tuple)
            or points.ndim != 1
            or len(points) % 2
            or not np.isfinite(points).all()
        ):
            raise DataError(f"{where} has a polygon {str(polygon)[:100]}: write x and y in turns, as numbers")
        if len(points) < 6:  # pycocotools takes four numbers for a box
            continue
        pairs, limits = points.reshape(-1, 2), np.array(size, np.float64)
        outside = ((pairs < -reach * limits) | (pairs > (1 + reach) * limits)).any(axis=1)
        if outside.any():
            x, y = pairs[outside][0].tolist()
            image, of = f"{size[0]:g}x{size[1]:g} image", "pixels"
            if size == (1, 1):
                image, of = "image", "shares of width and height from 0 to 1"
            raise DataError(
                f"{where} has a point ({x:g}, {y:g}) far outside of the {image}: coordinates are {of}, correct them"
            )
        kept.append(points)
    return tuple(kept), len(kept) < len(polygons)


class RegionDataModule(SplitDataModule):
    """What data modules share whose labels are regions, with a class for what is in none of them.

    Args:
        root: folder of the data.
        names: of the classes, in their order.
        background: name of the class of pixels in no region, which comes first in the list of classes unless it is one
            of them; null where such pixels are void.
        overlap: what a pixel in several regions gets, see `draw`.
        void_classes: names of classes that are void here.
        **kwargs: see `SplitDataModule` (splits, hold_out, skip_frames) and `SegmentationDataModule`.

    Attributes:
        labels: train id of each class that the data name, 255 for those that are void.

    Raises:
        DataError: names of classes cannot be used.
        SettingError: settings are of the wrong kind or out of range.
    """

    def __init__(
        self,
        root: Path,
        names: Sequence[str],
        background: str | None,
        overlap: Overlap,
        void_classes: Sequence[str],
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        coco_masks()
        if overlap not in get_args(Overlap):
            raise SettingError(f"overlap must be one of {', '.join(get_args(Overlap))}, got {overlap!r}")
        known = list(names) if background is None or background in names else [background, *names]
        kept = [known[index] for index in kept_classes(known, void_classes)]
        if len(kept) >= UNKNOWN:
            raise DataError(f"{root} has {len(kept)} classes, and {UNKNOWN - 1} is the most: put some in void_classes")
        check_class_names(kept)
        self.labels = {name: kept.index(name) if name in kept else IGNORE_INDEX for name in known}
        self.background = IGNORE_INDEX if background is None else self.labels[background]
        self.overlap: Overlap = overlap
        taken = colors_of([name for name in kept if name != background])
        grey, others = _free_grey(taken), iter(taken)
        colors = tuple(grey if name == background else next(others) for name in kept)
        super().__init__(ClassTable(tuple(kept), colors), root, **kwargs)

    def frames_source(
        self, frames: Sequence[RegionFrame], split: Split, where: str, problems: Sequence[str] = ()
    ) -> RegionSource:
        """The source of frames, after a look at whether there are outlines at all.

        Raises:
            DataError: nothing but boxes.
        """
        if split != "predict" and not any(frame.regions for frame in frames):
            boxes = [frame for frame in frames if ONLY_BOXES in frame.left_out]
            if boxes:
                raise DataError(
                    f"{where} has boxes and not one outline, the first is {boxes[0].where}: export the annotations as "
                    "polygons or masks, for segmentation"
                )
        return RegionSource(frames, self.num_classes, self.background, self.overlap, problems)


def _free_grey(taken: Sequence[Color]) -> Color:
    """A grey to draw the background in that no class is drawn in, nor void, which is black."""
    greys = [(value, value, value) for value in (96, 208, 152)]
    return max(greys, key=lambda grey: min([60, *(abs(np.subtract(grey, color)).max() for color in taken)]))


def check_named_once(names: Iterable[str], where: str) -> None:
    """Raise if a class has no name or that of another.

    Raises:
        DataError: that is so.
    """
    seen = set()
    for name in names:
        if not isinstance(name, str) or not name.strip():
            raise DataError(f"{where} has a class called {name!r}: give it a name, as text")
        if name in seen:
            raise DataError(f"{where} has the class {name!r} twice: give each a name of its own")
        seen.add(name)


def is_size(value: Any) -> bool:  # noqa: ANN401
    """Whether a value is a number of pixels that a picture can have as width or height."""
    return is_number(value, 1) and value % 1 == 0
