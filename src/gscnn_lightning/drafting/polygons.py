"""Folders of annotations as polygons: JSON of COCO and Label Studio, and YOLO's text files."""

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from gscnn_lightning.data.files import IMAGE_SUFFIXES, walk
from gscnn_lightning.data.label_studio import count_labels, image_names
from gscnn_lightning.data.regions import RegionSource
from gscnn_lightning.drafting.pictures import SPLITS, split_of
from gscnn_lightning.drafting.splits import SHARE
from gscnn_lightning.errors import DataError

_LARGEST = 2 << 30
_HELD_OUT = (
    "nothing says which frames validate: a fifth is held out by their names, always the same (hold_out). If they are "
    "frames of one video, neighbours are in both, and scores too good"
)
_SMALLER = "the smaller one is seen"


@dataclass
class Polygons:
    """A data module for polygons.

    Attributes:
        kind: "COCO", "Label Studio" or "YOLO".
        data_class: name of the data module.
        settings: its arguments.
        names: of the classes.
        objects: number of outlines of each class; empty where they were not counted.
        told: where the splits come from.
        assumed: what was assumed, one sentence each.
        files: texts to write beside the config, by their names.
        overlap: which of several outlines is seen, in words.
    """

    kind: str
    data_class: str
    settings: dict[str, Any]
    names: list[str]
    objects: Counter[str]
    told: str
    assumed: list[str] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    overlap: str = _SMALLER


def find_polygons(root: Path, out: Path) -> Polygons | None:
    """What there is of polygons, None if there is nothing.

    Args:
        root: folder of the data.
        out: folder of the config.

    Raises:
        DataError: there are annotations, of which no config can be made; the message says why.
    """
    coco, label_studio = _json_files(root)
    return _coco(root, coco) or _label_studio(root, label_studio) or _yolo(root, out)


def outside_text(source: RegionSource, number: int = 20) -> str:
    """Share of the pixels that are in no outline, of some frames at most.

    Args:
        source: frames, one at least.
        number: of frames to draw.
    """
    chosen = np.unique(np.linspace(0, len(source) - 1, number).round().astype(int)).tolist()
    maps = [labels for index in chosen if (labels := source.load_labels(index)) is not None]
    outside = sum(int((labels == source.background).sum()) for labels in maps)
    share = 100 * outside / max(1, sum(labels.size for labels in maps))
    return f"{share:.2g} % of the pixels of {len(maps)} training images"


def _json_files(root: Path) -> tuple[dict[Path, dict[str, Any]], dict[Path, list[dict[str, Any]]]]:
    """What JSON files in COCO's format hold, and those that Label Studio exports."""
    coco: dict[Path, dict[str, Any]] = {}
    label_studio: dict[Path, list[dict[str, Any]]] = {}
    for path in sorted(walk(root)):
        if path.suffix.lower() == ".json" and path.is_file() and path.stat().st_size <= _LARGEST:
            with suppress(OSError, ValueError, RecursionError):
                content = json.loads(path.read_bytes())
                if isinstance(content, dict) and all(
                    isinstance(content.get(key), list) for key in ("images", "annotations", "categories")
                ):
                    if _is_of_objects(content):
                        coco[path] = content
                elif isinstance(content, list) and content and all(map(_is_task, content)):
                    label_studio[path] = content
    return coco, label_studio


def _coco(root: Path, found: Mapping[Path, dict[str, Any]]) -> Polygons | None:
    if not found:
        return None
    rows = [row for content in found.values() for row in content["annotations"] if isinstance(row, dict)]
    if not any(row.get("segmentation") for row in rows):
        raise DataError(
            f"{next(iter(found))} has {len(rows)} boxes in COCO's format and no outlines: segmentation needs polygons "
            "or masks (the list segmentation of each annotation)"
        )
    first = next(iter(found))
    names = {row.get("id"): str(row.get("name")) for row in found[first]["categories"] if isinstance(row, dict)}
    objects = Counter(names.get(row.get("category_id"), "?") for row in rows if row.get("segmentation"))
    listed = [names[key] for key in sorted(names, key=lambda key: (not isinstance(key, int), key))]
    folders = {path: _image_folder(root, path, content) for path, content in found.items()}
    settings, told, assumed = _of_files(root, "COCO", folders, "instances")
    return Polygons("COCO", "CocoDataModule", settings, listed, objects, told, assumed)


def _of_files(root: Path, kind: str, folders: Mapping[Path, str], stem: str) -> tuple[dict[str, Any], str, list[str]]:
    """Settings of one file of annotations, or of one per split.

    Args:
        root: folder of the data.
        kind: of the files.
        folders: where the images of each file are, below the root.
        stem: that names of files might begin with, for messages.

    Returns:
        The settings, where the splits come from, and what was assumed.

    Raises:
        DataError: nothing says which file is of which split.
    """
    files = {path: path.relative_to(root).as_posix() for path in folders}
    if len(files) == 1:
        ((path, file),) = files.items()
        settings = {"annotations": _doubled(file), "images": _doubled(folders[path]), "hold_out": SHARE}
        return settings, f"one file, {file}", [_HELD_OUT]
    words: dict[str, tuple[str, str, str]] = {}
    for path, file in files.items():
        split = next((s for part in reversed(Path(file).with_suffix("").parts) if (s := split_of(part)[0])), "")
        if split and split not in words:
            words[split] = (*_with_word(file), folders[path])
    if "train" not in words or len({pattern for pattern, _, _ in words.values()}) > 1:
        raise DataError(
            f"{root} has {len(files)} files in {kind}'s format, and their names do not say which trains: "
            f"{', '.join(files.values())}; call them {stem}_train.json and {stem}_val.json, or name them in a "
            f"config as data/{kind.lower().replace(' ', '_')} has it"
        )
    images = {
        split: folder.replace(word, "{split}", 1) if word else folder for split, (_, word, folder) in words.items()
    }
    if len(set(images.values())) > 1:
        raise DataError(
            f"{root}: the images of the files in {kind}'s format are in {', '.join(f for _, _, f in words.values())}, "
            "which no pattern covers: name the folders like the splits"
        )
    settings = {"annotations": words["train"][0], "images": images["train"]}
    settings["splits"] = {split: words[split][1] for split in SPLITS if split in words}
    if "val" in words:
        return settings, "by files", []
    settings["hold_out"] = SHARE
    return settings, "by files", [_HELD_OUT]


def _is_task(row: object) -> bool:
    """Whether a row is a task of Label Studio, as its exports JSON and JSON-MIN have them."""
    if not isinstance(row, dict):
        return False
    is_task = isinstance(row.get("data"), dict) and isinstance(row.get("annotations"), list)
    return is_task or {"annotation_id", "annotator", "lead_time"} <= set(row)


def _label_studio(root: Path, found: Mapping[Path, list[dict[str, Any]]]) -> Polygons | None:
    if not found:
        return None
    for path, tasks in found.items():
        if not all("annotations" in task for task in tasks):
            raise DataError(f"{path} is an export of Label Studio as JSON-MIN, which lacks sizes: export it as JSON")
    objects = count_labels(task for tasks in found.values() for task in tasks)
    if not objects:
        raise DataError(
            f"{next(iter(found))} is an export of Label Studio without brush strokes and polygons: segmentation needs "
            "them (the tags BrushLabels and PolygonLabels)"
        )
    images: dict[str, Path] = {}
    for path in sorted(walk(root)):
        if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file():
            images.setdefault(path.name, path)
    keys: Counter[str] = Counter()
    places: dict[Path, set[Path]] = {path: set() for path in found}
    for path, tasks in found.items():
        for task in tasks:
            for key, value in task["data"].items():
                names = image_names(value) if isinstance(value, str) else []
                image = next((images[name] for n in names if (name := Path(n).name) in images), None)
                if image is not None:
                    keys[str(key)] += 1
                    places[path].add(image.parent)
        if not places[path]:
            values = [value for value in tasks[0]["data"].values() if isinstance(value, str)]
            values.sort(key=lambda value: Path(image_names(value)[-1]).suffix.lower() not in IMAGE_SUFFIXES)
            shown = values[0][:100] if values else "none"
            raise DataError(
                f"{path} is an export of Label Studio, and its images, such as {shown}, are nowhere in {root}"
            )
    folders = {path: Path(os.path.commonpath(at)).relative_to(root).as_posix() for path, at in places.items()}
    settings, told, assumed = _of_files(root, "Label Studio", folders, "tasks")
    ((key, _),) = keys.most_common(1)
    if key != "image":
        settings["image_key"] = key
    overlap = "the later one is seen, which is on top in the editor"
    return Polygons(
        "Label Studio", "LabelStudioDataModule", settings, sorted(objects), objects, told, assumed, overlap=overlap
    )


def _is_of_objects(content: Mapping[str, Any]) -> bool:
    """Captions and key points come in the same format."""
    return bool(content["images"]) and all(isinstance(row, dict) and "name" in row for row in content["categories"])


def _with_word(file: str) -> tuple[str, str]:
    """Path with {split} in place of the word that tells the split, and that word."""
    parts = Path(file).parts
    for place in reversed(range(len(parts))):
        stem, suffix = (
            (Path(parts[place]).stem, Path(parts[place]).suffix) if place == len(parts) - 1 else (parts[place], "")
        )
        split, template = split_of(stem)
        if split:
            before, _, after = template.partition("*")
            word = stem[len(before) : len(stem) - len(after)]
            # COCO's own files have the year in the word, so that image folders have it, too.
            if (year := after[:4]).isdigit():
                word, after = word + year, after[4:]
            return "/".join([*parts[:place], f"{before}{{split}}{after}{suffix}", *parts[place + 1 :]]), word
    return file, ""


def _image_folder(root: Path, file: Path, content: Mapping[str, Any]) -> str:
    """Folder below the root where the images of a file are.

    Raises:
        DataError: they are nowhere.
    """
    names = [str(row.get("file_name")) for row in content["images"][:20] if isinstance(row, dict)]
    split = next((s for part in reversed(file.with_suffix("").parts) if (s := split_of(part)[0])), "")
    candidates = [
        file.parent,
        *sorted({path.parent for path in walk(root) if path.suffix.lower() in IMAGE_SUFFIXES}),
        root,
    ]
    # Folders above count, too, where names have folders in them.
    candidates += [parent for folder in candidates for parent in folder.parents if parent.is_relative_to(root)]
    best, most = root, (0, False)
    for folder in dict.fromkeys(candidates):
        same = bool(split) and any(split_of(part)[0] == split for part in folder.relative_to(root).parts)
        count = sum((folder / name).is_file() for name in names), same
        if count > most:
            best, most = folder, count
    if not most[0]:
        raise DataError(f"{file} is in COCO's format, and its images, such as {names[0]}, are nowhere in {root}")
    return best.relative_to(root).as_posix()


def _doubled(path: str) -> str:
    return path.replace("{", "{{").replace("}", "}}")


def _yolo(root: Path, out: Path) -> Polygons | None:
    for path in sorted(walk(root), key=lambda path: (len(path.parts), path)):
        if path.suffix.lower() not in (".yaml", ".yml") or not path.is_file() or path.stat().st_size > 1 << 20:
            continue
        with suppress(OSError, ValueError, RecursionError, yaml.YAMLError):
            content = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
            if isinstance(content, dict) and content.get("names") and any(key in content for key in ("train", "val")):
                objects = _outlines(root, path)
                given = content["names"]
                names = list(given.values() if isinstance(given, dict) else given)
                called = Counter({names[i]: n for i, n in objects.items() if i < len(names)})
                settings: dict[str, Any] = {"data_file": path.relative_to(root).as_posix()}
                assumed = []
                if not content.get("val"):
                    settings["hold_out"] = SHARE
                    assumed.append(_HELD_OUT)
                told = f"by {path.relative_to(root)}"
                return Polygons("YOLO", "YoloDataModule", settings, names, called, told, assumed)
    return _yolo_without_file(root, out)


def _yolo_without_file(root: Path, out: Path) -> Polygons | None:
    """Label files beside images, without the file that names classes and splits: it is written."""
    labels = [path for path in sorted(walk(root)) if path.suffix.lower() == ".txt" and "labels" in path.parts[:-1]]
    images = sorted({path.parent for path in walk(root) if path.suffix.lower() in IMAGE_SUFFIXES})
    images = [folder for folder in images if "images" in folder.relative_to(root).parts]
    if not labels or not images or (objects := _outlines(root, labels[0])) is None or not objects:
        return None
    from gscnn_lightning.drafting.names import find_name_files

    most = max(objects)
    listed = next((file.listed for file in find_name_files(root) if len(file.listed) > most), None)
    names = listed or [f"class_{i}" for i in range(most + 1)]
    places: dict[str, list[str]] = {}
    for folder in images:
        relative = folder.relative_to(root)
        split = next((s for part in relative.parts if (s := split_of(part)[0])), "train")
        places.setdefault(split, []).append(relative.as_posix())
    if "train" not in places:
        return None
    content = {"path": str(root), **places, "names": dict(enumerate(names))}
    settings: dict[str, Any] = {"data_file": str((out / "data.yaml").absolute())}
    assumed = [f"there is no data.yaml: {out / 'data.yaml'} has the splits and names"]
    if listed is None:
        assumed.append(f"nothing names the classes: write your names for class_... into {out / 'data.yaml'}")
    if "val" not in places:
        settings["hold_out"] = SHARE
        assumed.append(_HELD_OUT)
    told = "by folders" if len(places) > 1 else "made"
    called = Counter({names[i]: n for i, n in objects.items()})
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    return Polygons("YOLO", "YoloDataModule", settings, list(names), called, told, assumed, {"data.yaml": text})


def _outlines(root: Path, found: Path) -> Counter[int]:
    """Number of outlines by class in all label files.

    Raises:
        DataError: there are boxes only.
    """
    outlines: Counter[int] = Counter()
    boxes = 0
    for path in sorted(walk(root)):
        if path.suffix.lower() != ".txt" or "labels" not in path.parts[:-1] or not path.is_file():
            continue
        with suppress(OSError, ValueError):
            for line in path.read_text(encoding="utf-8-sig").splitlines():
                columns = line.split()
                if len(columns) >= 7 and _are_numbers(columns):
                    outlines[int(columns[0])] += 1
                boxes += len(columns) == 5
    if boxes and not outlines:
        raise DataError(
            f"{found} has labels in YOLO's format of {boxes} boxes and no outlines: segmentation needs polygons "
            "(class x1 y1 x2 y2 x3 y3 ...)"
        )
    return outlines


def _are_numbers(columns: Sequence[str]) -> bool:
    try:
        return columns[0].isdigit() and all(0 <= float(column) <= 1 for column in columns[1:])
    except ValueError:
        return False
