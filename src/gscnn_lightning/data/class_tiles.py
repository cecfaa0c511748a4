"""Where in a data set each class is: the index behind class-uniform sampling over all frames."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from gscnn_lightning.classes import IGNORE_INDEX
from gscnn_lightning.data.ahead import results_in_order
from gscnn_lightning.data.source import Source
from gscnn_lightning.errors import DataError, SettingError
from gscnn_lightning.terminal import progress

Bytes = npt.NDArray[np.uint8]
Tiles = npt.NDArray[np.int32]

TILE = 256
"""Height and width of a tile in pixels."""

_VERSION = 1  # of the file format


class Target(NamedTuple):
    """What a crop is to be centred on: a pixel of a class within a tile of a frame.

    Attributes:
        label: train id.
        top: first row of the tile.
        left: first column of the tile.
    """

    label: int
    top: int
    left: int


@dataclass(frozen=True)
class ClassTiles:
    """All tiles of all frames that hold a class, sorted by class. Tiles are `TILE` pixels high and wide.

    Attributes:
        labels: (N,) train id, ascending.
        frames: (N,) index of the frame.
        tops: (N,) first row of the tile.
        lefts: (N,) first column of the tile.
    """

    labels: npt.NDArray[np.uint8]
    frames: npt.NDArray[np.int32]
    tops: npt.NDArray[np.int32]
    lefts: npt.NDArray[np.int32]

    def __post_init__(self) -> None:
        values = np.arange(256, dtype=np.uint8)
        starts, stops = (np.searchsorted(self.labels, values, side) for side in ("left", "right"))
        ranges = [(label, starts[label], stops[label]) for label in range(256) if starts[label] < stops[label]]
        object.__setattr__(self, "_ranges", ranges)

    def draw(self, rng: np.random.Generator) -> tuple[int, Target]:
        """Frame and target: a class drawn uniformly from those in the data, then one of its tiles."""
        ranges: list[tuple[int, int, int]] = self._ranges  # type: ignore[attr-defined]
        label, start, stop = ranges[rng.integers(len(ranges))]
        place = rng.integers(start, stop)
        return int(self.frames[place]), Target(int(label), int(self.tops[place]), int(self.lefts[place]))


def class_tiles(source: Source, with_bar: bool = True) -> ClassTiles:
    """Index of the class tiles of a source: from the cache folder, or built and put there.

    Args:
        source: the frames.
        with_bar: show a bar while the index is built.

    Raises:
        SettingError: the source cannot tell when its labels change.
        DataError: a label map cannot be read, or there is nothing but void.
    """
    known = source.class_tiles()
    if known is not None:
        return known
    fingerprint = source.fingerprint()
    if fingerprint is None:
        kind = type(source).__name__
        raise SettingError(f"class_uniform_over='data' needs label files to index, and {kind} has none: use 'frame'")
    path = cache_folder() / f"class_tiles_{_VERSION}_{fingerprint[:32]}.npz"
    # A file that is missing, or damaged, is made again.
    with contextlib.suppress(OSError, ValueError, KeyError, EOFError), np.load(path) as arrays:
        return ClassTiles(**{name: arrays[name] for name in ("labels", "frames", "tops", "lefts")})
    tiles = _build(source, with_bar)
    with contextlib.suppress(OSError):  # without a place to keep it, the index is built at every start
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, suffix=".npz")
        os.close(handle)
        np.savez_compressed(name, labels=tiles.labels, frames=tiles.frames, tops=tiles.tops, lefts=tiles.lefts)
        Path(name).replace(path)
    return tiles


def cache_folder() -> Path:
    """Folder of this library below the user's cache folder: XDG_CACHE_HOME, or what is usual on the platform."""
    if os.environ.get("XDG_CACHE_HOME"):
        base = Path(os.environ["XDG_CACHE_HOME"])
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        base = Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")
    return base / "gscnn-lightning"


def sorted_tiles(tables: Sequence[Tiles]) -> ClassTiles:
    """The index of all frames from the tables of each, as `tiles_of` makes them.

    Args:
        tables: (N, 3) of every frame, in order.
    """
    frames = np.repeat(np.arange(len(tables), dtype=np.int32), [len(table) for table in tables])
    table = np.concatenate([np.empty((0, 3), np.int32), *tables])
    labels = table[:, 0].astype(np.uint8)
    order = np.argsort(labels, kind="stable")
    return ClassTiles(labels[order], frames[order], table[order, 1], table[order, 2])


def tiles_of(labels: Bytes) -> Tiles:
    """Class, first row and first column (N, 3) of every tile and class in it.

    Args:
        labels: train ids (H, W), 255 for void.
    """
    found = []
    for top in range(0, labels.shape[0], TILE):
        for left in range(0, labels.shape[1], TILE):
            tile = labels[top : top + TILE, left : left + TILE]
            counts = cv2.calcHist([tile], [0], None, [256], [0, 256]).ravel()
            counts[IGNORE_INDEX] = 0
            found += [(label, top, left) for label in np.flatnonzero(counts).tolist()]
    return np.array(found, np.int32).reshape(-1, 3)


def _build(source: Source, with_bar: bool) -> ClassTiles:
    def rows(index: int) -> Tiles:
        labels = source.load_labels(index)
        return np.empty((0, 3), np.int32) if labels is None else tiles_of(labels)

    tables = []
    bar = progress(len(source), "where the classes are", disable=not with_bar)
    with bar as advance:
        for found in results_in_order(rows, range(len(source)), os.cpu_count() or 1):
            tables.append(found)
            advance()
    tiles = sorted_tiles(tables)
    if not len(tiles.labels):
        raise DataError(f"all {len(source)} label maps are void: nothing to sample classes from. Check the class table")
    return tiles
