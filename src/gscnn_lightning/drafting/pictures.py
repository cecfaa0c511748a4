"""The pictures in a folder: which are photographs, which are masks, and which mask is of which photograph."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gscnn_lightning.data.files import IMAGE_SUFFIXES, LABEL_SUFFIXES, walk
from gscnn_lightning.data.pictures import read_map
from gscnn_lightning.errors import DataError

SPLITS = ("train", "val", "test")

_SPLIT = re.compile(
    r"(?P<before>|.*[_\-. ])(?P<split>train(?:ing)?|val(?:id(?:ation)?)?|dev|test(?:ing)?)"
    r"(?P<after>|\d{4}|[_\-. ].*|(?:annot|label|mask|image|img).*)",
    re.IGNORECASE,
)
_ENDING = re.compile(r"[_\-. ][A-Za-z][A-Za-z0-9]*$|(?<=\d)[A-Za-z]+$")
_PREFIX = re.compile(r"^[A-Za-z]+[_\-. ]?(?=\d)")
_LABEL_WORDS = re.compile(r"mask|label|annot|seg|gt|ground.?truth|anno", re.IGNORECASE)

# Photographs differ from pixel to pixel; in masks, neighbours are the same but on outlines.
_FLAT = 0.85
_MOST_VALUES = 256
_SAMPLE = 6
_LOOKED_AT = 200_000


class Picture(NamedTuple):
    """A file of a picture.

    Attributes:
        path: the file.
        split: what the folders call it, "train", "val" or "test"; "" where they do not say it.
        folders: below those that all pictures are in, with * for a split.
        core: name without suffix and ending.
        ending: the last words of the name that many files of the folder share, such as "_mask".
    """

    path: Path
    split: str
    folders: tuple[str, ...]
    core: str
    ending: str


@dataclass
class Group:
    """Pictures of one kind.

    Attributes:
        called: for messages: folder and pattern of the names.
        pictures: its files.
        is_mask: whether they are masks by their pixels; of some of them, evenly chosen.
        looks_lossy: they look like masks, in a format that changes pixels.
        values: largest number of different values in one of them.
        is_colored: they have three channels or more.
    """

    called: str
    pictures: list[Picture]
    is_mask: bool
    looks_lossy: bool
    values: int
    is_colored: bool


class Pair(NamedTuple):
    """A photograph and its mask, None where there is none.

    Attributes:
        image: file of the photograph.
        mask: file of the mask.
        split: by the folders, "" where they do not say it.
    """

    image: Path
    mask: Path | None
    split: str


@dataclass
class Pairs:
    """What goes together.

    Attributes:
        pairs: photographs with their masks, in the order of their paths.
        unlabelled: photographs of a split without any masks, such as a test split whose labels are withheld.
        images: what the photographs are called.
        masks: what the masks are called.
        others: kinds of pictures that are not used.
        images_alone: photographs without a mask.
        masks_alone: masks without a photograph.
    """

    pairs: list[Pair]
    unlabelled: list[Pair]
    images: str
    masks: str
    others: list[str]
    images_alone: list[Path]
    masks_alone: list[Path]


def split_of(word: str) -> tuple[str, str]:
    """The split that the name of a folder tells, "" for none, and the name with * in its place.

    Example:
        >>> split_of("trainannot"), split_of("images_valid"), split_of("valley")
        (('train', '*annot'), ('val', 'images_*'), ('', 'valley'))
    """
    found = _SPLIT.fullmatch(word)
    if found is None:
        return "", word
    told = found["split"].lower()
    split = "train" if told.startswith("train") else "test" if told.startswith("test") else "val"
    return split, f"{found['before']}*{found['after']}"


def find_pictures(root: Path, without: Path | None = None) -> list[Picture]:
    """All pictures below a folder, by their names alone.

    Args:
        root: the folder.
        without: a folder to leave out.
    """
    paths = [
        path
        for path in sorted(walk(root))
        if path.suffix.lower() in IMAGE_SUFFIXES | LABEL_SUFFIXES
        and path.is_file()
        and not any(part.startswith((".", "__MACOSX")) for part in path.relative_to(root).parts)
        and (without is None or not path.is_relative_to(without))
    ]
    folders = {path: path.relative_to(root).parts[:-1] for path in paths}
    shared = _shared(folders.values())
    by_folder: defaultdict[tuple[str, ...], list[Path]] = defaultdict(list)
    for path in paths:
        by_folder[tuple(split_of(part)[1] for part in folders[path])].append(path)
    endings = {key: _endings([path.stem for path in members]) for key, members in by_folder.items()}
    found = []
    for path in paths:
        told = [split_of(part) for part in folders[path]]
        split = next((split for split, _ in told if split), "")
        template = tuple(part for _, part in told)
        core, ending = _without_ending(path.stem, endings[template])
        found.append(Picture(path, split, template[shared:], core, ending))
    return found


def _shared(folders: Iterable[tuple[str, ...]]) -> int:
    """Number of leading folders that all pictures are in, unless these tell a split."""
    known = list(folders)
    number = 0
    while known and all(len(parts) > number for parts in known):
        words = {parts[number] for parts in known}
        if len(words) > 1 or split_of(next(iter(words)))[0]:
            break
        number += 1
    return number


def _endings(stems: Sequence[str]) -> set[str]:
    """Last words of names that a fifth of the files of a folder share, and two at least."""
    left, kept = list(stems), set()
    for _ in range(3):
        counts = Counter(found[0] for stem in left if (found := _ENDING.search(stem)))
        shared = {word for word, count in counts.items() if count >= max(2, len(stems) / 5)}
        if not shared:
            break
        kept |= shared
        left = [_ENDING.sub("", stem) for stem in left if (found := _ENDING.search(stem)) and found[0] in shared]
    return kept


def _without_ending(stem: str, endings: set[str]) -> tuple[str, str]:
    core = stem
    for _ in range(3):
        found = _ENDING.search(core)
        if found is None or found[0] not in endings or found.start() == 0:
            break
        core = core[: found.start()]
    return core, stem[len(core) :]


def looks(path: Path | bytes, called: str = "") -> tuple[bool, int, bool, bool]:
    """Whether a picture is a mask by its pixels, its number of values, whether it is coloured, and almost a mask.

    Args:
        path: the file, or what is in it.
        called: what messages call it; its path by default.

    Raises:
        DataError: it cannot be read.
    """
    raw = read_map(path, called, indices=True)
    raw = raw[:: max(1, raw.shape[0] * raw.shape[1] // _LOOKED_AT)]  # rows, as neighbours in them are compared
    colored = raw.ndim == 3 and raw.shape[2] >= 3
    codes = packed(raw) if colored else raw.reshape(raw.shape[:2])
    if codes.shape[1] < 2:
        return True, len(np.unique(codes)), colored, False
    flat = float((codes[:, 1:] == codes[:, :-1]).mean())
    values = len(np.unique(codes))
    # Compression leaves few coarse colours, and neighbours that hardly differ.
    smooth = float((np.abs(np.diff(raw.astype(np.int32), axis=1)) <= 6).mean())
    coarse = packed(raw >> 5) if colored else codes >> 5
    frequent = np.sort(np.unique(coarse, return_counts=True)[1])[::-1][:24].sum() / codes.size
    return flat >= _FLAT and values <= _MOST_VALUES, values, colored, smooth > 0.97 and frequent > 0.97


def packed(raw: npt.NDArray[Any]) -> npt.NDArray[np.uint32]:
    """Colours (H, W, 3 or 4) in BGR order as numbers 0xRRGGBB."""
    wide = raw[..., :3].astype(np.uint32)
    return (wide[..., 2] << 16 | wide[..., 1] << 8 | wide[..., 0]).astype(np.uint32, copy=False)


def _evenly(pictures: Sequence[Picture], number: int) -> list[Picture]:
    return [pictures[i] for i in np.unique(np.linspace(0, len(pictures) - 1, number).round().astype(int))]


def _grouped(pictures: Sequence[Picture], which: int) -> dict[Hashable, list[Picture]]:
    groups: defaultdict[Hashable, list[Picture]] = defaultdict(list)
    for picture in pictures:
        lossless = picture.path.suffix.lower() in LABEL_SUFFIXES
        groups[(_role(picture, which), picture.ending, lossless)].append(picture)
    return dict(groups)


def _role(picture: Picture, which: int) -> str:
    """The folder that says what is in it: the first or last that is no split."""
    words = [word for word in picture.folders if word != "*"]
    return words[which] if words else ""


def _other_folders(picture: Picture, which: int) -> tuple[str, ...]:
    words = [word for word in picture.folders if word != "*"]
    return tuple(words[1:] if which == 0 else words[:-1])


def _called(root: Path, pictures: Sequence[Picture]) -> str:
    """Folder and pattern of the names of a group of pictures."""
    parts = [split_of(part)[1] for part in pictures[0].path.relative_to(root).parts[:-1]]
    suffixes = sorted({picture.path.suffix for picture in pictures})
    return "/".join([*parts, f"*{pictures[0].ending}{'|'.join(suffixes)}"])


def groups_of(
    root: Path, pictures: Sequence[Picture], which: int, seen: dict[Path, tuple[bool, int, bool, bool]]
) -> list[Group]:
    """Pictures by folder, ending and kind; some of each group are decoded to tell masks from photographs.

    Args:
        root: folder of the data.
        pictures: see `find_pictures`.
        which: 0 for the first folder that is no split, -1 for the last.
        seen: how pictures look that were decoded before; filled.

    Raises:
        DataError: a picture cannot be read.
    """
    groups: list[Group] = []
    photos: dict[Hashable, Group] = {}
    for key, members in _grouped(pictures, which).items():
        assert isinstance(key, tuple)
        chosen = [picture.path for picture in _evenly(members, _SAMPLE)]
        seen.update({path: looks(path) for path in chosen if path not in seen})
        found = [seen[path] for path in chosen]
        flat = sum(look[0] for look in found) * 2 > len(found)
        is_mask = flat and key[2]
        lossy = not key[2] and sum(look[3] for look in found) * 2 > len(found)
        values, colored = max(look[1] for look in found), found[0][2]
        group = Group(_called(root, members), members, is_mask, lossy, values, colored)
        # Photographs of one place in several formats are one group.
        if not is_mask and (first := photos.get(key[:2])) is not None:
            first.pictures = sorted([*first.pictures, *members])
            first.called = _called(root, first.pictures)
            continue
        if not is_mask:
            photos[key[:2]] = group
        groups.append(group)
    return groups


def pair_pictures(root: Path, pictures: Sequence[Picture]) -> Pairs:
    """Which mask is of which photograph.

    Args:
        root: folder of the data.
        pictures: see `find_pictures`.

    Raises:
        DataError: there are no masks, no photographs, or no names that they share.
    """
    best: tuple[Any, ...] | None = None
    seen: dict[Path, tuple[bool, int, bool, bool]] = {}
    for which in (0, -1):
        groups = groups_of(root, pictures, which, seen)
        photos, masks = [g for g in groups if not g.is_mask], [g for g in groups if g.is_mask]
        for photo in photos:
            for mask in masks:
                matched = _match(photo, mask, which)
                rank = (len(matched), *preference(mask))
                if best is None or rank > best[0]:
                    best = rank, matched, photo, mask, groups
    if best is None or not best[1]:
        _refuse(root, groups)
    assert best is not None
    _, matched, photo, mask, groups = best
    labelled = {image.split for image, _ in matched}
    paired_images = {image.path for image, _ in matched}
    paired_masks = {label.path for _, label in matched}
    alone = [picture for picture in photo.pictures if picture.path not in paired_images]
    return Pairs(
        [Pair(image.path, label.path, image.split or label.split) for image, label in matched],
        [Pair(picture.path, None, picture.split) for picture in alone if picture.split not in labelled],
        photo.called,
        mask.called,
        [group.called for group in groups if group is not photo and group is not mask],
        [picture.path for picture in alone if picture.split in labelled],
        [picture.path for picture in mask.pictures if picture.path not in paired_masks],
    )


def preference(mask: Group) -> tuple[float, ...]:
    """What makes one kind of masks the better one of two that both fit: ids rather than colours, never instances."""
    name = mask.called.lower()
    return (
        -("instance" in name or "panoptic" in name or mask.values > 120),
        "trainid" in name,
        not mask.is_colored,
        bool(_LABEL_WORDS.search(name)),
        -mask.values,
    )


def _match(photo: Group, mask: Group, which: int) -> list[tuple[Picture, Picture]]:
    """Photographs and masks whose names are the same, by the strictest rule that finds most of them."""
    enough = 0.5 * min(len(photo.pictures), len(mask.pictures))
    best: list[tuple[Picture, Picture]] = []
    for key in _keys(photo, mask, which):
        by_key: defaultdict[Hashable, list[Picture]] = defaultdict(list)
        images = Counter(key(picture) for picture in photo.pictures)
        for picture in mask.pictures:
            by_key[key(picture)].append(picture)
        found = [
            (picture, by_key[k][0])
            for picture in photo.pictures
            if images[k := key(picture)] == 1 and len(by_key.get(k, ())) == 1
        ]
        if len(found) > len(best):
            best = found
        if len(best) >= max(enough, 1):
            break
    return best


def _keys(photo: Group, mask: Group, which: int) -> list[Callable[[Picture], Hashable]]:
    prefixes = {id(group): _common_prefixes(group) for group in (photo, mask)}
    in_photos = {picture.path for picture in photo.pictures}

    def short(picture: Picture) -> str:
        found = _PREFIX.match(picture.core)
        known = prefixes[id(photo) if picture.path in in_photos else id(mask)]
        return picture.core[found.end() :] if found and found[0] in known else picture.core

    return [
        lambda picture: (picture.split, _other_folders(picture, which), picture.core),
        lambda picture: (picture.split, picture.core),
        lambda picture: picture.core,
        lambda picture: (picture.split, _other_folders(picture, which), short(picture)),
        short,
    ]


def _common_prefixes(group: Group) -> set[str]:
    """The word that all names of a group begin with, such as img_."""
    words = Counter(found[0] for picture in group.pictures if (found := _PREFIX.match(picture.core)))
    return {word for word, count in words.items() if count >= 0.9 * len(group.pictures)}


def _refuse(root: Path, groups: Sequence[Group]) -> None:
    """Say why nothing goes together.

    Raises:
        DataError: always.
    """
    photos, masks = ([g for g in groups if g.is_mask == is_mask] for is_mask in (False, True))
    count, number = (sum(len(group.pictures) for group in kind) for kind in (photos, masks))
    if not masks:
        lossy = next((group for group in photos if group.looks_lossy), None)
        if lossy is not None:
            raise DataError(
                f"{root}: {lossy.called} look like masks in a format that changes pixels ({lossy.pictures[0].path}): "
                "masks must be PNG, BMP, TIFF or PGM, made from the original annotations"
            )
        raise DataError(
            f"{root} has {count} photographs and no masks, such as {photos[0].pictures[0].path}: put masks beside them "
            "(PNG or TIFF of ids or colours, with the names of the images), or annotations as COCO or YOLO polygons"
        )
    if not photos:
        raise DataError(
            f"{root} has {number} masks and no photographs, such as {masks[0].pictures[0].path}: give the folder that "
            "has the images, too"
        )
    raise DataError(
        f"{root}: no mask has the name of an image: {count} images such as {photos[0].pictures[0].path}, {number} "
        f"masks such as {masks[0].pictures[0].path}: give them the same names, apart from endings such as _mask"
    )
