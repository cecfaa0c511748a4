"""Annotations in COCO's JSON: polygons, runs of pixels, crowds."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn

from gscnn_lightning.classes import IGNORE_INDEX
from gscnn_lightning.data.annotations import frame_name, load_json
from gscnn_lightning.data.base import Split
from gscnn_lightning.data.files import find_files, user_path
from gscnn_lightning.data.regions import (
    ONLY_BOXES,
    TOO_SHORT,
    Overlap,
    Region,
    RegionDataModule,
    RegionFrame,
    RegionSource,
    check_named_once,
    checked_polygons,
    is_size,
    unpacked,
)
from gscnn_lightning.data.splits import check_patterns, check_splits, refuse_outside, split_path
from gscnn_lightning.errors import DataError, SettingError

_CROWDS = "crowds left out"


class CocoDataModule(RegionDataModule):
    """Images and annotations in COCO's JSON (https://cocodataset.org/#format-data), as many tools export it.

    A file of annotations per split, and the images that it names in a folder. Segmentations are polygons or runs (RLE),
    compressed or not, drawn as pycocotools draws them; polygons of one annotation are parts of one object, so holes
    are in runs, or in polygons that go around them. Classes are the categories in the order of their ids.

    Args:
        root: folder that all other paths start from.
        annotations: file of a split, {split} standing for train, val, test or predict, or what `splits` has in their
            place. A file without "annotations", or none at all, does for prediction.
        images: folder of the images of a split, where the paths in the file start.
        background: name of the class of pixels in no annotation, which comes first in the list of classes unless it is
            one of the categories; null where such pixels are void.
        overlap: what a pixel in several annotations gets: the class of the "smaller" one, by pixels, so that nothing
            hides what is before it; of the "later" or "earlier" one in the file; of the one whose class comes last in
            the list of "classes"; or "void" where the classes differ.
        crowd: what annotations of crowds (iscrowd) are: of their "class", "void", or "left_out".
        void_classes: names of categories that are void here.
        lists_leave_root: whether images may lie outside of `root`, by ``..``, as absolute paths or through links; else
            such a file is refused.
        **kwargs: see `SplitDataModule` (splits, hold_out, skip_frames) and `SegmentationDataModule`.

    Raises:
        DataError: the file with the categories is missing or cannot be used.
        SettingError: settings are of the wrong kind or out of range.
    """

    def __init__(
        self,
        root: str | Path,
        annotations: str = "annotations/instances_{split}.json",
        images: str = "images/{split}",
        background: str | None = "background",
        overlap: Overlap = "smaller",
        crowd: Literal["class", "void", "left_out"] = "class",
        void_classes: Sequence[str] = (),
        lists_leave_root: bool = False,
        splits: Mapping[str, str | list[str]] | None = None,
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        folder = user_path(root, "data.root")
        if crowd not in ("class", "void", "left_out"):
            raise SettingError(f"crowd must be class, void or left_out, got {crowd!r}")
        check_patterns({"annotations": annotations, "images": images})
        names = check_splits(splits)
        candidates = [
            split_path(folder, annotations, name, "annotations")
            for split in ("train", "val", "test")
            for name in names.get(split, [split])
        ]
        # All splits have the same categories, and one of them may be all there is.
        first = next((path for path in candidates if path.is_file()), candidates[0])
        self._read_last: tuple[Path, dict[str, Any]] | None = None
        self.categories = _categories(first, self._content(first))
        self._categories_from = first
        super().__init__(
            folder, list(self.categories.values()), background, overlap, void_classes, splits=splits, **kwargs
        )
        self.annotations = annotations
        self.images = images
        self.crowd = crowd
        self.lists_leave_root = lists_leave_root

    def place(self, name: str) -> Path | None:
        """File of the annotations of a split, or folder of its images, None if neither is there."""
        file = split_path(self.root, self.annotations, name, "annotations")
        if file.is_file():
            return file
        images = split_path(self.root, self.images, name, "images")
        is_apart = "{split}" in self.images and self.splits.get("predict", ["predict"])[0] == name
        return images if is_apart and images.is_dir() else None

    def read(self, name: str, split: Split) -> RegionSource:
        """Frames of what the data call `name`; for prediction, there need be no annotations.

        Raises:
            DataError: a file is missing or wrong.
        """
        file = split_path(self.root, self.annotations, name, "annotations")
        folder = split_path(self.root, self.images, name, "images")
        if not folder.is_dir():
            raise DataError(
                f"{folder} is missing: create it, or say where the images of a split are (--data.images "
                "'FOLDER/{split}')"
            )
        if split == "predict" and not file.is_file():
            return self.frames_source([RegionFrame(n, path) for n, path in find_files(folder).items()], split, "")
        content = self._content(file)
        categories = _categories(file, content)
        if categories != self.categories:
            differing = set(categories.items()) ^ set(self.categories.items())
            raise DataError(
                f"{file} and {self._categories_from} have different categories, such as {sorted(differing)[0]}: write "
                "the same list, with the same ids, into both"
            )
        # The content is several times as large as what is made of it.
        self._read_last = None
        return self._frames(file, content, folder, split)

    def _content(self, file: Path) -> dict[str, Any]:
        """What is in a file of annotations; the one with the categories is kept until its frames are asked for."""
        if self._read_last is None or self._read_last[0] != file:
            self._read_last = file, read_json(file, "annotations")
        return self._read_last[1]

    def _frames(self, file: Path, content: dict[str, Any], folder: Path, split: Split) -> RegionSource:
        images: dict[Any, tuple[str, tuple[int, int]]] = {}
        names: dict[str, Any] = {}
        for place, image in enumerate(_rows(file, content, "images")):
            try:
                key, name, size = image["id"], image["file_name"], (image["width"], image["height"])
            except KeyError as error:
                raise DataError(
                    f"{file}: image {place} has no {error}: an image has id, file_name, width and height"
                ) from error
            if not isinstance(name, str) or not name or not all(map(is_size, size)):
                raise DataError(f"{file}: image {place} is {name!r} of {size[0]!r}x{size[1]!r}: correct name and size")
            frame = Path(name).with_suffix("").as_posix()
            if key in images or frame in names:
                raise DataError(f"{file}: image {place} ({name}) is there twice, by its id or name: remove one of them")
            images[key], names[frame] = (name, (int(size[0]), int(size[1]))), key
        regions: dict[Any, list[Region]] = {key: [] for key in images}
        left_out: dict[Any, set[str]] = {key: set() for key in images}
        labelled = "annotations" in content
        for place, annotation in enumerate(_rows(file, content, "annotations") if labelled else ()):
            where = f"{file}: annotation {annotation.get('id', f'number {place}')}"
            key, category = annotation.get("image_id"), annotation.get("category_id")
            if key not in images:
                raise DataError(f"{where} is of image {key!r}, which is not among the images: correct image_id")
            if category not in self.categories:
                raise DataError(f"{where} has the category {category!r}, which is none of those there: correct it")
            crowd = annotation.get("iscrowd", 0)
            if crowd and self.crowd == "left_out":
                left_out[key].add(_CROWDS)
                continue
            label = IGNORE_INDEX if crowd and self.crowd == "void" else self.labels[self.categories[category]]
            found, reason = _region(
                annotation.get("segmentation"), label, images[key][1], f"{where} of {images[key][0]}"
            )
            if found is not None:
                regions[key].append(found)
            if reason:
                left_out[key].add(reason)
        frames, missing = [], []
        for key, (name, size) in images.items():
            path = folder / name
            if not self.lists_leave_root:
                refuse_outside(path, self.root, f"{file}: image {name}")
            if self.is_skipped(frame_name(name)):
                continue
            if not path.is_file():
                missing.append(path)
                continue
            kept = tuple(regions[key]) if labelled else None
            at = f"{file}: image {name}"
            frames.append(RegionFrame(frame_name(name), path, None, None, kept, size, at, tuple(sorted(left_out[key]))))
        problems = []
        if missing:
            problems.append(
                f"{len(missing)} of {len(images)} images in {file} are no files, the first is {missing[0]}: add the "
                "missing files, remove them from the list, or say where the images are (--data.images 'FOLDER/{split}')"
            )
        if not labelled and split != "predict":
            problems.append(f"{file} has no annotations: the list of that name is missing")
        known = {frame.name for frame in frames}
        others = [path for name, path in find_files(folder).items() if name not in known and not self.is_skipped(name)]
        source = self.frames_source(frames, split, str(file), problems)
        if others and not missing:
            source.remarks.append(f"{len(others)} images of {folder} are not in {file}, the first is {others[0]}")
        return source


def read_json(file: Path, setting: str) -> dict[str, Any]:
    """Keys and values of a JSON file.

    Args:
        file: the file.
        setting: that says where it is, for messages.

    Raises:
        DataError: it cannot be read, is no JSON, or holds no keys with values.
    """
    content = load_json(file, setting)
    if not isinstance(content, dict):
        raise DataError(f"{file} holds a {type(content).__name__}, not the keys of COCO's format: export it as COCO")
    return content


def _rows(file: Path, content: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    rows = content.get(key)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{file} has no list of {key}, as COCO's format has it: export it as COCO")
    return rows


def _categories(file: Path, content: Mapping[str, Any]) -> dict[int, str]:
    """Names by id, in the order of the ids."""
    found: dict[int, str] = {}
    rows = _rows(file, content, "categories")
    for row in rows:
        if type(row.get("id")) is not int or row["id"] in found:
            raise DataError(f"{file} has a category with the id {row.get('id')!r}: give each a whole number of its own")
        found[row["id"]] = row.get("name")  # type: ignore[assignment]
    if not rows:
        raise DataError(f"{file} has no categories: export it with the classes")
    check_named_once(found.values(), str(file))
    return dict(sorted(found.items()))


def _region(shape: object, label: int, size: tuple[int, int], where: str) -> tuple[Region | None, str]:
    """A segmentation as region, None if there is none, and why something was left out."""
    if not shape:
        return None, ONLY_BOXES
    if isinstance(shape, dict):
        _check_runs(shape, size, where)
        return Region(label, runs=shape), ""
    polygons, some_left_out = checked_polygons(shape, size, where)
    return (Region(label, polygons) if polygons else None), TOO_SHORT if some_left_out else ""


def _check_runs(runs: Mapping[str, Any], size: tuple[int, int], where: str) -> None:
    """Raise unless runs are those of an image of a size."""

    def refuse(what: str) -> NoReturn:
        raise DataError(f"{where} has runs (RLE) {what}: correct or remove them")

    counts, shown = runs.get("counts"), runs.get("size")
    if shown != [size[1], size[0]]:
        refuse(f"of size {shown!r}, and its image has height and width {[size[1], size[0]]}")
    if isinstance(counts, str) and counts.isascii():
        counts = unpacked(counts)
    elif not isinstance(counts, list):
        refuse("without counts, a list of numbers or a text")
    if not all(type(count) is int and count >= 0 for count in counts):
        refuse("with something else than whole numbers in counts")
    # Of too few, pycocotools leaves the rest of the mask to chance.
    if sum(counts) != math.prod(size):
        refuse(f"of {sum(counts)} pixels, and its image has {math.prod(size)}")
