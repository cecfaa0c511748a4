"""Brush strokes and polygons in the JSON that Label Studio exports."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
import numpy.typing as npt

from gscnn_lightning.data.annotations import frame_name, load_json
from gscnn_lightning.data.base import Split
from gscnn_lightning.data.files import find_files, user_path
from gscnn_lightning.data.regions import (
    TOO_SHORT,
    Overlap,
    Region,
    RegionDataModule,
    RegionFrame,
    RegionSource,
    check_named_once,
    checked_polygons,
    coco_masks,
    is_size,
)
from gscnn_lightning.data.splits import check_patterns, check_splits, split_path
from gscnn_lightning.errors import DataError

_OTHER_SHAPES = "regions that are neither brush strokes nor polygons left out"
_OTHER_ANNOTATIONS = "further annotations of the same task left out"
_NO_ANNOTATION = "tasks without an annotation left out"
_LABELS = ("brushlabels", "polygonlabels", "labels")
_MOST_PIXELS = 180_000_000


class LabelStudioDataModule(RegionDataModule):
    """Images and the JSON export of Label Studio (https://labelstud.io/guide/export), with brush strokes and polygons.

    This export, unlike that of PNG masks, says which image a mask belongs to. Images are looked for by the path or the
    name that the task has, with and without the random characters that an upload puts in front. Of several annotations
    of a task, the one marked as ground truth is taken, else the first that was not cancelled. Classes are the labels in
    alphabetical order.

    Args:
        root: folder that all other paths start from.
        annotations: exported file, with {split} in it where there is one per split, see `splits`; else `hold_out` makes
            a validation split.
        images: folder of the images; may have {split} in it, too.
        image_key: which of the task's data is the image, as in the value of the Image tag ("$image").
        classes: names of the labels in the order that the classes are to have; by default all that there are.
        background: name of the class of pixels in no region, which comes first in the list of classes unless it is one
            of the labels; null where such pixels are void.
        overlap: what a pixel in several regions gets: the class of the "later" one, which is on top in the editor, or
            of the "earlier" one; of the "smaller" one, by pixels; of the one whose class comes last in the list of
            "classes"; or "void" where the classes differ.
        void_classes: names of labels that are void here.
        **kwargs: see `SplitDataModule` (splits, hold_out, skip_frames) and `SegmentationDataModule`.

    Raises:
        DataError: an export is missing or cannot be used.
        SettingError: settings are of the wrong kind or out of range.
    """

    def __init__(
        self,
        root: str | Path,
        annotations: str = "result.json",
        images: str = "images",
        image_key: str = "image",
        classes: Sequence[str] | None = None,
        background: str | None = "background",
        overlap: Overlap = "later",
        void_classes: Sequence[str] = (),
        splits: Mapping[str, str | list[str]] | None = None,
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        folder = user_path(root, "data.root")
        check_patterns({"annotations": annotations, "images": images})
        named = check_splits(splits)
        files = {
            split_path(folder, annotations, name, "annotations")
            for split in ("train", "val")
            for name in named.get(split, [split])
        }
        present = sorted(file for file in files if file.is_file())
        tasks = [task for file in present or sorted(files)[:1] for task in _tasks(file)]
        names = list(classes) if classes is not None else sorted(count_labels(tasks))
        if not names:
            raise DataError(
                f"{(present or sorted(files))[0]} has no labelled region: export a project with annotations"
            )
        check_named_once(names, "classes" if classes is not None else str(present[0]))
        super().__init__(folder, names, background, overlap, void_classes, splits=splits, **kwargs)
        self.annotations = annotations
        self.images = images
        self.image_key = image_key

    def place(self, name: str) -> Path | None:
        """The export of a split, None if it is not there."""
        file = split_path(self.root, self.annotations, name, "annotations")
        return file if file.is_file() else None

    def read(self, name: str, split: Split) -> RegionSource:
        """Frames of an export.

        Raises:
            DataError: a file is missing or wrong.
        """
        file = split_path(self.root, self.annotations, name, "annotations")
        folder = split_path(self.root, self.images, name, "images")
        tasks = _tasks(file)
        if not folder.is_dir():
            raise DataError(f"{folder} is missing: put the images there, or say where they are (--data.images FOLDER)")
        there = {path.relative_to(folder).as_posix(): path for path in find_files(folder).values()}
        by_name = {path.name: path for path in there.values()}
        frames: dict[str, RegionFrame] = {}
        missing = []
        without = 0
        for task in tasks:
            where = f"{file}: task {task.get('id')}"
            image = self._image(task, where)
            path = next(
                (found for n in image_names(image) if (found := there.get(n) or by_name.get(Path(n).name))), None
            )
            if path is None:
                missing.append(f"{image} ({where})")
                continue
            frame = frame_name(path.relative_to(folder).as_posix())
            if self.is_skipped(frame):
                continue
            if frame in frames:
                raise DataError(f"{where} has the image {path}, as an earlier task has: export each image once")
            annotation, left_out = _annotation(task, where)
            if annotation is None:
                without += 1
                continue
            frames[frame] = self._frame(frame, path, annotation, where, left_out)
        problems = []
        if missing:
            problems.append(
                f"{len(missing)} of {len(tasks)} images in {file} are not in {folder}, the first is {missing[0]}: add "
                "the missing files, or say where the images are (--data.images FOLDER)"
            )
        source = self.frames_source(list(frames.values()), split, str(file), problems)
        if without:
            source.remarks.append(f"{_NO_ANNOTATION}: {without} of {len(tasks)} in {file}")
        return source

    def _image(self, task: Mapping[str, Any], where: str) -> str:
        data = task.get("data")
        if not isinstance(data, dict):
            raise DataError(f"{where} has no data: export the project as JSON, not as JSON-MIN or another format")
        image = data.get(self.image_key)
        if not isinstance(image, str) or not image:
            raise DataError(
                f"{where} has no {self.image_key} among its data, which are {', '.join(map(str, data))}: name the "
                "image (--data.image_key NAME)"
            )
        return image

    def _frame(
        self, name: str, path: Path, annotation: Mapping[str, Any], where: str, left_out: set[str]
    ) -> RegionFrame:
        regions: list[Region] = []
        sizes = set()
        for place, result in enumerate(annotation.get("result") or ()):
            at = f"{where}, region {result.get('id', place)}"
            value = result.get("value")
            labels = _labels_of(value)
            if not isinstance(value, dict) or not labels:
                if result.get("type") not in ("brush", "polygon"):  # these come once more, with a label
                    left_out.add(_OTHER_SHAPES)
                continue
            if "rle" not in value and "points" not in value:
                left_out.add(_OTHER_SHAPES)
                continue
            if len(labels) > 1 or labels[0] not in self.labels:
                raise DataError(
                    f"{at} is labelled {', '.join(map(str, labels))}: give it one label, one of the classes"
                )
            size = (result.get("original_width"), result.get("original_height"))
            if not all(map(is_size, size)) or math.prod(size) > _MOST_PIXELS:
                raise DataError(
                    f"{at} is of an image of {size[0]!r}x{size[1]!r} pixels: correct original_width and height"
                )
            if result.get("image_rotation", 0) not in (0, None):
                raise DataError(
                    f"{at} was drawn on an image turned by {result['image_rotation']} degrees: turn the file"
                )
            width, height = (int(number) for number in size)
            sizes.add((width, height))
            label = self.labels[labels[0]]
            if "rle" in value:
                alpha = decoded_strokes(value["rle"], width, height, at)
                encoded = coco_masks().encode(np.asfortranarray(alpha > 0, np.uint8))
                regions.append(Region(label, runs={**encoded, "counts": encoded["counts"].decode("ascii")}))
                continue
            polygons, is_short = checked_polygons([_pixels(value["points"], width, height, at)], (width, height), at)
            if is_short:
                left_out.add(TOO_SHORT)
            else:
                regions.append(Region(label, polygons))
        if len(sizes) > 1:
            raise DataError(f"{where} has regions of images of different sizes, {sorted(sizes)}: annotate one image")
        # An image without regions has no size in the export; nothing in it depends on one.
        size_there = next(iter(sizes), None)
        return RegionFrame(name, path, None, None, tuple(regions), size_there, where, tuple(sorted(left_out)))


def decoded_strokes(data: object, width: int, height: int, where: str) -> npt.NDArray[np.uint8]:
    """Opacity (H, W) uint8 of brush strokes, which Label Studio packs as the pixels of an RGBA picture.

    A stream of bits: the number of values (32 bits), their length less 1 (5), four lengths of runs less 1 (4 each);
    then runs: whether it is of one value (1), which of the four lengths (2), its number of values less 1, the value or
    values. It is that of https://github.com/thi-ng/umbrella, package rle-pack.

    Args:
        data: the bytes, as numbers.
        width: of the picture.
        height: of the picture.
        where: file and place in it, for messages.

    Raises:
        DataError: they are no such stream, or of another size.
    """
    try:
        packed = bytes(data if isinstance(data, list) else None)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise DataError(f"{where} has brush strokes (rle) that are no list of bytes ({error}): export again") from error
    at = 0

    def read(bits: int) -> int:
        nonlocal at
        end = at + bits
        last = -(-end // 8)
        if last > len(packed):
            raise DataError(f"{where} has brush strokes (rle) that end after {len(packed)} bytes: export again")
        value = int.from_bytes(packed[at // 8 : last], "big") >> (8 * last - end)
        at = end
        return value & ((1 << bits) - 1)

    number = read(32)
    if number != width * height * 4:
        raise DataError(
            f"{where} has brush strokes (rle) of {number} values, and {width}x{height} pixels have "
            f"{width * height * 4}: export again"
        )
    bits = read(5) + 1
    lengths = [read(4) + 1 for _ in range(4)]
    values = np.zeros(number, np.uint8)
    start = 0
    while start < number:
        is_run = read(1)
        stop = start + 1 + read(lengths[read(2)])
        if stop > number:
            raise DataError(f"{where} has brush strokes (rle) with a run beyond their end: export again")
        if is_run:
            values[start:stop] = read(bits) & 255
        else:
            values[start:stop] = [read(bits) & 255 for _ in range(start, stop)]
        start = stop
    return values.reshape(height, width, 4)[..., 3]


def _tasks(file: Path) -> list[dict[str, Any]]:
    content = load_json(file, "annotations")
    if not isinstance(content, list) or not content or not all(isinstance(task, dict) for task in content):
        raise DataError(f"{file} is no list of tasks: export the project from Label Studio as JSON")
    return content


def _annotation(task: Mapping[str, Any], where: str) -> tuple[dict[str, Any] | None, set[str]]:
    """The annotation of a task that counts, None if there is none, and what was left out."""
    found = task.get("annotations")
    if not isinstance(found, list) or not all(isinstance(annotation, dict) for annotation in found):
        raise DataError(f"{where} has no annotations: export the project as JSON, not as JSON-MIN or another format")
    valid = [annotation for annotation in found if not annotation.get("was_cancelled")]
    chosen = next((annotation for annotation in valid if annotation.get("ground_truth")), next(iter(valid), None))
    results = (chosen or {}).get("result") or []
    if not isinstance(results, list) or not all(isinstance(result, dict) for result in results):
        raise DataError(f"{where} has an annotation whose result is no list of regions: export again")
    return chosen, {_OTHER_ANNOTATIONS} if len(valid) > 1 else set()


def count_labels(tasks: Iterable[Mapping[str, Any]]) -> Counter[str]:
    """Number of brush strokes and polygons of each label, in all annotations of all tasks of an export."""
    found: Counter[str] = Counter()
    for task in tasks:
        for annotation in task.get("annotations") or ():
            for result in annotation.get("result") or ():
                value = result.get("value") if isinstance(result, dict) else None
                if isinstance(value, dict) and ("rle" in value or "points" in value):
                    found.update(str(label) for label in _labels_of(value))
    return found


def _labels_of(value: object) -> list[Any]:
    if not isinstance(value, dict):
        return []
    labels: Any = next((value[key] for key in _LABELS if value.get(key)), [])
    return labels if isinstance(labels, list) else [labels]


def _pixels(points: object, width: int, height: int, where: str) -> list[float]:
    """Corners in percent as x and y in pixels, in turns."""
    try:
        corners = np.array(points, np.float64).reshape(-1, 2)
    except (ValueError, TypeError) as error:
        raise DataError(
            f"{where} has points {str(points)[:80]}: write [x, y] in percent of width and height"
        ) from error
    return (corners * (width / 100, height / 100)).ravel().tolist()


def image_names(image: str) -> list[str]:
    """Where the image of a task may be, by its address: the path in a local storage, the name, that of the upload.

    Example:
        >>> image_names("/data/upload/1/0a1b2c3d-street%201.png")
        ['data/upload/1/0a1b2c3d-street 1.png', '0a1b2c3d-street 1.png', 'street 1.png']
    """
    parts = urlsplit(image)
    local = parse_qs(parts.query).get("d", [None])[0] if parts.path.rstrip("/").endswith("local-files") else None
    path = local or unquote(parts.path)
    name = PurePosixPath(path).name
    uploaded = name.partition("-")
    is_upload = len(uploaded[0]) == 8 and all(character in "0123456789abcdef" for character in uploaded[0])
    return [path.lstrip("/"), name, *([uploaded[2]] if is_upload and uploaded[2] else [])]
