"""The config and class table of a folder, with all that was found and assumed on the way."""

import csv
import io
import json
import re
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from gscnn_lightning.data.files import IMAGE_SUFFIXES, LABEL_SUFFIXES, shown, user_path, walk
from gscnn_lightning.data.mask_classes import read_classes
from gscnn_lightning.data.pictures import look, read_map
from gscnn_lightning.drafting.names import find_name_files
from gscnn_lightning.drafting.pictures import SPLITS, Pair, Pairs, find_pictures, pair_pictures
from gscnn_lightning.drafting.polygons import find_polygons
from gscnn_lightning.drafting.splits import Splits, split_pairs
from gscnn_lightning.drafting.tables import find_tables
from gscnn_lightning.drafting.values import Counts, Row, Table, Value, class_table, count_values, palette_of
from gscnn_lightning.errors import DataError, SettingError
from gscnn_lightning.shipped_configs import CONFIGS, read_config

CLASSES = "classes.yaml"

_LARGEST_CROP = 384
_SMALLEST_CROP = 64
_STEP = 32
_BATCH = 8
_LEAST_SAMPLES = 160
_LARGE = 4 << 20
_LOOKED_AT = 500

_OVERLAYS = ("ade20k", "bdd100k", "idd", "kitti", "cvat", "gta5", "mapillary_v1.2", "mapillary_v2.0")
_LAYOUTS = ("cityscapes", "camvid", *(f"data/{name}" for name in _OVERLAYS))
_FILES_OF = {
    "cityscapes": ("leftImg8bit/train", "gtFine/train"),
    "camvid": ("train", "trainannot", "val", "valannot"),
}


@dataclass
class Draft:
    """A config that is about to be written.

    Attributes:
        name: of the config and its runs.
        data_class: name of the data module.
        settings: its arguments.
        table: class table to write; None where the data module has its own.
        copied: class table to copy as it is, "" for none.
        files: other texts to write, by their names.
        sizes: number of images by width and height.
        found: what was found: heading and text.
        objects: number of outlines by class, of polygons.
        assumed: what was assumed, one sentence each, with what to change.
        training: number of training frames, 0 where it is not known.
    """

    name: str
    data_class: str
    settings: dict[str, Any]
    sizes: Counter[tuple[int, int]]
    table: Table | None = None
    copied: str = ""
    files: dict[str, str] = field(default_factory=dict)
    found: list[tuple[str, str]] = field(default_factory=list)
    objects: Counter[str] = field(default_factory=Counter)
    assumed: list[str] = field(default_factory=list)
    training: int = 0

    @property
    def config(self) -> str:
        """File name of the config."""
        return f"{self.name}.yaml"


def draft(
    data_dir: Path,
    out: Path | None = None,
    leave_out_unpaired: bool = False,
    moved: Callable[[int, int], object] = lambda done, total: None,
) -> tuple[Draft, Path]:
    """Look at a folder.

    Args:
        data_dir: the folder.
        out: where the config is to be written, by default NAME_config in the working directory.
        leave_out_unpaired: images without masks, and masks without images, are no error.
        moved: called with the number of masks that were read and that of all.

    Returns:
        The draft, and the folder to write it to.

    Raises:
        DataError: nothing can be made of what is there; the message says why.
        SettingError: the folder to write to is in the data.
    """
    root = user_path(data_dir, "DATA_DIR")
    if not root.is_dir():
        raise DataError(f"{shown(root)} is no folder: give the folder of the images and masks")
    root = root.resolve()
    name = re.sub(r"[^\w.-]+", "_", root.name).strip("._-") or "data"
    out = Path(f"{name}_config") if out is None else user_path(out, "--out")
    out = out.absolute()
    if out.resolve().is_relative_to(root):
        raise SettingError(f"--out {out} is in the data {root}, which are only read: give a folder elsewhere")
    drafted = _of_layout(root, name) or _of_tables(root, name, out, moved) or _of_polygons(root, name, out)
    drafted = drafted or _of_masks(root, name, out, leave_out_unpaired, moved)
    _refuse_existing(out, drafted)
    return drafted, out


def _refuse_existing(out: Path, drafted: Draft) -> None:
    for file in (drafted.config, CLASSES, *drafted.files):
        if (out / file).exists():
            raise SettingError(f"{out / file} is there already and is not overwritten: give another folder (--out)")


def _of_layout(root: Path, name: str) -> Draft | None:
    """A data set that is known by its folders: the shipped config has all settings."""
    for layout in _LAYOUTS:
        try:
            data = read_config(layout)["data"]
        except SettingError:
            continue
        settings = dict(data.get("init_args") or {})
        needed = _FILES_OF.get(layout) or _needed(settings)
        if not all((root / place).exists() for place in needed):
            continue
        # Endings tell data sets that have the same folders.
        ending = settings.get("mask_ending")
        split = _names_of_split(settings, "train")[0]
        if ending and not any(path.stem.endswith(ending) for path in walk(root / needed[-1])):
            continue
        if layout == "cityscapes" and not any(p.name.endswith("_labelIds.png") for p in walk(root / needed[1])):
            continue
        if layout == "data/gta5" and not _has_palette_of(root / needed[1], "gta5"):
            continue
        if layout == "camvid" and not all(_ids_below(root / place, 12) for place in ("trainannot", "valannot")):
            continue
        images = sorted(path for path in walk(root / needed[0]) if path.suffix.lower() in IMAGE_SUFFIXES)
        if not images:
            continue
        for key in ("batch_size", "crop_size", "scale", "class_uniform", "class_uniform_over", "blur"):
            settings.pop(key, None)
        settings = {"root": str(root), **{key: value for key, value in settings.items() if key != "root"}}
        drafted = Draft(name, data["class_path"].rpartition(".")[2], settings, _sizes(images), training=len(images))
        title = layout.removeprefix("data/")
        drafted.found = [
            ("layout", f"{title}, by its folders ({', '.join(needed)})"),
            ("images", f"{len(images)} in {split}"),
        ]
        drafted.assumed.append(f"classes are those of {title}: gscnn-fit --config {layout} says where they come from")
        if share := settings.get("hold_out"):
            drafted.assumed.append(
                f"{title} has no validation split: {100 * share:g} % of the frames are held out by their names, always "
                f"the same (hold_out in {drafted.config})"
            )
        return drafted
    return None


def _ids_below(folder: Path, number: int) -> bool:
    """Whether a few masks of a folder have no value of that number or above, so that they are ids of a data set."""
    masks = sorted(path for path in walk(folder) if path.suffix.lower() in LABEL_SUFFIXES)[:3]
    return bool(masks) and all((raw := read_map(m, indices=True)).ndim == 2 and int(raw.max()) < number for m in masks)


def _has_palette_of(folder: Path, table: str) -> bool:
    """Whether masks have a palette whose colours are those of a shipped class table at its values."""
    masks = sorted(path for path in walk(folder) if path.suffix.lower() in LABEL_SUFFIXES)[:3]
    rows = yaml.safe_load((CONFIGS / "classes" / f"{table}.yaml").read_text(encoding="utf-8"))["classes"]
    colors = {row["values"][0]: tuple(row["color"]) for row in rows}
    return bool(masks) and all(palette_of(mask, list(colors)) == colors for mask in masks)


def _needed(settings: Mapping[str, Any]) -> tuple[str, ...]:
    split = _names_of_split(settings, "train")[0]
    paths = [settings["images"].format(split=split)]
    if str(settings.get("classes", "")).endswith((".json", ".txt")):
        paths.append(settings["classes"])
    return (*paths, settings["masks"].format(split=split))


def _names_of_split(settings: Mapping[str, Any], split: str) -> list[str]:
    names = (settings.get("splits") or {}).get(split, split)
    return names if isinstance(names, list) else [names]


def _of_polygons(root: Path, name: str, out: Path) -> Draft | None:
    found = find_polygons(root, out)
    if found is None:
        return None
    images = sorted(path for path in walk(root) if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
    if not images:
        raise DataError(f"{root} has annotations in {found.kind}'s format and no images: give the folder that has both")
    settings = {"root": str(root), **found.settings}
    drafted = Draft(name, found.data_class, settings, _sizes(images), files=found.files, objects=found.objects)
    drafted.training = len(images)
    drafted.found = [
        ("annotations", f"{found.objects.total()} outlines in {found.kind}'s format"),
        ("images", f"{len(images)}"),
        ("classes", _listed(found.names)),
        ("splits", found.told),
    ]
    config = drafted.config
    drafted.assumed = [
        f"pixels in no outline are the class background: if they are void, write background: null"
        f" below data in {config}",
        f"where outlines overlap, {found.overlap} (overlap in {config})",
        *(_about(sentence, config) for sentence in found.assumed),
    ]
    return drafted


def _of_tables(root: Path, name: str, out: Path, moved: Callable[[int, int], object]) -> Draft | None:
    found = find_tables(root, moved)
    if found is None:
        return None
    counts = found.counts
    table, copied, origin = _own_table(root, counts)
    if table is None:
        table = class_table(counts, find_name_files(root), f"the masks in the column {found.masks} of {root}")
        origin = table.found or "none found"
    settings = {**found.settings, "classes": str(out / CLASSES)}
    drafted = Draft(name, "HuggingFaceDataModule", settings, found.sizes, table, copied)
    drafted.training = next(iter(found.rows.values()))
    drafted.found = [
        ("tables", f"of Hugging Face's library datasets: {', '.join(f'{k} {v}' for k, v in found.rows.items())} rows"),
        ("columns", found.columns),
        ("masks", f"{counts.masks}: {_kind_text(counts)}"),
        ("splits", found.told),
        ("names", origin),
    ]
    drafted.assumed = [f"{CLASSES}: {sentence}" for sentence in table.assumed]
    drafted.assumed += [_about(sentence, drafted.config) for sentence in found.assumed]
    return drafted


def _about(sentence: str, config: str) -> str:
    return sentence.replace("(hold_out)", f"(hold_out in {config})")


def _listed(names: Sequence[str], number: int = 12) -> str:
    more = f" and {len(names) - number} more" if len(names) > number else ""
    return f"{len(names)}: {', '.join(names[:number])}{more}"


def _of_masks(root: Path, name: str, out: Path, leave_out_unpaired: bool, moved: Callable[[int, int], object]) -> Draft:
    pictures = find_pictures(root, out)
    if not pictures:
        raise DataError(
            f"{root} has no pictures: give a folder with images (PNG, JPEG, BMP, TIFF, WebP, PPM) and masks or polygons"
        )
    pairs = pair_pictures(root, pictures)
    _refuse_unpaired(root, pairs, leave_out_unpaired)
    splits = split_pairs(root, pairs.pairs, "train.csv and val.csv")
    _refuse_same_names(root, splits)
    labelled = [pair for split in SPLITS for pair in splits[split]]
    masks = [pair.mask for pair in dict.fromkeys(labelled) if pair.mask is not None]
    done = 0

    def one() -> None:
        nonlocal done
        done += 1
        moved(done, len(masks))

    counts = count_values(masks, one)
    table, copied, origin = _own_table(root, counts)
    if table is None:
        table = class_table(counts, find_name_files(root), f"the masks {pairs.masks} in {root}")
        origin = table.found or "none found"
    lists = {f"{split}.csv": _list_text(root, splits[split]) for split in SPLITS if splits[split]}
    if pairs.unlabelled:
        lists["predict.csv"] = _list_text(root, pairs.unlabelled)
    pattern = f"{out}/".replace("{", "{{").replace("}", "}}") + "{split}.csv"
    settings: dict[str, Any] = {"root": str(root), "classes": str(out / CLASSES), "lists": pattern}
    sizes = _sizes([pair.image for pair in labelled])
    drafted = Draft(name, "FolderDataModule", settings, sizes, table, copied, lists)
    drafted.training = len(splits["train"])
    drafted.found = [
        ("images", f"{len(labelled)}: {pairs.images}"),
        ("masks", f"{len(masks)}: {pairs.masks}, {_kind_text(counts)}"),
        ("splits", f"{', '.join(f'{k} {len(v)}' for k, v in splits.items() if v)} ({splits.told})"),
        ("names", origin),
    ]
    config = drafted.config
    drafted.assumed = [f"{CLASSES}: {sentence}" for sentence in table.assumed]
    drafted.assumed += [f"splits: {sentence}" for sentence in splits.assumed]
    if splits.told == "by folders" and splits["val"] is splits["test"]:
        drafted.assumed.append("splits: there is no val folder: validation is on test")
    if pairs.unlabelled:
        drafted.assumed.append(
            f"splits: {len(pairs.unlabelled)} images of {pairs.unlabelled[0].split or 'folders'} have no masks: "
            f"they are what gscnn-fit predict --config {config} predicts (predict.csv)"
        )
    alone = [*pairs.images_alone, *pairs.masks_alone]
    if alone:
        drafted.assumed.append(
            f"left out: {len(pairs.images_alone)} images and {len(pairs.masks_alone)} masks that have no partner, "
            f"the first is {alone[0]}"
        )
    if pairs.others:
        drafted.assumed.append(f"not used: {', '.join(pairs.others[:6])}{', ...' if len(pairs.others) > 6 else ''}")
    return drafted


def _kind_text(counts: Counts) -> str:
    kind = "colours" if counts.colored else "ids"
    return f"{kind} with {len(counts.pixels)} values: {_values_text(counts)}"


def _values_text(counts: Counts) -> str:
    values = sorted(counts.pixels)
    shown = [str(value).replace(" ", "") for value in values]
    return ", ".join(shown) if len(shown) <= 12 else f"{', '.join(shown[:10])}, ... {shown[-1]}"


def _refuse_unpaired(root: Path, pairs: Pairs, leave_out: bool) -> None:
    told = []
    if pairs.images_alone:
        count = len(pairs.images_alone) + len(pairs.pairs)
        told.append(
            f"{len(pairs.images_alone)} of {count} images ({pairs.images}) have no mask, the first is "
            f"{pairs.images_alone[0]}"
        )
    if pairs.masks_alone:
        count = len(pairs.masks_alone) + len(pairs.pairs)
        told.append(
            f"{len(pairs.masks_alone)} of {count} masks ({pairs.masks}) have no image, the first is "
            f"{pairs.masks_alone[0]}"
        )
    if told and not leave_out:
        raise DataError(
            f"{root}: {'; '.join(told)}: add what is missing, or leave these out (--leave-out-unpaired true)"
        )


def _refuse_same_names(root: Path, splits: Splits) -> None:
    """Frames of a list are told apart by their paths without suffix."""
    seen: dict[Path, Path] = {}
    for pair in dict.fromkeys(pair for split in SPLITS for pair in splits[split]):
        other = seen.setdefault(pair.image.with_suffix(""), pair.image)
        if other != pair.image:
            raise DataError(f"{other} and {pair.image.name} are the same frame twice: remove one of them")
        for path in (pair.image, pair.mask):
            if path is not None and len(str(path).splitlines()) > 1:
                raise DataError(f"{str(path)!r} has a line break in its name, which lists cannot have: rename it")


def _own_table(root: Path, counts: Counts) -> tuple[Table | None, str, str]:
    """A class table of this library that lies in the data and has all values of the masks: table, text, and origin."""
    for path in sorted([*root.glob("*.yaml"), *root.glob("*/*.yaml")]):
        try:
            text = path.read_text(encoding="utf-8")
            content = yaml.safe_load(text)
            if not isinstance(content, dict) or not set(content) <= {"masks", "void", "classes"}:
                continue
            read_classes(path)
        except (OSError, ValueError, yaml.YAMLError):  # DataError is a ValueError
            continue
        colored = content.get("masks", "ids") == "colors"
        rows: list[Row] = []
        for index, row in enumerate(content["classes"]):
            values = row.get("values", [row["color"] if colored else index])
            rows.append(Row(row["name"], _tuple(row["color"]), [_tuple(v) if colored else v for v in values]))
        void = content.get("void", [])
        others = void == "others"
        raw: list[Value] = [] if others else [_tuple(value) if colored else value for value in void]
        known = {value for row in rows for value in row.values} | set(raw)
        if colored == counts.colored and (others or set(counts.pixels) <= known):
            return Table(colored, rows, raw, others, counts=counts), text, f"class table {path.name}, which is copied"
    return None, "", ""


def _tuple(color: Iterable[int]) -> tuple[int, int, int]:
    red, green, blue = color
    return red, green, blue


def _list_text(root: Path, pairs: Sequence[Pair]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", "mask"])
    for pair in pairs:
        writer.writerow([_column(root, path) for path in (pair.image, pair.mask) if path is not None])
    return text.getvalue()


def _column(root: Path, path: Path) -> str:
    """A path as lists have it: what looks like a comment or a blank at its start is none after ./."""
    text = path.relative_to(root).as_posix()
    return f"./{text}" if text[:1] in ("#", " ", "\t") or not text.isprintable() else text


def _sizes(images: Sequence[Path]) -> Counter[tuple[int, int]]:
    """Widths and heights, of some hundred images at most."""
    step = max(1, len(images) // _LOOKED_AT)
    with ThreadPoolExecutor(8) as pool:
        return Counter(pool.map(lambda path: look(path).size, images[::step]))


def crop_and_scale(sizes: Counter[tuple[int, int]]) -> tuple[tuple[int, int], tuple[float, float]]:
    """Size of crops, and range of the scale, for images of some sizes.

    Crops are 0.6 of the usual height and width, in steps of 32 pixels from 64 to 384; larger images are scaled down so
    far that a crop shows a large part of them, a quarter at most.

    Args:
        sizes: number of images by width and height.

    Returns:
        Height and width, and smallest and largest factor.

    Example:
        >>> crop_and_scale(Counter({(480, 360): 3})), crop_and_scale(Counter({(2048, 1024): 3}))
        (((192, 288), (0.5, 1.5)), ((384, 384), (0.38, 1.0)))
    """
    width, height = (int(statistics.median(size[axis] for size in sizes.elements())) for axis in (0, 1))
    crop = [min(_LARGEST_CROP, max(_SMALLEST_CROP, int(0.6 * full) // _STEP * _STEP)) for full in (height, width)]
    short = min(width, height)
    low = round(max(0.25, min(0.5, _LARGEST_CROP / short)), 2)
    return (crop[0], crop[1]), (low, 1.0 if short > 2 * _LARGEST_CROP else 1.5)


def write_draft(drafted: Draft, out: Path, backbone: str, epochs: int) -> list[Path]:
    """Write config, class table and lists.

    Args:
        drafted: what to write.
        out: folder, made if it is not there.
        backbone: of the network.
        epochs: of the training.

    Returns:
        The files.

    Raises:
        SettingError: one of them is there already.
    """
    _refuse_existing(out, drafted)
    texts = dict(drafted.files)
    if drafted.table is not None:
        texts[CLASSES] = drafted.copied or classes_text(drafted.table)
    texts[drafted.config] = config_text(drafted, backbone, epochs)
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for name, text in texts.items():
        with (out / name).open("x", encoding="utf-8") as file:
            file.write(text)
        written.append(out / name)
    return written


def config_text(drafted: Draft, backbone: str, epochs: int) -> str:
    """The config as YAML, with what was assumed."""
    crop, scale = crop_and_scale(drafted.sizes)
    window = max((width * height for width, height in drafted.sizes), default=0) > _LARGE
    few = 0 < drafted.training < _LEAST_SAMPLES
    lines = [
        f"# Drafted by gscnn new from {drafted.settings['root']}".replace("\n", " "),
        *(f"# {heading}: {text}" for heading, text in drafted.found),
        *(["# Assumed:"] if drafted.assumed else []),
        *(f"# - {sentence}" for sentence in drafted.assumed),
        "trainer:",
        f"  max_epochs: {epochs}",
        f"  check_val_every_n_epoch: {5 if epochs >= 10 else 1}",
        "  gradient_clip_val: 5.0",
        f"  logger: {{init_args: {{name: {_quoted(drafted.name)}}}}}",
        "data:",
        f"  class_path: gscnn_lightning.data.{drafted.data_class}",
        "  init_args:",
        *(f"    {key}: {_quoted(value)}" for key, value in drafted.settings.items()),
        f"    batch_size: {_BATCH} # lower it if memory does not suffice",
        f"    crop_size: [{crop[0]}, {crop[1]}] # height and width; {sizes_text(drafted.sizes)}",
        f"    scale: [{scale[0]}, {scale[1]}]",
        "    class_uniform: 0.5",
        "    class_uniform_over: data",
        *([f"    samples_per_epoch: {_LEAST_SAMPLES} # as there are few images"] if few else []),
        "model:",
        f"  backbone: {_quoted(backbone)}",
        "  output_stride: 16",
        "  dilation: false # dilated depthwise convolutions train several times slower on CPUs",
        "  shape_channels: 16",
        "  refine: convex # not in the paper: the first map and the shape stream steer the last upsampling",
        "  stream_start: skip # nor this: the stream begins at stride 4, which costs a quarter",
        "  boundary_tolerances: [1, 3]",
        *(["  window: [1024, 1024] # validation in windows, as the images are large"] if window else []),
        "optimizer:",
        "  class_path: torch.optim.AdamW",
        "  init_args:",
        "    lr: 0.002",
        "    weight_decay: 0.01",
        "",
    ]
    return "\n".join(lines)


def classes_text(table: Table) -> str:
    """The class table as YAML, with what was assumed."""
    lines = [
        "# Which values of the masks stand for which class; train ids are the places in the list.",
        *(f"# {sentence}" for sentence in table.assumed),
        f"masks: {'colors' if table.colored else 'ids'}",
        f"void: {'others' if table.others_void else _quoted([_plain(value) for value in table.void])}"
        " # values that are no class",
        "classes:",
    ]
    for row in table.rows:
        values = _quoted([_plain(value) for value in row.values])
        start = f"  - {{name: {_quoted(row.name)}, color: {list(row.color)}, values: {values}}}"
        lines.append(f"{start} # {share_text(table.counts, row)}")
    return "\n".join([*lines, ""])


def share_text(counts: Counts | None, row: Row) -> str:
    """Share of the pixels of a class, and number of masks that have it."""
    if counts is None:
        return ""
    pixels = sum(counts.pixels[value] for value in row.values)
    maps = max(counts.maps[value] for value in row.values)
    return f"{100 * pixels / counts.pixels.total():.3g} % of the pixels, {maps} of {counts.masks} masks"


def _plain(value: Value) -> Any:  # noqa: ANN401
    return list(value) if isinstance(value, tuple) else value


def _quoted(value: Any) -> str:  # noqa: ANN401
    """A value as YAML in one line, text in quotes where it would be something else without."""
    if isinstance(value, str):
        bare = re.fullmatch(r"[A-Za-z_/.][\w/. -]*", value) and not value.endswith(" ")
        return value if bare and yaml.safe_load(value) == value else json.dumps(value, ensure_ascii=False)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_quoted(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_quoted(part) for part in value) + "]"
    return json.dumps(value)


def sizes_text(sizes: Counter[tuple[int, int]]) -> str:
    """Width and height of images, the three most frequent."""
    shown = ", ".join(f"{width}x{height}" for (width, height), _ in sizes.most_common(3))
    return f"images have {shown}{' and others' if len(sizes) > 3 else ''}"
