"""What predictions are measured against: frames with their labels, and what the labels are called elsewhere."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gscnn_lightning.boundaries import label_boundaries
from gscnn_lightning.classes import CITYSCAPES, ClassTable
from gscnn_lightning.data.base import SegmentationDataModule
from gscnn_lightning.data.cityscapes import FROM_ID, FROM_TRAIN_ID, instance_map
from gscnn_lightning.data.files import LABEL_SUFFIXES, FileSource, Frame, find_files, user_path
from gscnn_lightning.data.mask_classes import read_classes
from gscnn_lightning.data.source import Source
from gscnn_lightning.errors import DataError
from gscnn_lightning.shipped_configs import find_config

Bytes = npt.NDArray[np.uint8]

_OFFICIAL = re.compile(r"_(?:[A-Za-z]+_)?label(?:Train)?Ids$")
_OTHERS = re.compile(r"_(?:instance(?:Train)?Ids|color|polygons)$")


@dataclass(frozen=True)
class Truth:
    """Frames and their labels.

    Attributes:
        source: the frames.
        classes: names and display colours.
        table: train id of each raw value (65536) or colour (2^24) of the label maps; None if they have train ids.
        boundaries: makes boundary maps of label maps (H, W).
        ignore_index: label of void pixels.
    """

    source: Source
    classes: ClassTable
    table: Bytes | None
    boundaries: Callable[[Any], Any]
    ignore_index: int = 255

    def names(self) -> list[str]:
        """Names of all frames."""
        return [self.source.name(index) for index in range(len(self.source))]

    def file_names(self, index: int) -> list[str]:
        """What a prediction of a frame may be called: as the frame, its image or its labels, without suffix.

        Of a frame in folders also with their names before its own, as programs write that have one folder for all.
        """
        name = self.source.name(index)
        names = [name, *(name.replace("/", between) for between in ("_", "__", "-") if "/" in name)]
        if isinstance(self.source, FileSource):
            frame = self.source.frames[index]
            names += [path.stem for path in (frame.image, frame.labels) if path is not None]
        return names


def truth_of_data(data: SegmentationDataModule, split: str = "test") -> Truth:
    """The labels of a split of a data module, the frames that ``gscnn-fit test`` (or validate) scores.

    Args:
        data: the module.
        split: "val" or "test".

    Raises:
        DataError: the data are missing or cannot be used.
    """
    source = data.checked_source("val" if split == "val" else "test")
    classes = ClassTable(tuple(data.class_names), tuple((r, g, b) for r, g, b in data.class_colors))
    table = FROM_ID if classes.names == CITYSCAPES.names else getattr(source, "table", None)
    return Truth(source, classes, table, data.boundaries, data.ignore_index)


def truth_of_folder(labels: Path, classes: str) -> Truth:
    """The label maps of a folder, whatever folders are in it.

    Where there are official names, ``*_labelIds`` or else ``*_labelTrainIds``, only these are label maps; instance maps
    beside all of them are used for the Cityscapes classes.

    Args:
        labels: the folder.
        classes: class table, see `mask_classes.read_classes`: a file, or the name of a shipped one.

    Raises:
        DataError: the folder or the table cannot be used.
    """
    folder = user_path(labels, "--labels")
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder: give the folder of the label maps (--labels FOLDER)")
    mask_classes = read_classes(find_config(str(user_path(classes, "--classes")), "classes"))
    found = {name: path for name, path in find_files(folder, LABEL_SUFFIXES).items() if not _OTHERS.search(name)}
    official = {name: path for name, path in found.items() if _OFFICIAL.search(name)}
    ids = {name: path for name, path in official.items() if name.endswith("Ids") and not name.endswith("TrainIds")}
    is_cityscapes = mask_classes.classes.names == CITYSCAPES.names
    chosen = ids or official or found
    if not chosen:
        raise DataError(f"no label maps in {folder}: PNG, BMP, TIFF or PGM files are looked for (--labels FOLDER)")
    table = FROM_TRAIN_ID if is_cityscapes and official and not ids else mask_classes.table
    frames = [Frame(_OFFICIAL.sub("", name), path, path) for name, path in chosen.items()]
    source = FileSource(frames, table)
    if is_cityscapes:
        instances = [instance_map(frame) for frame in frames]
        if all(path.is_file() and path != frame.labels for path, frame in zip(instances, frames, strict=True)):
            source.frames = [replace(frame, instances=path) for frame, path in zip(frames, instances, strict=True)]
    return Truth(source, mask_classes.classes, mask_classes.table, label_boundaries)
