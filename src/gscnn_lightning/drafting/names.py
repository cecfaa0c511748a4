"""Names of classes: in files that lie beside masks, and by the colours of public data sets."""

import csv
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from gscnn_lightning.classes import CAMVID, CITYSCAPES_COLORS, IGNORE_INDEX, ClassTable
from gscnn_lightning.classes import CITYSCAPES as CITYSCAPES_TABLE
from gscnn_lightning.data.files import Color, walk
from gscnn_lightning.errors import SettingError
from gscnn_lightning.score_names import check_class_names
from gscnn_lightning.shipped_configs import CONFIGS

VOID_NAMES = {
    *("void", "ignore", "ignored", "unlabeled", "unlabelled", "unknown", "undefined", "none", "dontcare", "nolabel"),
    *("outofroi", "unlabelledpixel"),
}
"""What classes that are none are called, without spaces and signs."""

_SUFFIXES = (".txt", ".csv", ".tsv", ".json", ".yaml", ".yml", ".names")
_KNOWN = re.compile(r"label|class|name|code|categor|color|colour|legend|palette|data|meta|ontology|config", re.I)
_LARGEST = 1 << 20
_HEADS = {
    "name": ("name", "class", "label", "class_name", "classname", "category", "readable"),
    "value": ("id", "value", "index", "class_id", "label_id", "pixel", "pixel_value", "trainid", "code"),
    "color": ("color", "colour", "rgb", "hex"),
}


@dataclass
class NameFile:
    """Names of classes that a file has.

    Attributes:
        called: for messages: the file, or the data set.
        by_color: names by their colours.
        by_value: names by their ids.
        listed: names in order, without anything else.
    """

    called: str
    by_color: dict[Color, str] = field(default_factory=dict)
    by_value: dict[int, str] = field(default_factory=dict)
    listed: list[str] = field(default_factory=list)


def is_void_name(name: str) -> bool:
    """Whether a class is called like one that is none.

    Example:
        >>> is_void_name("Don't care"), is_void_name("road")
        (True, False)
    """
    return re.sub(r"[^a-z]", "", name.lower()) in VOID_NAMES


def can_be_names(names: Iterable[str]) -> bool:
    """Whether a class table takes the names."""
    try:
        check_class_names(list(names))
    except SettingError:
        return False
    return True


def find_name_files(root: Path) -> list[NameFile]:
    """Files below a folder, two folders deep at most, that have names of classes; what is not understood is left out.

    Args:
        root: the folder.
    """
    found = []
    for path in sorted(walk(root), key=lambda path: (len(path.parts), path)):
        inner = path.relative_to(root).parts
        if len(inner) > 3 or path.suffix.lower() not in _SUFFIXES or not _KNOWN.search(path.stem):
            continue
        with suppress(OSError, ValueError, RecursionError, TypeError, LookupError, yaml.YAMLError, csv.Error):
            if path.is_file() and path.stat().st_size <= _LARGEST:
                names = _read(path, "/".join(inner))
                if names.by_color or names.by_value or names.listed:
                    found.append(names)
    return found


def _read(path: Path, called: str) -> NameFile:
    text = path.read_text(encoding="utf-8-sig")
    suffix = path.suffix.lower()
    if suffix == ".json":
        return _structured(json.loads(text), called)
    if suffix in (".yaml", ".yml"):
        return _structured(yaml.safe_load(text), called)
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith(("#", "//"))]
    if suffix in (".csv", ".tsv"):
        return _table(list(csv.reader(lines, delimiter="\t" if suffix == ".tsv" else ",")), called)
    return _lines(lines, called)


def _structured(content: Any, called: str) -> NameFile:  # noqa: ANN401
    """JSON or YAML: names by ids, a list of names, or of keys with values; possibly below names, classes or labels."""
    result = NameFile(called)
    for key in ("names", "classes", "labels", "categories"):
        if isinstance(content, dict) and isinstance(content.get(key), list | dict):
            content = content[key]
            break
    if isinstance(content, dict):
        for key, value in content.items():
            number, text = (value, key) if isinstance(value, int) else (key, value)
            color = _color(value) or _color(key)
            if color is not None:
                result.by_color[color] = str(key if _color(value) else value)
            elif isinstance(text, str) and str(number).isdigit():
                result.by_value[int(number)] = text
    elif isinstance(content, list) and all(isinstance(row, str) for row in content):
        result.listed = list(content)
    elif isinstance(content, list):
        for row in content:
            _add_row(result, {str(key).lower(): value for key, value in row.items()})
    return result


def _add_row(result: NameFile, row: Mapping[str, Any]) -> None:
    name = next((str(row[head]) for head in _HEADS["name"] if row.get(head) not in (None, "")), None)
    if name is None:
        return
    color = next((found for head in _HEADS["color"] if (found := _color(row.get(head)))), None)
    if color is None:
        color = next((c for keys in (("r", "g", "b"), ("red", "green", "blue")) if (c := _channels(row, keys))), None)
    if color is not None:
        result.by_color[color] = name
    value = next((row[head] for head in _HEADS["value"] if str(row.get(head, "")).strip().isdigit()), None)
    if value is not None:
        result.by_value[int(value)] = name
    result.listed.append(name)


def _channels(row: Mapping[str, Any], keys: Sequence[str]) -> Color | None:
    return _color([row[key] for key in keys]) if all(key in row for key in keys) else None


def _color(value: object) -> Color | None:
    """A colour from three numbers, or as they are written: (1, 2, 3), 1 2 3, #010203."""
    if isinstance(value, str):
        if found := re.fullmatch(r"#?([0-9a-fA-F]{2})([0-9a-fA-F]{2})([0-9a-fA-F]{2})", value.strip()):
            return tuple(int(part, 16) for part in found.groups())  # type: ignore[return-value]
        value = re.findall(r"\d+", value) if re.fullmatch(r"[\s\d,;\[\]()]+", value) else None
    if not isinstance(value, list | tuple) or len(value) != 3 or not all(str(part).strip().isdigit() for part in value):
        return None
    red, green, blue = (int(part) for part in value)
    return (red, green, blue) if max(red, green, blue) < 256 else None


def _table(rows: list[list[str]], called: str) -> NameFile:
    """CSV with a heading, or without one and then name and colour or id."""
    result = NameFile(called)
    heads = [cell.strip().lower() for cell in rows[0]]
    if any(head in _HEADS["name"] for head in heads):
        for row in rows[1:]:
            _add_row(result, dict(zip(heads, (cell.strip() for cell in row), strict=False)))
        return result
    return _lines([" ".join(row) for row in rows], called)


def _lines(lines: Sequence[str], called: str) -> NameFile:
    """Text: a name per line, with a colour or an id before or behind it, or as CVAT has it, name:R,G,B::."""
    result = NameFile(called)
    for line in lines:
        if found := re.fullmatch(r"(.*?):(\d+,\d+,\d+):[^:]*:[^:]*", line):
            name, color = found[1], _color(found[2])
        elif found := re.fullmatch(r"(\d+)[\s,;]+(\d+)[\s,;]+(\d+)[\s,;:]+(\D.*)", line):
            name, color = found[4], _color(found.groups()[:3])
        elif found := re.fullmatch(r"(.*?\D)[\s,;:]+(\d+)[\s,;]+(\d+)[\s,;]+(\d+)", line):
            name, color = found[1], _color(found.groups()[1:])
        elif (found := re.fullmatch(r"(\d+)[\s,;:=]+(\D.*)", line)) and int(found[1]) < 1 << 16:
            result.by_value[int(found[1])] = found[2].strip()
            continue
        elif (found := re.fullmatch(r"([A-Za-z].*?)[\s,;:=]+(\d+)", line)) and int(found[2]) < 1 << 16:
            result.by_value[int(found[2])] = found[1].strip()
            continue
        else:
            result.listed.append(line)
            continue
        if color is not None:
            result.by_color[color] = name.strip(" ,;:\t")
    # A list of frames has paths; a list of classes has not.
    if len(result.listed) > 254 or any(
        "/" in name or re.search(r"\.(png|jpe?g|tiff?)$", name) for name in result.listed
    ):
        result.listed = []
    if result.by_color:
        result.listed = []
    return result


# Brostow et al., Semantic object classes in video: the 32 labels of CamVid, with their published colours.
_CAMVID_32 = """
64 128 64 Animal, 192 0 128 Archway, 0 128 192 Bicyclist, 0 128 64 Bridge, 128 0 0 Building, 64 0 128 Car,
64 0 192 CartLuggagePram, 192 128 64 Child, 192 192 128 Column_Pole, 64 64 128 Fence, 128 0 192 LaneMkgsDriv,
192 0 64 LaneMkgsNonDriv, 128 128 64 Misc_Text, 192 0 192 MotorcycleScooter, 128 64 64 OtherMoving,
64 192 128 ParkingBlock, 64 64 0 Pedestrian, 128 64 128 Road, 128 128 192 RoadShoulder, 0 0 192 Sidewalk,
192 128 128 SignSymbol, 128 128 128 Sky, 64 128 192 SUVPickupTruck, 0 0 64 TrafficCone, 0 64 64 TrafficLight,
192 64 128 Train, 128 128 0 Tree, 192 128 192 Truck_Bus, 64 0 64 Tunnel, 192 192 0 VegetationMisc, 0 0 0 void,
64 192 0 Wall
"""


def are_telling(colors: Iterable[Color]) -> bool:
    """Whether colours tell a data set: three at least, and two that are not among the first of Pascal VOC's colour map.

    Many tools paint classes of any kind with that map.
    """
    different = set(colors) - {(0, 0, 0)}
    return len(different) >= 3 and len(different - {_voc_color(index) for index in range(22)}) >= 2


def known_colors() -> list[NameFile]:
    """Names by colours of public data sets; those of void are called so."""
    tables = [
        NameFile("Cityscapes", _with_void(CITYSCAPES_TABLE, CITYSCAPES_COLORS)),
        NameFile("CamVid with 11 classes", {(0, 0, 0): "void", **dict(zip(CAMVID.colors, CAMVID.names, strict=True))}),
        NameFile("CamVid with 32 classes", _lines([r.strip() for r in _CAMVID_32.split(",")], "").by_color),
    ]
    for path in sorted((CONFIGS / "classes").glob("*.yaml")):
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        rows = content["classes"]
        if len({tuple(row["color"]) for row in rows}) == len(rows):
            tables.append(NameFile(path.stem, {tuple(row["color"]): row["name"] for row in rows}))
    return tables


def _with_void(table: ClassTable, train_ids: Mapping[Color, int]) -> dict[Color, str]:
    return {c: "void" if label == IGNORE_INDEX else table.names[label] for c, label in train_ids.items()}


def _voc_color(index: int) -> Color:
    """Colour of an index in the colour map of Pascal VOC: its bits, spread over the three channels.

    Source: Everingham et al., The PASCAL Visual Object Classes Challenge, VOClabelcolormap of its development kit.

    Example:
        >>> _voc_color(1), _voc_color(15)
        ((128, 0, 0), (192, 128, 128))
    """
    color = [0, 0, 0]
    for place in range(8):
        for channel in range(3):
            color[channel] |= ((index >> (3 * place + channel)) & 1) << (7 - place)
    return (color[0], color[1], color[2])
