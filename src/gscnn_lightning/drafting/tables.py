"""Data sets of Hugging Face: folders that its library wrote, or Parquet files."""

from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gscnn_lightning.data.files import IMAGE_SUFFIXES, walk
from gscnn_lightning.data.hugging_face import load_tables, stored_picture
from gscnn_lightning.data.pictures import look
from gscnn_lightning.drafting.pictures import SPLITS, Group, looks, preference, split_of
from gscnn_lightning.drafting.splits import SHARE
from gscnn_lightning.drafting.values import Counts, count_values
from gscnn_lightning.errors import DataError

_SAMPLE = 6
_LOOKED_AT = 500
_JPEG = b"\xff\xd8"


@dataclass
class Tables:
    """Tables of pictures.

    Attributes:
        settings: arguments of the data module, without the class table.
        told: where the splits come from.
        columns: which columns are used, in words.
        masks: which column has masks.
        counts: what the masks of training and validation hold.
        sizes: number of images by width and height.
        rows: number of rows by split.
        assumed: what was assumed, one sentence each.
    """

    settings: dict[str, Any]
    told: str
    columns: str
    masks: str
    counts: Counts
    sizes: Counter[tuple[int, int]]
    rows: dict[str, int]
    assumed: list[str] = field(default_factory=list)


def find_tables(root: Path, moved: Callable[[int, int], object]) -> Tables | None:
    """What there is of tables, None if there is nothing.

    Args:
        root: folder of the data.
        moved: called with the number of masks that were read and that of all.

    Raises:
        DataError: there are tables, of which no config can be made; the message says why.
        SettingError: the library `datasets` is not installed.
    """
    folder = _folder(root)
    if folder is None:
        return None
    tables = load_tables(str(folder))
    splits, assumed = _splits(folder, tables)
    image, mask, others = _columns(folder, tables[splits["train"]])
    chosen = [tables[name] for split, name in splits.items() if split != "test"]
    places = [(rows, row) for rows in chosen for row in range(len(rows))]
    done = 0

    def one() -> None:
        nonlocal done
        done += 1
        moved(done, len(places))

    def stored(place: tuple[Any, int], column: str = mask) -> tuple[bytes, str]:
        rows, row = place
        # A row is read whole, so it must not have other pictures in it.
        return stored_picture(rows.select_columns([column])[row][column], f"{column} of row {row} in {folder}")

    step = max(1, len(places) // _LOOKED_AT)
    with ThreadPoolExecutor(4) as pool:
        sizes = Counter(pool.map(lambda place: look(*stored(place, image)).size, places[::step]))
    counts = count_values(places, one, stored)
    settings: dict[str, Any] = {"root": str(folder), "image": image, "mask": mask}
    if any(split != name for split, name in splits.items()):
        settings["splits"] = splits
    if "val" not in splits:
        settings["hold_out"] = SHARE
    if others:
        assumed.append(f"not used: {', '.join(others)}")
    return Tables(
        settings,
        "by their names" if "val" in splits else "made",
        f"{image} (images), {mask} (masks)",
        mask,
        counts,
        sizes,
        {name: len(tables[name]) for name in splits.values()},
        assumed,
    )


def _folder(root: Path) -> Path | None:
    """The folder to load: what `save_to_disk` wrote, the root or below it, else the root if it has Parquet files."""
    files = sorted((path for path in walk(root) if path.is_file()), key=lambda path: (len(path.parts), path))
    for path in files:
        is_one = path.name == "state.json" and (path.parent / "dataset_info.json").is_file()
        if path.name == "dataset_dict.json" or is_one:
            return path.parent
    if any(path.suffix.lower() in IMAGE_SUFFIXES for path in files):
        return None
    return root if any(path.suffix.lower() == ".parquet" for path in files) else None


def _splits(folder: Path, tables: Mapping[str, Any]) -> tuple[dict[str, str], list[str]]:
    """Which table is which split, and what was assumed."""
    told = {name: "train" if len(tables) == 1 else split_of(name)[0] for name in tables}
    splits = {split: name for split in SPLITS if (name := next((n for n, s in told.items() if s == split), None))}
    if "train" not in splits:
        raise DataError(
            f"{folder} has the splits {', '.join(tables)}, and their names do not say which trains: name it train"
        )
    assumed = []
    if "val" not in splits:
        assumed.append(
            "nothing says which frames validate: a fifth is held out by their names, always the same (hold_out). If "
            "they are frames of one video, neighbours are in both, and scores too good"
        )
    return splits, assumed


def _columns(folder: Path, rows: Any) -> tuple[str, str, list[str]]:  # noqa: ANN401
    """Columns of images and of masks, by the pixels of some rows, and other columns with pictures."""
    photos: list[Group] = []
    masks: list[Group] = []
    lossy: list[str] = []
    some = np.unique(np.linspace(0, len(rows) - 1, _SAMPLE).round().astype(int)).tolist() if len(rows) else []
    for column in rows.column_names:
        if not _may_be_picture(rows.select_columns([column]), column):
            continue
        found = [
            (looks(content, called), content.startswith(_JPEG))
            for row in some
            for content, called in [
                stored_picture(rows.select_columns([column])[row][column], f"{column} of row {row}")
            ]
        ]
        flat = 2 * sum(look[0] for look, _ in found) > len(found)
        is_jpeg = any(jpeg for _, jpeg in found)
        values, colored = max(look[1] for look, _ in found), found[0][0][2]
        group = Group(column, [], flat and not is_jpeg, is_jpeg and any(look[3] for look, _ in found), values, colored)
        (masks if group.is_mask else photos).append(group)
        lossy += [column] if group.looks_lossy else []
    if not photos or not masks:
        kind = "images" if not photos else "masks"
        hint = f"; {lossy[0]} has JPEG, which changes pixels" if kind == "masks" and len(photos) > 1 and lossy else ""
        raise DataError(
            f"{folder} has the columns {', '.join(rows.column_names)}, none of which has {kind}{hint}: it needs one of "
            "images, and one of masks in PNG or TIFF, of ids or colours"
        )
    mask = max(masks, key=preference).called
    image = photos[0].called
    return image, mask, [group.called for group in (*photos, *masks) if group.called not in (image, mask)]


def _may_be_picture(rows: Any, column: str) -> bool:  # noqa: ANN401
    value = rows[0][column] if len(rows) else None
    if isinstance(value, dict):
        return isinstance(value.get("bytes"), bytes) or isinstance(value.get("path"), str)
    return isinstance(value, bytes)
