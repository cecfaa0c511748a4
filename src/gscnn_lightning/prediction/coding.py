"""Predicted labels as masks that a training takes: the coding of a class table, and the table of train ids."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gscnn_lightning.classes import IGNORE_INDEX
from gscnn_lightning.data.mask_classes import read_classes
from gscnn_lightning.errors import SettingError
from gscnn_lightning.shipped_configs import find_config

TABLE = "classes.yaml"
"""Name of the class table in a folder of predictions."""

_COLORS = 1 << 24


class Coding:
    """How a class table writes classes and void in masks: of several values of a class, the smallest is taken.

    Args:
        given: class table, a file or the name of a shipped one.
        class_names: K names of the classes that are written.

    Raises:
        SettingError: there is no such table, its classes are others, or it has no value for void.
    """

    def __init__(self, given: str, class_names: Sequence[str]) -> None:
        path = find_config(given, "classes")
        mask_classes = read_classes(path)
        names = mask_classes.classes.names
        if names != tuple(class_names):
            other = next((pair for pair in zip(names, class_names, strict=False) if pair[0] != pair[1]), None)
            counts = f"{len(names)} classes and not the {len(class_names)}"
            told = counts if other is None else f"{other[0]!r} for the {other[1]!r}"
            raise SettingError(f"class table {path} has {told} of the checkpoint: give the one of its training")
        table = mask_classes.table
        self.path = path
        self.is_colored = len(table) == _COLORS
        self._values = np.zeros(256, np.uint32)
        for train_id in (*range(len(names)), IGNORE_INDEX):
            values = np.flatnonzero(table == train_id)
            if not len(values):
                raise SettingError(
                    f"class table {path} has no value for {'void' if train_id == IGNORE_INDEX else names[train_id]}: "
                    "name one, such as void: [255]"
                )
            is_usual = train_id == IGNORE_INDEX and not self.is_colored and table[IGNORE_INDEX] == IGNORE_INDEX
            self._values[train_id] = IGNORE_INDEX if is_usual else values[0]

    def raw(self, labels: npt.NDArray[np.integer]) -> npt.NDArray[Any]:
        """Values of train ids: (H, W) uint8 or uint16, or (H, W, 3) uint8 RGB.

        Args:
            labels: (H, W) train ids, 255 for void.
        """
        values = self._values[labels]
        if self.is_colored:
            return np.stack([values >> 16, values >> 8 & 255, values & 255], axis=-1).astype(np.uint8)
        return values.astype(np.uint8 if self._values.max() < 256 else np.uint16)


def table_text(class_names: Sequence[str], class_colors: Sequence[Sequence[int]]) -> str:
    """Class table of masks of train ids, in YAML.

    Args:
        class_names: K names.
        class_colors: K RGB colours.

    Example:
        >>> print(table_text(["road"], [(128, 64, 128)]), end="")
        masks: ids
        void: [255] # where the network was not sure
        classes:
          - {name: "road", color: [128, 64, 128], values: [0]}
    """
    rows = []
    for index, (name, color) in enumerate(zip(class_names, class_colors, strict=True)):
        quoted, parts = json.dumps(name, ensure_ascii=False), [int(part) for part in color]
        rows.append(f"  - {{name: {quoted}, color: {parts}, values: [{index}]}}")
    return "\n".join(["masks: ids", f"void: [{IGNORE_INDEX}] # where the network was not sure", "classes:", *rows, ""])


def write_table(folder: Path, coding: Coding | None, names: Sequence[str], colors: Sequence[Sequence[int]]) -> None:
    """Write the class table of the masks in a folder, unless the very same is there.

    Args:
        folder: where masks are written to.
        coding: of the masks, None for train ids.
        names: of the classes.
        colors: of the classes.

    Raises:
        SettingError: there is another one.
    """
    text = table_text(names, colors) if coding is None else coding.path.read_text(encoding="utf-8-sig")
    # Tables of data sets and tools are told by their suffix.
    path = folder / (TABLE if coding is None else Path(TABLE).with_suffix(coding.path.suffix))
    if path.exists() and path.read_text(encoding="utf-8") != text:
        raise SettingError(f"{path} is another class table than that of these masks: give another --out, or remove it")
    path.write_text(text, encoding="utf-8")
