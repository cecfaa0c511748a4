"""What masks hold, and the class table that follows from it."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from gscnn_lightning.classes import colors_of
from gscnn_lightning.data.files import UNKNOWN, Color
from gscnn_lightning.data.pictures import look, read_map
from gscnn_lightning.drafting.names import NameFile, are_telling, can_be_names, is_void_name, known_colors
from gscnn_lightning.drafting.pictures import packed
from gscnn_lightning.errors import DataError

Value = int | Color

# Below this share of the pixels, colours that nobody has named come from smooth resizing.
_RARE = 5e-4
_MANY = 40
_LITTLE = 0.05


@dataclass
class Counts:
    """What a set of masks holds.

    Attributes:
        colored: whether the values are colours, else numbers.
        pixels: number of pixels of each value.
        maps: number of masks with each value.
        palette: colours of the values, from masks with a palette.
        masks: number of masks.
    """

    colored: bool
    pixels: Counter[Value]
    maps: Counter[Value]
    palette: dict[int, Color]
    masks: int

    def share(self, value: Value) -> float:
        """Share of the pixels that have a value."""
        return self.pixels[value] / self.pixels.total()


@dataclass
class Row:
    """A class.

    Attributes:
        name: of the class.
        color: to show it in.
        values: numbers or colours of it in masks.
    """

    name: str
    color: Color
    values: list[Value]


@dataclass
class Table:
    """A class table, and where it comes from.

    Attributes:
        colored: whether masks hold colours.
        rows: the classes.
        void: values that are none.
        others_void: whether all values without a class are void.
        found: where names come from, in words.
        assumed: what was assumed, one sentence each.
        counts: of the masks.
    """

    colored: bool
    rows: list[Row]
    void: list[Value]
    others_void: bool = False
    found: str = ""
    assumed: list[str] = field(default_factory=list)
    counts: Counts | None = None


def count_values(
    masks: Sequence[Any],
    moved: Callable[[], object] = lambda: None,
    stored: Callable[[Any], tuple[Path | bytes, str]] = lambda path: (path, str(path)),
) -> Counts:
    """Pixels of each value in masks, all of which are decoded.

    Args:
        masks: the masks, one at least: paths, or whatever `stored` takes.
        moved: called after each.
        stored: the file of a mask or what is in it, and what messages call it.

    Raises:
        DataError: a mask cannot be read, has other kinds of pixels than ids or colours, or is of another kind than the
            others.
    """
    counts = Counts(False, Counter(), Counter(), {}, len(masks))
    kinds: dict[bool, list[str]] = {}
    with ThreadPoolExecutor(4) as pool:
        for called, colored, found, palette in pool.map(lambda mask: _count(*stored(mask)), masks):
            kinds.setdefault(colored, []).append(called)
            if len(kinds) < 2:
                counts.pixels.update(found)
                counts.maps.update(found.keys())
            for value, color in palette.items():
                if counts.palette.setdefault(value, color) != color:
                    counts.palette[value] = color
            moved()
    if len(kinds) == 2:
        raise DataError(
            f"masks of two kinds: {len(kinds[True])} are in colours, the first is {kinds[True][0]}, and "
            f"{len(kinds[False])} hold numbers, the first is {kinds[False][0]}: keep one kind, or save all in one way"
        )
    counts.colored = next(iter(kinds))
    return counts


def _count(path: Path | bytes, called: str) -> tuple[str, bool, dict[Value, int], dict[int, Color]]:
    raw = read_map(path, called, indices=True)
    colored = raw.ndim == 3 and raw.shape[2] >= 3
    if raw.dtype not in (np.uint8, np.uint16) or (colored and raw.dtype != np.uint8):
        raise DataError(f"{called} has pixels of type {raw.dtype}: masks are 8- or 16-bit ids, or 8-bit colours")
    codes = packed(raw) if colored else raw if raw.ndim == 2 else raw[..., 0]
    values, pixels = _runs(codes)
    if colored:
        found: dict[Value, int] = {(v >> 16, v >> 8 & 255, v & 255): n for v, n in zip(values, pixels, strict=True)}
        return called, True, found, {}
    ids: dict[Value, int] = dict(zip(values, pixels, strict=True))
    return called, False, ids, palette_of(path, values) if look(path, called).mode == "P" else {}


def _runs(codes: npt.NDArray[Any]) -> tuple[list[int], list[int]]:
    """Different values and the number of pixels of each; of masks, runs are far fewer than pixels."""
    flat = codes.ravel()
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    lengths = np.diff(np.concatenate([starts, [len(flat)]]))
    values, places = np.unique(flat[starts], return_inverse=True)
    return values.tolist(), np.bincount(places.ravel(), weights=lengths).astype(np.int64).tolist()


def palette_of(path: Path | bytes, values: Sequence[int]) -> dict[int, Color]:
    """Colours that the palette of a picture has for values, none of a picture without one."""
    with Image.open(BytesIO(path) if isinstance(path, bytes) else path) as image:
        flat = image.getpalette("RGB") or []
    return {v: (flat[3 * v], flat[3 * v + 1], flat[3 * v + 2]) for v in values if len(flat) >= 3 * v + 3}


def class_table(counts: Counts, names: Sequence[NameFile], where: str) -> Table:
    """Class table for masks.

    Args:
        counts: what they hold.
        names: files that have names of classes.
        where: what messages call the masks.

    Raises:
        DataError: the values cannot be classes.
    """
    table = _of_colors(counts, names, where) if counts.colored else _of_ids(counts, names, where)
    table.counts = counts
    if not table.rows:
        raise DataError(f"{where}: all pixels are void: there is nothing to learn from")
    if len(table.rows) == 1 and not table.void:
        table.assumed.append(
            f"all masks have the one value {table.rows[0].values[0]}: a network that learns one class says it of all"
        )
    return table


def _of_colors(counts: Counts, names: Sequence[NameFile], where: str) -> Table:
    values, known = sorted(counts.pixels), set(counts.pixels)
    candidates = [file for file in names if file.by_color]
    for origin, tables in (("file", candidates), ("known", known_colors())):
        covered = [(sum(counts.share(c) for c in file.by_color if c in counts.pixels), file) for file in tables]
        covered = [
            (share, file)
            for share, file in covered
            if (
                share > 0.5 if origin == "file" else share > 0.9 and are_telling(c for c in file.by_color if c in known)
            )
        ]
        if covered:
            _, file = max(covered, key=lambda pair: round(pair[0], 3))  # the first of those that know as much
            return _of_named_colors(counts, file, origin == "file", where)
    kept, others = _frequent(counts, values, where)
    table = Table(True, [], [])
    black = (0, 0, 0)
    if black in kept and len(kept) > 1:
        kept.remove(black)
        if counts.share(black) < _LITTLE:
            table.void.append(black)
            table.assumed.append(
                f"black is void, as it covers {_percent(counts.share(black))} of the pixels: if it is a class, move "
                "[0, 0, 0] from void to a line of its own under classes"
            )
        else:
            table.rows.append(Row("background", black, [black]))
            table.assumed.append(
                f"black is the class background, as it covers {_percent(counts.share(black))} of the pixels: if it "
                "means unlabelled, move [0, 0, 0] to void"
            )
    first = len(table.rows)
    table.rows += [Row(f"class_{first + i}", _rgb(color), [color]) for i, color in enumerate(kept)]
    table.assumed.append("nothing names the colours: write your names for class_... under classes")
    _void_others(table, counts, others)
    return table


def _of_named_colors(counts: Counts, file: NameFile, own: bool, where: str) -> Table:
    """Of a file of the user's own all classes are kept; of a public table those that occur."""
    table = Table(True, [], [], found=f"names by colours from {file.called}")
    if not own:
        table.assumed.append(f"the colours are those of {file.called}: correct names under classes if that is chance")
    by_name: dict[str, list[Color]] = {}
    for color, name in file.by_color.items():
        if own or color in counts.pixels:
            by_name.setdefault(name, []).append(color)
    for name, colors in by_name.items():
        if is_void_name(name):
            table.void += colors
        else:
            table.rows.append(Row(name, colors[0], list(colors)))
    unknown = [value for value in sorted(counts.pixels) if value not in file.by_color]
    kept, others = _frequent(counts, unknown, where)
    for value in kept:
        color = _rgb(value)
        if color == (0, 0, 0):
            table.void.append(color)
            table.assumed.append(f"black, which {file.called} does not name, is void: move it to a class if it is one")
            continue
        table.rows.append(Row(f"class_{len(table.rows)}", color, [color]))
        table.assumed.append(f"{file.called} does not name the colour {color}: write a name for {table.rows[-1].name}")
    _void_others(table, counts, others)
    if not can_be_names(row.name for row in table.rows):
        table.rows = [Row(f"class_{i}", row.color, row.values) for i, row in enumerate(table.rows)]
        table.assumed.append(f"names in {file.called} cannot be used: write others for class_... under classes")
    return table


def _frequent(counts: Counts, values: Sequence[Value], where: str) -> tuple[list[Value], list[Value]]:
    """Values that are classes, and those that smooth resizing or compression has made of them.

    Raises:
        DataError: there are more than a table can have.
    """
    if len(values) <= _MANY:
        return list(values), []
    frequent = [value for value in values if counts.share(value) >= _RARE]
    left = 1 - sum(counts.share(value) for value in values if value not in frequent)
    if len(frequent) <= _MANY * 3 and left >= 0.9:
        return frequent, [value for value in values if value not in frequent]
    if len(values) > UNKNOWN:
        raise DataError(
            f"{where} have {len(values)} different {'colours' if counts.colored else 'values'}, of which no few cover "
            "most pixels: these are no classes, but objects (instances), or masks that were resized smoothly or "
            "compressed; export class masks without either"
        )
    return list(values), []


def _void_others(table: Table, counts: Counts, others: Sequence[Value]) -> None:
    if others:
        table.others_void = True
        table.assumed.append(
            f"{len(others)} rare colours of {_percent(sum(map(counts.share, others)))} of the pixels, such as "
            f"{others[0]}, are void (others), as smooth resizing makes them: export the masks "
            "without it for clean edges"
        )


def _of_ids(counts: Counts, names: Sequence[NameFile], where: str) -> Table:
    values = [value for value in sorted(counts.pixels) if isinstance(value, int)]
    if len(values) > UNKNOWN or (len(values) > _MANY and values[-1] > 999):
        raise DataError(
            f"{where} have {len(values)} different values from {values[0]} to {values[-1]}: these are no classes, but "
            "objects (instances), or photographs; give class masks"
        )
    table = Table(False, [], [])
    if values == [0, 255]:
        listed = next((file.listed for file in names if len(file.listed) == 2), ["background", "foreground"])
        table.rows = _rows(dict(zip(values, listed, strict=True)), counts)
        table.assumed.append("masks have 0 and 255 only, so 255 is a class and not void: name both under classes")
        return table
    classes = [value for value in values if value != 255]
    if 255 in values and classes:
        table.void.append(255)
        table.assumed.append(
            f"255 is void, as is usual ({_percent(counts.share(255))} of the pixels): if it is a class, move it to a "
            "line of its own under classes"
        )
    else:
        classes = values
    named = _names_of(classes, names, table) or _names_by_palette(classes, counts, table)
    if named is None:
        table.rows = _rows({value: f"class_{value}" for value in classes}, counts)
        table.assumed.append("nothing names the values: write your names for class_... under classes")
        if classes[0] == 0 and len(classes) > 1:
            table.assumed.append(
                f"0 is a class ({_percent(counts.share(0))} of the pixels): if it means unlabelled, move it to void"
            )
        return table
    void = [value for value, name in named.items() if is_void_name(name)]
    table.void += [value for value in void if value not in table.void]
    if 0 in classes and 0 not in named:
        share = counts.share(0)
        if share < _LITTLE:
            table.void.append(0)
            table.assumed.append(
                f"0 is void, as names begin with 1 and it covers {_percent(share)} of the pixels: if it is a class, "
                "move it to a line of its own under classes"
            )
        else:
            named = {0: "background", **named}
            table.assumed.append(
                f"0 is the class background, as names begin with 1 and it covers {_percent(share)} of the pixels: if "
                "it means unlabelled, move it to void"
            )
    named = {value: name for value, name in named.items() if value not in table.void}
    for value in classes:
        if value not in named and value not in table.void:
            named[value] = f"class_{value}"
            table.assumed.append(f"nothing names the value {value}: write a name for class_{value} under classes")
    if not can_be_names(named.values()):
        named = {value: f"class_{value}" for value in named}
        table.assumed.append(f"{table.found} cannot be used: write others for class_... under classes")
    table.rows = _rows(dict(sorted(named.items())), counts)
    return table


def _names_of(values: Sequence[int], files: Sequence[NameFile], table: Table) -> dict[int, str] | None:
    """Names of ids by a file, None without one that fits."""
    for file in files:
        if file.by_value and sum(value in file.by_value for value in values) >= 0.5 * len(values):
            table.found = f"names by values from {file.called}"
            return {value: name for value, name in file.by_value.items() if value < 1 << 16 and value != 255}
    for file in files:
        listed = file.listed or list(file.by_color.values())
        if listed and values[-1] < len(listed):
            table.found = f"names by their order from {file.called}"
            return dict(enumerate(listed))
        if listed and values[-1] == len(listed):
            table.found = f"names by their order from {file.called}, counted from 1"
            return dict(enumerate(listed, start=1))
    unused = next((file for file in files if file.listed), None)
    if unused is not None:
        table.assumed.append(
            f"{unused.called} is not used: it has {len(unused.listed)} names, and the masks have values up to "
            f"{values[-1]}"
        )
    return None


def _names_by_palette(values: Sequence[int], counts: Counts, table: Table) -> dict[int, str] | None:
    """Names of ids by the colours of a palette that is that of a public data set."""
    colors = [counts.palette.get(value) for value in values]
    different = [color for color in colors if color is not None]
    if len(set(different)) < len(colors) or not are_telling(different):
        return None
    for file in known_colors():
        if all(color in file.by_color for color in colors):
            found = {v: file.by_color[c] for v, c in zip(values, colors, strict=True) if c is not None}
            if can_be_names(name for name in found.values() if not is_void_name(name)):
                table.found = f"names by the palette, which is that of {file.called}"
                return found
    return None


def _rows(named: Mapping[int, str], counts: Counts) -> list[Row]:
    """Classes in the colours of the palette where that tells them apart."""
    colors = list(colors_of(list(named.values())))
    painted = [counts.palette.get(value) for value in named]
    if None not in painted and len(set(painted)) == len(painted):
        colors = [color for color in painted if color is not None]
    return [Row(name, color, [value]) for (value, name), color in zip(named.items(), colors, strict=True)]


def _rgb(value: Value) -> Color:
    assert isinstance(value, tuple)
    return value


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"
