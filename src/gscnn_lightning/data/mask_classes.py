"""Class tables in YAML: which raw values of a user's masks stand for which class."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import yaml

from gscnn_lightning.classes import IGNORE_INDEX, ClassTable
from gscnn_lightning.data.files import UNKNOWN, Bytes, Color, color_table, label_table
from gscnn_lightning.errors import DataError, SettingError
from gscnn_lightning.score_names import check_class_names

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


def read_classes(path: Path) -> MaskClasses:
    """Class table from a YAML file.

    Keys: `masks`, "ids" (default) for masks of numbers or "colors" for masks of RGB colours; `void`, a list of raw
    values without a class, or "others" for all that no class names; `classes`, a list in the order of the train ids
    with `name`, display `color` [R, G, B] and `values`, the raw ids or colours of the class. Without `values`, a class
    has its place in the list as id, or its display colour as colour.

    Raises:
        DataError: the file is missing or is no such table.
    """
    content = _load(path)
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


def _load(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"cannot read the class table {path} ({error}): correct classes (--data.classes FILE)"
        ) from error
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
