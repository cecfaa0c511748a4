"""Which file of a folder is the prediction of which frame."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gscnn_lightning.data.files import LABEL_SUFFIXES, user_path, walk
from gscnn_lightning.errors import DataError
from gscnn_lightning.scoring.truth import Truth

SUFFIXES = frozenset({*LABEL_SUFFIXES, ".npy", ".npz"})
LOSSY = frozenset({".jpg", ".jpeg", ".webp"})

_NO_LABELS = re.compile(
    r"_(?:overlay|boundary|edges?|gate\d*|instance(?:Train)?Ids|confidence|entropy|errors?|photo|blend|heatmap)$", re.I
)
_LABELS = ("", "labels", "labelTrainIds", "trainIds", "labelIds", "ids", "pred", "prediction", "mask", "seg")
_COLORS = ("color", "colors", "colour", "rgb")
_BOUNDARIES = ("boundary", "edge", "edges", "")
_COMMON = 100  # behind all endings that are known


@dataclass
class Matched:
    """Files of a folder by frame.

    Attributes:
        files: file of each frame that has one, by the frame's index.
        missing: indices of the frames without one.
        surplus: files that are of no frame.
        left_out: number of files that are of a frame and were not chosen, by the end of their names.
        lossy: pictures in formats that change pixels, which are never label maps.
    """

    files: dict[int, Path] = field(default_factory=dict)
    missing: list[int] = field(default_factory=list)
    surplus: list[Path] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    lossy: list[Path] = field(default_factory=list)


def match_files(folder: Path, truth: Truth, coding: str | None = None, without: Sequence[Path] = ()) -> Matched:
    """The label map of each frame.

    A file is named as the frame, its image or its labels, with anything behind that begins with an underscore, a dash
    or a dot and has a letter in it. Folders tell frames of one name apart, and are else of no matter. Of several files
    of a frame the one is taken whose name says most plainly that it is a label map.

    Args:
        folder: where to look, through all folders in it.
        truth: the frames.
        coding: "colors" to prefer pictures of colours.
        without: folders in it to leave out.

    Raises:
        DataError: the folder cannot be used, or it cannot be told which file is a frame's.
    """
    order = (*_COLORS, *_LABELS) if coding == "colors" else (*_LABELS, *_COLORS)
    return _match(folder, truth, order, _NO_LABELS, without)


def match_boundary_maps(folder: Path, truth: Truth) -> Matched:
    """The boundary map of each frame, as `match_files`: ``NAME_boundary`` where there are several files of a frame."""
    return _match(folder, truth, _BOUNDARIES, None, ())


def _match(
    folder: Path, truth: Truth, order: Sequence[str], never: re.Pattern[str] | None, without: Sequence[Path]
) -> Matched:
    folder = user_path(folder, "the folder")
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder: give the folder of the predictions")
    frames = _by_name(truth)
    result = Matched()
    found: dict[int, list[tuple[str, Path]]] = {}
    skipped = [path.resolve() for path in without]
    for path in sorted(walk(folder)):
        suffix = path.suffix.lower()
        if suffix not in SUFFIXES | LOSSY or path.name.startswith(".") or not path.is_file():
            continue
        if skipped and any(path.resolve().is_relative_to(other) for other in skipped):
            continue
        if suffix in LOSSY:
            result.lossy.append(path)
            continue
        index, ending = _frame_of(path.relative_to(folder).with_suffix(""), frames, truth)
        if index is None:
            result.surplus.append(path)
        elif never is not None and never.search(ending):
            result.left_out[ending] += 1
        else:
            found.setdefault(index, []).append((ending, path))
    common = Counter(ending for files in found.values() for ending, _ in files if _rank(ending, order) is None)
    usual = common.most_common(1)[0][0] if common else None
    for index, files in sorted(found.items()):
        _choose(truth.source.name(index), index, files, order, usual, result)
    result.missing = [index for index in range(len(truth.source)) if index not in result.files]
    return result


def _by_name(truth: Truth) -> dict[str, list[tuple[int, tuple[str, ...]]]]:
    """Frames by the last part of what they are called, with the folders before it."""
    frames: dict[str, list[tuple[int, tuple[str, ...]]]] = {}
    for index in range(len(truth.source)):
        folders = tuple(truth.source.name(index).split("/")[:-1])
        for name in dict.fromkeys(name.rpartition("/")[2] for name in truth.file_names(index)):
            frames.setdefault(name, []).append((index, folders))
    return frames


def _frame_of(path: Path, frames: dict[str, list[tuple[int, tuple[str, ...]]]], truth: Truth) -> tuple[int | None, str]:
    """The frame of a file, None if there is none, and what stands behind its name."""
    for stem, ending in _parts(path.name):
        if (named := frames.get(stem)) is None or (ending and not any(map(str.isalpha, ending))):
            continue
        if len(named) > 1:
            folders = path.parts[:-1]
            named = [(index, own) for index, own in named if not own or folders[-len(own) :] == own]
            longest = max((len(own) for _, own in named), default=0)
            named = [(index, own) for index, own in named if len(own) == longest]
        if len(named) == 1:
            return named[0][0], ending
        others = [truth.source.name(index) for index, _ in frames[stem][:2]]
        raise DataError(
            f"{path} may be a prediction of {others[0]} or of {others[1]}: put predictions of frames of one name into "
            "folders as those of the frames"
        )
    return None, ""


def _parts(stem: str) -> Iterator[tuple[str, str]]:
    """A name and nothing, then without ever more of its end."""
    yield stem, ""
    for place in range(len(stem) - 1, 0, -1):
        if stem[place] in "_-.":
            yield stem[:place], stem[place:]


def _rank(ending: str, order: Sequence[str]) -> int | None:
    """Place of the end of a name among those that are known; None if it is not."""
    last = re.split(r"[_\-.]", ending)[-1].lower()
    return next((place for place, known in enumerate(order) if known.lower() == last), None)


def _choose(
    name: str, index: int, files: list[tuple[str, Path]], order: Sequence[str], usual: str | None, result: Matched
) -> None:
    """Take the file of a frame."""
    ranked: list[tuple[int, str, Path]] = []
    for ending, path in files:
        place = _rank(ending, order)
        if place is None and ending != usual:
            # Not what the others end in: perhaps the prediction of another picture whose name begins alike.
            result.surplus.append(path)
        else:
            ranked.append((_COMMON if place is None else place, ending, path))
    ranked.sort(key=lambda item: item[0])
    if len(ranked) > 1 and ranked[0][0] == ranked[1][0]:
        raise DataError(
            f"{ranked[0][2]} and {ranked[1][2]} may both be the prediction of {name}: remove one of them, or give a "
            "folder with one of the kinds alone"
        )
    if ranked:
        result.files[index] = ranked[0][2]
        result.left_out.update(ending for _, ending, _ in ranked[1:])


def listed(names: Iterable[object], most: int = 5) -> str:
    """Some names as text, and how many more there are.

    Example:
        >>> listed(["a", "b", "c"], most=2)
        'a, b and 1 more'
    """
    every = [str(name) for name in names]
    more = f" and {len(every) - most} more" if len(every) > most else ""
    return ", ".join(every[:most]) + more
