"""Class tables in YAML, or in the file of a data set or tool: which raw values of masks stand for which class."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import yaml

from gscnn_lightning.classes import IGNORE_INDEX, ClassTable
from gscnn_lightning.data.files import UNKNOWN, Bytes, Color, color_table, label_table, user_path
from gscnn_lightning.errors import DataError, SettingError
from gscnn_lightning.score_names import check_class_names
from gscnn_lightning.shipped_configs import find_config

EXAMPLE = """masks: ids
void: [255]
classes:
  - {name: road, color: [128, 64, 128], values: [0]}
  - {name: car, color: [0, 0, 142], values: [1, 2]}"""


@dataclass(frozen=True)
class MaskClasses:
    """A class table and how it is written in masks.

    Attributes:
        classes: names and display colours.
        table: train id of each raw value or colour, for `FileSource`.
    """

    classes: ClassTable
    table: Bytes

    def without(self, names: Sequence[str], setting: str = "void_classes") -> "MaskClasses":
        """The same with some classes turned into void.

        Args:
            names: of the classes.
            setting: that they come from, for the message.

        Raises:
            SettingError: there is no such class, or none is left.
        """
        kept = kept_classes(self.classes.names, names, setting)
        ids = np.arange(256, dtype=np.uint8)
        ids[: len(self.classes)] = IGNORE_INDEX
        ids[kept] = range(len(kept))
        if not names:
            return self
        known = self.classes
        classes = ClassTable(tuple(known.names[i] for i in kept), tuple(known.colors[i] for i in kept))
        return MaskClasses(classes, ids[self.table])


def kept_classes(known: Sequence[str], void: Sequence[str], setting: str = "void_classes") -> list[int]:
    """Places of the classes that are left when some are turned into void.

    Args:
        known: names of all classes.
        void: names of those that become void.
        setting: that these come from, for the message.

    Raises:
        SettingError: there is no such class, or none is left.
    """
    if isinstance(void, str):
        raise SettingError(f"{setting} is {void!r}: give a list of names")
    for name in void:
        if name not in known:
            raise SettingError(f"{setting} names {name!r}, which is no class: there are {', '.join(known)}")
    kept = [index for index, name in enumerate(known) if name not in void]
    if not kept:
        raise SettingError(f"{setting} names all {len(known)} classes: leave one at least")
    return kept


def classes_file(root: Path, classes: str | Path) -> Path:
    """File of a class table: below the folder of the data, in the working directory, or a shipped one by its name.

    Args:
        root: folder of the data.
        classes: the path or name, see ``--data.classes``.

    Raises:
        DataError: there is no such file.
    """
    given = str(user_path(classes, "data.classes"))
    inside = root / given
    try:
        return inside if inside.is_file() else find_config(given, "classes")
    except SettingError as error:
        raise DataError(f"cannot read the class table {given} ({error}): correct --data.classes") from error


def read_classes(path: Path) -> MaskClasses:
    """Class table from a file: YAML, or by its suffix that of a data set or tool.

    `config.json`, or any other `.json`, is Mapillary Vistas' list of labels: ids are places in the list, and labels
    that are not evaluated are void. `labelmap.txt`, or any other `.txt`, is that of CVAT for masks of colours, with
    `name:R,G,B:parts:actions` in each line.

    Keys of YAML files: `masks`, "ids" (default) for masks of numbers or "colors" for masks of RGB colours; `void`, a
    list of raw values without a class, or "others" for all that no class names; `classes`, a list in the order of the
    train ids with `name`, display `color` [R, G, B] and `values`, the raw ids or colours of the class. Without,
    a class has its place in the list as id, or its display colour as colour.

    Raises:
        DataError: the file is missing or is no such table.
    """
    content = {".json": _mapillary, ".txt": _labelmap}.get(path.suffix.lower(), _load)(path)
    _refuse_unknown(path, "table", content, {"masks", "void", "classes"})
    kind, void, rows = content.get("masks", "ids"), content.get("void", []), content.get("classes")
    if kind not in ("ids", "colors"):
        _refuse(path, f"masks is {kind!r}: write ids or colors")
    if not isinstance(rows, list) or not 1 <= len(rows) <= UNKNOWN:
        _refuse(path, f"classes must be a list of 1 to {UNKNOWN} classes")
    names: list[str] = []
    colors: list[Color] = []
    owners: dict[Any, int] = {}
    for train_id, row in enumerate(rows):
        name, color, values = _row(path, train_id, row, kind)
        names.append(name)
        colors.append(color)
        for value in values:
            if value in owners:
                _refuse(
                    path, f"value {value} belongs to both {names[owners[value]]} and {name}: give it to one of them"
                )
            owners[value] = train_id
    if len(set(names)) < len(names):
        _refuse(path, f"class {max(names, key=names.count)!r} is there twice: name it once, with all its values")
    try:
        check_class_names(names)
    except SettingError as error:
        _refuse(path, str(error))
    for value in [] if void == "others" else _values(path, "void", void, kind):
        if value in owners:
            _refuse(path, f"value {value} belongs to both void and {names[owners[value]]}: give it to one of them")
        owners[value] = IGNORE_INDEX
    make: Any = label_table if kind == "ids" else color_table
    others = IGNORE_INDEX if void == "others" else UNKNOWN
    return MaskClasses(ClassTable(tuple(names), tuple(colors)), make(owners, others))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"cannot read the class table {path} ({error}): correct classes (--data.classes FILE)"
        ) from error


def _mapillary(path: Path) -> dict[str, Any]:
    """What `config.json` of Mapillary Vistas says, with the keys of our YAML files."""
    try:
        labels = json.loads(_text(path))["labels"]
        rows = [(label["readable"], label["color"], label["evaluate"]) for label in labels]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        _refuse(
            path,
            f"it is no config.json of Mapillary Vistas, with labels that have readable, color and evaluate "
            f"({type(error).__name__}: {error}): download it again, or write the table in YAML",
        )
    classes = [
        {"name": name, "color": color, "values": [index]}
        for index, (name, color, evaluated) in enumerate(rows)
        if evaluated
    ]
    return {"classes": classes, "void": [index for index, row in enumerate(rows) if not row[2]]}


def _labelmap(path: Path) -> dict[str, Any]:
    """What `labelmap.txt` of CVAT says, with the keys of our YAML files."""
    classes = []
    for number, line in enumerate(_text(path).splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        # Names may have colons, the three columns after them have none.
        name, *others = line.rsplit(":", 3)
        try:
            red, green, blue = (int(part) for part in others[0].split(","))
        except (IndexError, ValueError):
            _refuse(path, f"line {number} is {line[:100]!r}: write name:R,G,B::, as CVAT's Segmentation mask 1.1 does")
        classes.append({"name": name, "color": [red, green, blue]})
    return {"masks": "colors", "classes": classes}


def _load(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(_text(path))
    except yaml.YAMLError as error:
        where = " ".join(str(error).split())
        raise DataError(f"class table {path} is not valid YAML ({where}). An example:\n{EXAMPLE}") from error
    if not isinstance(content, dict):
        _refuse(path, f"it holds {type(content).__name__}, not keys and values")
    return content


def _row(path: Path, train_id: int, row: object, kind: str) -> tuple[str, Color, list[Any]]:
    """Name, display colour and raw values of one class."""
    where = f"class {train_id}"
    if not isinstance(row, Mapping) or "name" not in row or "color" not in row:
        _refuse(path, f"{where} is {row!r}: give it a name and a color")
    if not isinstance(row["name"], str):  # as YAML takes yes, no, null and numbers for something else
        _refuse(path, f"the name of {where} is {row['name']!r}, no text: write it in quotes")
    where = f"class {row['name']!r}"
    _refuse_unknown(path, where, row, {"name", "color", "values"})
    (color,) = _values(path, f"color of {where}", [row["color"]], "colors")
    default = [train_id] if kind == "ids" else [color]
    return row["name"], color, _values(path, f"values of {where}", row.get("values", default), kind)


def _values(path: Path, where: str, values: object, kind: str) -> list[Any]:
    """Raw ids as numbers, or colours as tuples."""
    if not isinstance(values, list):
        _refuse(path, f"{where} is {values!r}: write a list, such as {'[0, 7]' if kind == 'ids' else '[[0, 0, 142]]'}")
    if kind == "ids":
        for value in values:
            if type(value) is not int or not 0 <= value < 1 << 16:
                _refuse(path, f"{where}: {value!r} is no id: ids are whole numbers from 0 to 65535")
        return values
    for value in values:
        if not isinstance(value, list | tuple) or len(value) != 3 or not all(_is_byte(part) for part in value):
            _refuse(path, f"{where}: {value!r} is no colour: write [R, G, B] with numbers from 0 to 255")
    return [tuple(value) for value in values]


def _is_byte(value: object) -> bool:
    return type(value) is int and 0 <= value <= 255


def _refuse_unknown(path: Path, where: str, content: Mapping[Any, Any], known: set[str]) -> None:
    unknown = [key for key in content if key not in known]
    if unknown:
        _refuse(path, f"unknown key {unknown[0]!r} in {where}: the keys are {', '.join(sorted(known))}")


def _refuse(path: Path, message: str) -> NoReturn:
    raise DataError(f"class table {path}: {message}")
