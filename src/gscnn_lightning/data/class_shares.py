"""How many pixels of a data set each class has: what weights of classes are made from."""

import contextlib
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gscnn_lightning.data.ahead import results_in_order
from gscnn_lightning.data.class_tiles import cache_folder
from gscnn_lightning.data.source import Source
from gscnn_lightning.errors import DataError
from gscnn_lightning.terminal import progress

_VERSION = 1  # of the file format

# Frames that are looked at, evenly spaced, where nothing can be kept, as every start would count anew.
_MOST_ANEW = 500


def class_shares(source: Source, num_classes: int, with_bar: bool = True) -> list[float]:
    """Share of every class among the labelled pixels: counted over all frames, or as kept in the user's cache folder.

    A source that draws its frames has no files to keep counts of: there it is over 500 of them, evenly spaced.

    Args:
        source: the frames; unlabelled ones are passed over.
        num_classes: number of classes K.
        with_bar: show a bar while pixels are counted.

    Returns:
        K shares, which sum to 1.

    Raises:
        DataError: a label map cannot be read, or there is nothing but void.
    """
    fingerprint = source.fingerprint()
    path = None if fingerprint is None else cache_folder() / f"class_pixels_{_VERSION}_{fingerprint[:32]}.json"
    counts = _kept(path, num_classes)
    if counts is None:
        few = range(0, len(source), -(-len(source) // _MOST_ANEW))
        counts = _count(source, few if path is None else range(len(source)), num_classes, with_bar)
        if path is not None:
            _keep(path, counts)
    total = sum(counts)
    if not total:
        raise DataError(f"all {len(source)} label maps are void: no class has pixels. Check the class table")
    return [count / total for count in counts]


def _count(source: Source, frames: range, num_classes: int, with_bar: bool) -> list[int]:
    def pixels(index: int) -> npt.NDArray[np.int64]:
        labels = source.load_labels(index)
        found = np.zeros(0, np.uint8) if labels is None else labels.ravel()
        return np.bincount(found, minlength=256)[:num_classes].astype(np.int64)

    counts = np.zeros(num_classes, np.int64)
    bar = progress(len(frames), "pixels of the classes", disable=not with_bar)
    with bar as advance:
        for found in results_in_order(pixels, frames, os.cpu_count() or 1):
            counts += found
            advance()
    return [int(count) for count in counts]


def _kept(path: Path | None, num_classes: int) -> list[int] | None:
    # A file that is missing, or damaged, is made again.
    with contextlib.suppress(OSError, ValueError):
        counts = None if path is None else json.loads(path.read_text(encoding="utf-8"))
        if isinstance(counts, list) and len(counts) == num_classes and all(type(count) is int for count in counts):
            return counts
    return None


def _keep(path: Path, counts: Sequence[int]) -> None:
    with contextlib.suppress(OSError):  # without a place to keep them, pixels are counted at every start
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, suffix=".json")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(list(counts), file)
        Path(name).replace(path)
