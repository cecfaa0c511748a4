"""Polygons in YOLO's text files, one per image."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from gscnn_lightning.data.base import Split
from gscnn_lightning.data.files import IMAGE_SUFFIXES, find_files, user_path
from gscnn_lightning.data.regions import (
    ONLY_BOXES,
    Overlap,
    Region,
    RegionDataModule,
    RegionFrame,
    RegionSource,
    check_named_once,
    checked_polygons,
)
from gscnn_lightning.data.splits import refuse_outside
from gscnn_lightning.errors import DataError

_NO_LABELS = "images without a label file, nothing but background"


class YoloDataModule(RegionDataModule):
    """Images and polygons of YOLO's segmentation format (https://docs.ultralytics.com/datasets/segment/).

    `data.yaml` names the classes and says where the images of each split are: a folder, a list of images in a text
    file, or several of these. The label file of an image is in `labels` in place of the last `images` in its path, and
    has a line `class x1 y1 x2 y2 x3 y3 ...` per object, with shares of width and height. An image without one has
    background only. Polygons are drawn as pycocotools draws them; a line may go along itself to cut a hole.

    Args:
        root: folder of the data.
        data_file: the file that names classes and splits, below `root`.
        background: name of the class of pixels in no polygon, which comes first in the list of classes unless it is
            one of them; null where such pixels are void.
        overlap: what a pixel in several polygons gets: the class of the "smaller" one, by pixels, as YOLO's own
            training has it; of the "later" or "earlier" line; of the one whose class comes last in the list of
            "classes"; or "void" where the classes differ.
        void_classes: names of classes that are void here.
        lists_leave_root: whether images may lie outside of `root`, by ``..``, as absolute paths or through links; else
            they are refused.
        **kwargs: see `SplitDataModule` (splits, hold_out, skip_frames) and `SegmentationDataModule`.

    Raises:
        DataError: `data.yaml` is missing or cannot be used.
        SettingError: settings are of the wrong kind or out of range.
    """

    def __init__(
        self,
        root: str | Path,
        data_file: str = "data.yaml",
        background: str | None = "background",
        overlap: Overlap = "smaller",
        void_classes: Sequence[str] = (),
        lists_leave_root: bool = False,
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        folder = user_path(root, "data.root")
        self.file = user_path(folder / data_file, "data.data_file")
        self._content = _read(self.file)
        self.names = _names(self.file, self._content)
        super().__init__(folder, list(self.names.values()), background, overlap, void_classes, **kwargs)
        self.lists_leave_root = lists_leave_root

    def place(self, name: str) -> object:
        """What `data.yaml` has for a split, None if it has nothing, or for test nothing that is there."""
        given = self._content.get(name)
        places = given if isinstance(given, list) else [given]
        # Exports name a test split whether there is one or not; of the others, `read` says what is wrong.
        is_needed = name in self.splits.get("val", ["val"]) or name in self.splits.get("train", ["train"])
        is_there = given and (is_needed or any(self._path(str(place)).exists() for place in places))
        return given if is_there else None

    def read(self, name: str, split: Split) -> RegionSource:
        """Frames of what `data.yaml` calls `name`.

        Raises:
            DataError: a folder or file is missing or wrong.
        """
        given = self._content.get(name)
        if not given:
            raise DataError(f"{self.file} has no {name}: write the folder of its images, such as {name}: images/{name}")
        images: dict[str, Path] = {}
        for place in given if isinstance(given, list) else [given]:
            for frame, path in self._images(str(place), name).items():
                if images.setdefault(frame, path) != path:
                    raise DataError(f"{path} and {images[frame]} are the same frame twice: remove one of them")
        images = {frame: path for frame, path in images.items() if not self.is_skipped(frame)}
        frames = [self._frame(frame, path) for frame, path in images.items()]
        if frames and split != "predict" and all(_NO_LABELS in frame.left_out for frame in frames):
            raise DataError(
                f"none of the {len(frames)} images of {name} in {self.file} has a label file, such as "
                f"{_label_file(frames[0].image)}: add the folder labels beside images"
            )
        return self.frames_source(frames, split, f"{name} in {self.file}")

    def _path(self, place: str) -> Path:
        """A path in `data.yaml`: it starts from `path` there if there is such a folder, else from the file's own."""
        base = self.file.parent
        stated = base / str(self._content.get("path") or "")
        start = stated if stated.is_dir() else base
        path = user_path(start / place, f"{place} in {self.file}:")
        # Exports say ../train/images where train lies beside data.yaml, and YOLO looks there, too.
        beside = start / place.removeprefix("../")
        return beside if not path.exists() and beside.exists() else path

    def _images(self, place: str, name: str) -> dict[str, Path]:
        path = self._path(place)
        if path.is_dir():
            self._check_inside(path, str(self.file))
            return find_files(path)
        if path.suffix != ".txt" or not path.is_file():
            raise DataError(
                f"{path} is missing, where {self.file} has the images of {name}: correct {name} or path there"
            )
        found: dict[str, Path] = {}
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"cannot read the list {path} ({error}): correct {name} in {self.file}") from error
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            image = path.parent / line.strip()
            if not image.is_file() or image.suffix.lower() not in IMAGE_SUFFIXES:
                raise DataError(f"{path}, line {number}: {image} is no image file; paths start from {path.parent}")
            self._check_inside(image, f"{path}, line {number}")
            found[Path(line.strip().lstrip("./")).with_suffix("").as_posix()] = image
        return found

    def _check_inside(self, path: Path, where: str) -> None:
        if not self.lists_leave_root:
            refuse_outside(path, self.root, where)

    def _frame(self, name: str, image: Path) -> RegionFrame:
        file = _label_file(image)
        if not file.is_file():
            return RegionFrame(name, image, regions=(), where=str(file), left_out=(_NO_LABELS,))
        try:
            lines = file.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"cannot read {file} ({error}): replace the file") from error
        regions, left_out = [], set()
        for number, line in enumerate(lines, start=1):
            where = f"{file}, line {number}"
            if not (columns := line.split()):
                continue
            try:
                index, *numbers = int(columns[0]), *(float(column) for column in columns[1:])
            except ValueError as error:
                raise DataError(f"{where} is {line[:60]!r}: write class x1 y1 x2 y2 x3 y3 ..., as numbers") from error
            if index not in self.names:
                raise DataError(f"{where} has the class {index}, which {self.file} does not name: correct one of them")
            if len(numbers) == 4:
                left_out.add(ONLY_BOXES)
                continue
            polygons, is_short = checked_polygons([numbers], (1, 1), where, reach=0.01)
            if is_short:
                raise DataError(f"{where} has {len(numbers)} coordinates: a polygon has 3 points or more")
            regions.append(Region(self.labels[self.names[index]], polygons))
        return RegionFrame(name, image, None, None, tuple(regions), None, str(file), tuple(sorted(left_out)))


def _label_file(image: Path) -> Path:
    """File of the labels of an image: in labels in place of the last images of its path."""
    parts = list(image.parts)
    places = [index for index, part in enumerate(parts[:-1]) if part == "images"]
    if places:
        parts[places[-1]] = "labels"
    return Path(*parts).with_suffix(".txt")


def _read(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {file} ({error}): correct data_file (--data.data_file FILE)") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise DataError(f"{file} is not valid YAML ({' '.join(str(error).split())[:200]}): correct it") from error
    if not isinstance(content, dict):
        raise DataError(f"{file} holds no keys with values: write path, train, val and names, as YOLO has them")
    return content


def _names(file: Path, content: Mapping[str, Any]) -> dict[int, str]:
    """Names of the classes by index, in order."""
    given = content.get("names")
    names = dict(enumerate(given)) if isinstance(given, list) else given
    if not isinstance(names, dict) or not names or not all(type(index) is int and index >= 0 for index in names):
        raise DataError(f"{file} has {str(given)[:100]!r} for names: write a list, or index: name")
    check_named_once(names.values(), str(file))
    return dict(sorted(names.items()))
